from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert, save_expert
from lightning.pytorch import Trainer
from small_models import ConstantExpert
from torch.nn import functional as F

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, PretrainedExpert, TimmExpert
from fusionlab.fusion.features import Attention, Concat, Projection, Weighted
from fusionlab.heads import LinearHead, MLPHead, SegmentationHead
from fusionlab.models import FeatureFusion
from fusionlab.tasks.base import ModelFactory, Task
from fusionlab.types import Modality, Schema, TimeSeries

MODALITIES = {
    "s2": Modality(("B02", "B03", "B04", "B08"), 10.0, mean=(5, 5, 5, 5), std=(2, 2, 2, 2)),
    "s1": Modality(("VV", "VH"), 20.0),
    "era5": Modality(("t", "p"), 1000.0, temporal=True),
}
CLASSES = ("pasture", "broad-leaved forest", "marine waters")
SCHEMA = Schema(MODALITIES, CLASSES, target="multilabel")
OPERATORS = {
    "concat": Concat,
    "concat_learned": partial(Concat, missing="learned"),
    "weighted": Weighted,
    "projection": partial(Projection, width=5),
    "attention": partial(Attention, heads=2),
}
EXPERTS = {"s2": partial(PooledExpert, width=8), "s1": PooledExpert}
THREE = {
    "s2_rgb": partial(PooledExpert, modality="s2", bands=["B04", "B03", "B02"], width=4),
    "s2_other": partial(PooledExpert, modality="s2", bands=["B08"]),
    "s1": PooledExpert,
}


def batch(size=4, seed=0, **available):
    random = torch.Generator().manual_seed(seed)
    there = {name: torch.ones(size, dtype=torch.bool) for name in MODALITIES}
    there |= {name: torch.tensor(value) for name, value in available.items()}
    s2 = torch.randint(1, 10, (size, 4, 8, 8), generator=random)
    s1 = 2 + torch.randn(size, 2, 4, 4, generator=random)
    return {
        "inputs": {
            "s2": (s2 * there["s2"][:, None, None, None]).to(torch.uint16),
            "s1": s1 * there["s1"][:, None, None, None],
            "era5": TimeSeries(
                torch.rand(size, 3, 2, 1, 1, generator=random),
                torch.arange(3).expand(size, 3),
                torch.ones(size, 3, dtype=torch.bool),
            ),
        },
        "available": there,
        "target": torch.randint(0, 2, (size, 3), generator=random).float(),
        "sample_id": [str(i) for i in range(size)],
    }


def model(operator="concat", experts=None, schema=SCHEMA, **options) -> FeatureFusion:
    torch.manual_seed(0)
    return FeatureFusion(
        schema, experts=experts or EXPERTS, fusion=OPERATORS[operator], **options
    ).eval()


@pytest.mark.parametrize("operator", OPERATORS)
def test_it_is_experts_operator_and_head(operator):
    fused = model(operator)
    data = batch()
    embeddings = {n: fused.expert(n).features(data["inputs"][n]) for n in ("s2", "s1")}
    together = fused.fusion(embeddings)
    output = fused(data)
    torch.testing.assert_close(output.logits, fused.head(together.features))
    assert output.logits.shape == (4, 3)
    assert {n: tuple(e.shape) for n, e in output.embeddings.items()} == {
        "s2": (4, 8),
        "s1": (4, 6),
        "fused": (4, fused.fusion.channels_out),
    }
    torch.testing.assert_close(output.embeddings["fused"], together.features)
    assert (output.weights is None) == (together.weights is None)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_steps_are_separable(operator):
    fused = model(operator)
    data = batch(s1=[True, False, True, True])
    stored = {name: embedding.clone() for name, embedding in fused.embed(data).items()}
    assert torch.equal(fused.fuse(stored, data).logits, fused(data).logits)
    only = {"available": data["available"]}  # images are not looked at again
    assert torch.equal(fused.fuse(stored, only).logits, fused(data).logits)


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_fills_a_missing_image_does_not_matter(operator):
    fused = model(operator)
    available = {"s1": [True, False, False, True], "s2": [True, True, False, False]}
    data, other = batch(**available), batch(**available)
    for name in ("s1", "s2"):
        missing = ~data["available"][name]
        other["inputs"][name] = other["inputs"][name].float()
        other["inputs"][name][missing] = float("nan")
    first, second = fused(data), fused(other)
    assert torch.equal(first.logits, second.logits)
    for name, embedding in first.embeddings.items():
        assert torch.equal(embedding, second.embeddings[name])
    assert not first.embeddings["s1"][1].any()
    complete = fused(batch())
    assert torch.equal(complete.logits[0], first.logits[0])


@pytest.mark.parametrize("operator", OPERATORS)
def test_zeros_of_missing_images_teach_batch_norm_nothing(operator):
    fused = model(operator).train()
    half = [True, False, True, False]
    fused(batch(s1=half))
    alone = model(operator).train()
    data = batch()
    alone.expert("s1").features(data["inputs"]["s1"][half])
    norm, expected = fused.expert("s1").body[1], alone.expert("s1").body[1]
    torch.testing.assert_close(norm.running_mean, expected.running_mean)
    torch.testing.assert_close(norm.running_var, expected.running_var, rtol=0.05, atol=0)


def test_a_series_is_a_modality_as_any():
    fused = model(experts={**EXPERTS, "era5": PooledExpert}).train()
    fused(batch(era5=[True, True, False, True])).logits.sum().backward()
    assert all(p.grad is not None for p in fused.expert("era5").parameters())


def test_several_experts_look_at_one_modality():
    fused = model("weighted", THREE)
    assert fused.contributors == ("s2_rgb", "s2_other", "s1")
    assert fused.modalities == ("s2", "s1")
    assert (fused.reference, fused.gsd) == ("s2", 10.0)
    weights = fused(batch(s2=[False, True, True, True])).weights
    assert weights["s2_rgb"][0] == weights["s2_other"][0] == 0
    assert weights["s1"][0] == 1
    assert (weights["s2_rgb"][1:] > 0).all()
    data = batch()
    data["inputs"]["s2"][:, 3] = 1  # the band of s2_other
    before, after = fused.embed(batch()), fused.embed(data)
    assert torch.equal(before["s2_rgb"], after["s2_rgb"])
    assert not torch.allclose(before["s2_other"], after["s2_other"])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_shares_sum_to_one_and_fall_on_who_is_there(operator, target):
    fused = model(operator, THREE, Schema(MODALITIES, CLASSES, target=target))
    data = batch(s1=[True, False, True, False], s2=[True, True, False, False])
    output, shares = fused.explain(data)
    torch.testing.assert_close(output.logits, fused(data).logits)
    assert list(shares) == list(THREE)
    assert all(share.shape == (4,) for share in shares.values())
    torch.testing.assert_close(torch.stack(list(shares.values())).sum(0), torch.ones(4))
    assert shares["s1"][1] == 0
    assert shares["s2_rgb"][2] == shares["s2_other"][2] == 0
    torch.testing.assert_close(
        torch.stack(list(shares.values()))[:, 3], torch.full((3,), 1 / 3)
    )  # nobody is there
    if output.weights is not None:
        for name, weight in output.weights.items():
            assert torch.equal(shares[name], weight[:, 0])


@pytest.mark.parametrize(("target", "link"), [("multilabel", "sigmoid"), ("multiclass", "softmax")])
def test_left_out_experts_are_weighed_by_the_probability_of_the_decided_class(target, link):
    fused = model("concat", schema=Schema(MODALITIES, CLASSES, target=target))
    data = batch()

    def probability(output):
        logits = output.logits
        return logits.sigmoid() if link == "sigmoid" else logits.softmax(dim=1)

    decided = fused(data).logits.argmax(dim=1)
    full = probability(fused(data))[range(4), decided]
    drops = {}
    for name in EXPERTS:
        without = {**data["available"], name: torch.zeros(4, dtype=torch.bool)}
        left = probability(fused({**data, "available": without}))[range(4), decided]
        drops[name] = (full - left).clamp(min=1e-6)
    shares = fused.explain(data).shares
    for name, drop in drops.items():
        torch.testing.assert_close(shares[name], drop / sum(drops.values()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_parameter_has_a_gradient_whoever_is_missing(operator):
    """Distributed training waits for all of them: zero where nothing was seen, but not None."""
    nobody = [False] * 4
    for available in ({}, {"s1": nobody}, {"s1": nobody, "s2": nobody}):
        fused = model(operator).train()
        data = batch(**available)
        loss = F.binary_cross_entropy_with_logits(fused(data).logits, data["target"])
        loss.backward()
        for name, parameter in fused.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        first = fused.expert("s1").body[0].weight.grad
        assert bool(first.any()) is not bool(available)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_and_head_are_exact_under_autocast(operator):
    fused = model(operator)
    data = batch()
    embeddings = fused.embed(data)
    with torch.autocast("cpu", torch.bfloat16):
        exact = fused.fuse(embeddings, data)
        output = fused(data)
    assert torch.equal(exact.logits, fused.fuse(embeddings, data).logits)
    assert output.logits.dtype == torch.float32
    assert all(e.dtype == torch.float32 for e in output.embeddings.values())
    torch.testing.assert_close(output.logits, exact.logits, atol=0.1, rtol=0.1)


def test_the_order_of_experts_does_not_matter():
    first = model("attention", THREE)
    second = model("attention", dict(reversed(THREE.items())))
    second.load_state_dict(first.state_dict())
    data = batch(s1=[True, False, True, True])
    torch.testing.assert_close(second(data).logits, first(data).logits)


@pytest.mark.parametrize("operator", OPERATORS)
def test_describe_and_build(operator):
    fused = model(operator, THREE, head=partial(MLPHead, hidden=7))
    description = fused.describe()
    again = build(description, ModelFactory, SCHEMA, where="a test").eval()
    assert build(again.describe(), ModelFactory, SCHEMA, where="it").describe() == again.describe()
    again.load_state_dict(fused.state_dict())
    assert torch.equal(again(batch()).logits, fused(batch()).logits)


def test_short_names_as_in_a_configuration():
    given = {
        "class_path": "FeatureFusion",
        "init_args": {
            "experts": {
                "s2": {"class_path": "embedding_experts.PooledExpert", "init_args": {"width": 3}},
                "s1": {"class_path": "embedding_experts.PooledExpert"},
            },
            "fusion": {"class_path": "Weighted", "init_args": {"weights": {"s2": 3, "s1": 1}}},
            "head": {"class_path": "MLPHead", "init_args": {"hidden": 4}},
        },
    }
    fused = build(given, ModelFactory, SCHEMA, where="a test")
    assert fused.head.hidden.out_features == 4
    weights = fused(batch()).weights
    torch.testing.assert_close(weights["s2"], torch.full((4, 1), 0.75))


class MultilabelTask(Task):
    """The least that trains: nothing here depends on how the real tasks do it."""

    def training_step(self, batch, batch_idx):
        return F.binary_cross_entropy_with_logits(self(batch).logits, batch["target"])


def test_a_checkpoint_restores_the_model_alone(tmp_path):
    torch.manual_seed(0)
    expert = PooledExpert(SCHEMA.only("s2")).train()
    expert.features(batch(seed=9)["inputs"]["s2"])
    path = save_expert(expert, tmp_path / "s2.ckpt", SCHEMA.only("s2"))
    task = MultilabelTask(
        SCHEMA,
        partial(
            FeatureFusion,
            experts={"s2": partial(FrozenExpert, checkpoint=path), "s1": PooledExpert},
            fusion=Weighted,
            head=partial(LinearHead, dropout=0.0),
            cache=str(tmp_path / "cache"),
        ),
    )
    before = {k: v.clone() for k, v in task.model.expert("s2").state_dict().items()}
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([batch(seed=i) for i in range(3)], batch_size=None)
    trainer.fit(task, loader)
    trainer.save_checkpoint(tmp_path / "fused.ckpt")
    (tmp_path / "s2.ckpt").unlink()

    content = torch.load(tmp_path / "fused.ckpt", weights_only=True)
    stored = content["hyper_parameters"]
    assert "cache" not in stored["model"]["init_args"]
    assert stored["trained_on"]["target"] == "multilabel"
    again = MultilabelTask(
        Schema({}, ()),
        partial(build, stored["model"], ModelFactory, where="the checkpoint"),
        trained_on=stored["trained_on"],
    )
    again.load_state_dict(content["state_dict"])
    task.eval(), again.eval()
    data = batch(s1=[True, False, True, True])
    torch.testing.assert_close(again(data).logits, task(data).logits)
    after = again.model.expert("s2").state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_experts_of_other_classes_may_be_used(tmp_path):
    other = Schema({"s2": MODALITIES["s2"]}, ("urban", "crops"), target="multiclass")
    expert = PooledExpert(other).eval()
    path = save_expert(expert, tmp_path / "s2.ckpt", other)
    fused = model(experts={"s2": partial(FrozenExpert, checkpoint=path), "s1": PooledExpert})
    embedding = fused.embed(batch())["s2"]
    torch.testing.assert_close(embedding, expert.features(batch()["inputs"]["s2"]))
    assert fused(batch()).logits.shape == (4, 3)


def test_only_what_is_not_frozen_trains(tmp_path):
    path = save_expert(
        PooledExpert(SCHEMA.only("s2")), tmp_path / "s2.ckpt", SCHEMA.only("s2")
    )  # fmt: skip
    frozen = model(experts={"s2": partial(FrozenExpert, checkpoint=path), "s1": PooledExpert})
    before = {k: v.clone() for k, v in frozen.expert("s2").state_dict().items()}
    frozen.train()(batch(s2=[True, False, False, True])).logits.sum().backward()
    assert all(p.grad is None for p in frozen.expert("s2").parameters())
    after = frozen.expert("s2").state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_it_reads_from_data_with_bands_in_another_order():
    fused = model()
    shuffled = {
        "s2": MODALITIES["s2"].select(["B08", "B04", "B03", "B02"], where="test"),
        "s1": MODALITIES["s1"],
    }
    data = batch()
    expected = fused(data).logits
    fused.rebind(Schema(shuffled, CLASSES, target="multilabel"))
    data["inputs"]["s2"] = data["inputs"]["s2"].int().flip(1)
    torch.testing.assert_close(fused(data).logits, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": SegmentationHead}, "SegmentationHead answers classes for every pixel"),
        ({"schema": Schema(MODALITIES, target="multilabel")}, "at least one class"),
        ({"experts": {"s2": PooledExpert}}, "two or more experts"),
        ({"experts": {"s2": PooledExpert, "fused": PooledExpert}}, "'fused' is the result"),
        ({"experts": {**EXPERTS, "s2.rgb": partial(PooledExpert, modality="s2")}}, "without dots"),
        ({"experts": {**EXPERTS, "items": partial(PooledExpert, modality="s2")}}, "'items'"),
        (
            {"experts": {"s2": PooledExpert, "s1": ConstantExpert}},
            r"expert 's1': ConstantExpert gives no features.*LateFusion",
        ),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        model(**options)


def test_a_pretrained_expert_leaves_no_head_without_gradient(tmp_path):
    """In a distributed run a trainable parameter that takes no part is an error."""
    expert = TimmExpert(SCHEMA, backbone="test_resnet", modality="s2")
    file = save_expert(expert, tmp_path / "s2.ckpt", SCHEMA.only("s2"))
    model = FeatureFusion(
        SCHEMA, experts={"s2": partial(PretrainedExpert, checkpoint=file), "s1": PooledExpert}
    ).train()
    data = batch()
    data["inputs"]["s2"] = torch.randint(1, 10, (4, 4, 32, 32))
    model(data).logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
