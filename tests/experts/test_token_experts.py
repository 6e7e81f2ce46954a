"""What holds for the experts of texts, tables and series alike."""

import copy
import pickle
from functools import partial

import pytest
import torch
from embedding_experts import save_expert
from lightning.pytorch import Trainer
from part_samples import (
    BARE,
    CLASSES,
    EXPERTS,
    MODALITIES,
    SCHEMA,
    WITH_IMAGE,
    batch,
    expert,
    pick,
    samples,
)

from fusionlab.component import build
from fusionlab.data.samples import blank, collate
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, PretrainedExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.fusion import Average, ModalityWeighted
from fusionlab.fusion.features import Add, Concat, FusedFeatures
from fusionlab.fusion.features.base import TokenOperator
from fusionlab.heads import LinearHead, MLPHead, RegressionHead, SegmentationHead
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.tasks import ClassificationTask
from fusionlab.tasks.base import ModelFactory
from fusionlab.types import Schema, TimeSeries

ALL = pytest.mark.parametrize("name", EXPERTS)


@ALL
def test_logits_come_from_the_embedding(name):
    model, values = expert(name), samples()[name]
    output = model.answer(values)
    assert output.logits.shape == (4, 3)
    embedding = model.features(values)
    assert embedding.shape == (4, model.embedding_dim) == (4, 8)
    assert torch.equal(output.embeddings[name], embedding)
    assert torch.equal(output.logits, model.head(embedding))
    assert torch.equal(model.logits(values), output.logits)
    assert output.logits.isfinite().all()


@ALL
def test_tokens_are_as_wide_as_the_embedding_and_zero_where_they_pad(name):
    model, values = expert(name), samples()[name]
    model.require_tokens()
    tokens = model.tokens(values)
    assert tokens.grid is None
    assert tokens.valid.dtype == torch.bool
    assert tokens.values.shape == (*tokens.valid.shape, 8)
    assert tokens.values.isfinite().all()
    assert (tokens.values[~tokens.valid] == 0).all()
    assert (tokens.values[tokens.valid].abs().sum(dim=-1) > 0).all()


@ALL
def test_samples_do_not_know_of_each_other(name):
    model, values = expert(name), samples()[name]
    order = [2, 0, 3, 1]
    moved = model.features(pick(values, order))
    torch.testing.assert_close(moved, model.features(values)[order])
    for i in range(4):  # alone, without the padding that the others made
        torch.testing.assert_close(model.features(pick(values, [i])), model.features(values)[[i]])


@ALL
@pytest.mark.parametrize("ask", ["features", "tokens"])
def test_every_parameter_learns_from_either(name, ask):
    """As processes that train together require."""
    model, values = expert(name, BARE).train(), samples(8)[name]
    result = getattr(model, ask)(values)
    values = result if ask == "features" else result.values
    (values * torch.randn_like(values)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@ALL
def test_it_learns(name):
    torch.manual_seed(0)
    model = EXPERTS[name](SCHEMA, dropout=0.0).train()
    values, labels = samples(seed=3)[name], torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.logits(values), labels)
        loss.backward()
        optimizer.step()
    assert (model.eval().logits(values).argmax(dim=1) == labels).all()


@ALL
def test_half_precision_is_near(name):
    model, values = expert(name), samples()[name]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        half = model.logits(values)
    torch.testing.assert_close(half.float(), model.logits(values), atol=0.05, rtol=0.05)


@ALL
def test_the_host_waits_for_nothing(name):
    """Tensors on the meta device have no values: whoever asks for one is refused by torch."""
    model = EXPERTS[name](SCHEMA).train().to("meta")
    values = samples()[name]
    if isinstance(values, TimeSeries):
        values = TimeSeries(*(part.to("meta") for part in values))
    elif isinstance(values, torch.Tensor):
        values = values.to("meta")
    model.logits(values).sum().backward()
    assert model.tokens(values).values.is_meta


@ALL
def test_what_stands_for_a_missing_modality_is_finite(name):
    # As samples come: without the batch axis.
    sample = {
        "caption": "a road",
        "site": samples()["site"][0],
        "weather": TimeSeries(*(part[0] for part in samples()["weather"])),
    }[name]
    values = collate([{"x": blank(sample)}, {"x": sample}])["x"]
    model = expert(name).train()
    model.logits(values).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.eval().logits(values).isfinite().all()


@ALL
def test_without_classes_there_is_no_head(name):
    model = expert(name, BARE, head=partial(MLPHead, hidden=4))
    assert model.head is None
    assert "head" not in model.describe()["init_args"]
    with pytest.raises(InputError, match="without classes"):
        model.logits(samples()[name])


@ALL
def test_heads_for_samples_only(name):
    model = expert(name, head=partial(MLPHead, hidden=5, dropout=0.3))
    assert model.logits(samples()[name]).shape == (4, 3)
    for head in (SegmentationHead, RegressionHead):
        with pytest.raises(InputError, match=rf"which {head.__name__} cannot.*MLPHead"):
            expert(name, head=head)
    mapped = Schema(MODALITIES, CLASSES)
    with pytest.raises(InputError, match="'segmentation', one per pixel"):
        expert(name, mapped)


@ALL
def test_values_of_variables(name):
    schema = Schema(MODALITIES, variables=("yield",), target="scalar_regression")
    assert expert(name, schema).logits(samples()[name]).shape == (4, 1)


@ALL
def test_there_are_no_maps(name):
    kind = MODALITIES[name].kind
    with pytest.raises(InputError, match=rf"looks at a {kind}, of which there are no feature maps"):
        expert(name).features(samples()[name], pooled=False)
    with pytest.raises(InputError, match=rf"cannot use the expert '{name}'.*LateFusion"):
        FeatureFusion(SCHEMA, experts={k: WITH_IMAGE[k] for k in ("image", name)}, pooled=False)


@ALL
def test_values_of_another_kind_are_refused(name):
    model = expert(name)
    for other, values in samples().items():
        if other != name:
            with pytest.raises(InputError, match=rf"{type(model).__name__} takes .*'{name}'"):
                model.features(values)


@ALL
def test_modalities_of_another_kind_are_refused(name):
    for other in MODALITIES:
        if other != name:
            with pytest.raises(InputError, match=f"{other!r} is a"):
                EXPERTS[name](SCHEMA, modality=other)


@ALL
@pytest.mark.parametrize("schema", [SCHEMA, BARE], ids=["classes", "bare"])
def test_a_described_model_is_the_same_model(name, schema):
    model, values = expert(name, schema), samples()[name]
    again = build(model.describe(), ExpertFactory, schema, where="test").eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.features(values), model.features(values))
    assert again.describe() == build(again.describe(), ExpertFactory, schema, where="t").describe()


@ALL
def test_copies_and_pickles_answer_the_same(name):
    model, values = expert(name), samples()[name]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.logits(values), model.logits(values))


@ALL
@pytest.mark.parametrize("kind", [FrozenExpert, PretrainedExpert])
def test_from_a_checkpoint(name, kind, tmp_path):
    model, values = expert(name), samples()[name]
    path = save_expert(model, tmp_path / "expert.ckpt", SCHEMA)
    turned = Schema({name: MODALITIES[name]}, CLASSES[::-1], target="multiclass")
    loaded = kind(turned, checkpoint=path).eval()
    assert torch.equal(loaded.logits(values), model.logits(values).flip(1))
    assert torch.equal(loaded.features(values), model.features(values))
    assert torch.equal(loaded.tokens(values).values, model.tokens(values).values)
    (tmp_path / "expert.ckpt").unlink()
    again = build(loaded.describe(), ExpertFactory, turned, where="test").eval()
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again.logits(values), loaded.logits(values))
    if kind is FrozenExpert:
        assert not loaded.train().tokens(values).values.requires_grad
        assert torch.equal(loaded.features(values), model.features(values))  # no dropout
        assert loaded.fingerprint() is not None
    assert model.fingerprint() is None


@ALL
def test_answers_are_kept(name, tmp_path):
    path = save_expert(expert(name), tmp_path / "expert.ckpt", SCHEMA)
    frozen = partial(FrozenExpert, checkpoint=path)
    other = next(n for n in EXPERTS if n != name)
    experts = {name: frozen, other: EXPERTS[other]}
    for kind in (LateFusion, FeatureFusion):
        torch.manual_seed(0)
        kept = kind(SCHEMA, experts=experts, cache=str(tmp_path / kind.__name__)).eval()
        with torch.no_grad():
            expected = kept(batch(3)).logits
            assert len(list((tmp_path / kind.__name__).rglob("*.npy"))) == 3
            torch.testing.assert_close(kept(batch(3)).logits, expected)
            assert len(list((tmp_path / kind.__name__).rglob("*.npy"))) == 3


class FirstTokens(TokenOperator):
    """Sums the tokens of all experts: an operator over tokens as small as can be."""

    def __init__(self, channels):
        super().__init__(channels)
        self.channels_out = next(iter(self.channels.values()))

    def fuse_tokens(self, tokens):
        return FusedFeatures(sum(token.values.sum(dim=1) for token in tokens.values()))


FUSIONS = {
    "late_average": partial(LateFusion, fusion=Average),
    "late_weighted": partial(LateFusion, fusion=ModalityWeighted),
    "early": partial(FeatureFusion, head=partial(MLPHead, hidden=16, dropout=0.3)),
    "add": partial(FeatureFusion, fusion=Add),
    "tokens": partial(FeatureFusion, fusion=FirstTokens),
}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("missing", EXPERTS)
def test_what_is_missing_does_not_matter(fusion, missing):
    """In fusions of an image, a text, a row and a series."""
    torch.manual_seed(0)
    model = FUSIONS[fusion](SCHEMA, experts=WITH_IMAGE).eval()
    data = batch(4, **{missing: [True, False, True, False]})
    with torch.no_grad():
        logits = model(data).logits
        assert logits.shape == (4, 3)
        assert logits.isfinite().all()
        other = samples(seed=9)
        there = data["available"][missing]
        values = data["inputs"][missing]
        if isinstance(values, list):
            mixed = [v if t else "something else" for v, t in zip(values, there, strict=True)]
        elif isinstance(values, TimeSeries):
            series = torch.where(there[:, None, None], values.values, other[missing].values)
            mixed = values._replace(values=series)
        else:
            mixed = torch.where(there[:, None], values, other[missing])
        changed = {**data, "inputs": {**data["inputs"], missing: mixed}}
        torch.testing.assert_close(model(changed).logits, logits)
        everything = model(batch(4)).logits
    assert not torch.allclose(everything[~there], logits[~there])
    torch.testing.assert_close(everything[there], logits[there])
    model.train()(data).logits.square().sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    assert [n for n, grad in grads.items() if grad is None or not grad.isfinite().all()] == []


def test_early_fusion_of_encoders_as_a_configuration():
    """Encoders' embeddings concatenated, a hidden layer with dropout 0.3, classes."""
    description = {
        "class_path": "fusionlab.models.FeatureFusion",
        "init_args": {
            "experts": {
                "image": {"class_path": "embedding_experts.PooledExpert"},
                "caption": {"class_path": "TextExpert", "init_args": {"width": 8, "heads": 2}},
                "site": {"class_path": "TabularExpert", "init_args": {"width": 4}},
                "weather": {"class_path": "SeriesExpert", "init_args": {"width": 8, "heads": 2}},
            },
            "fusion": {"class_path": "fusionlab.fusion.features.Concat"},
            "head": {"class_path": "MLPHead", "init_args": {"hidden": 32, "dropout": 0.3}},
        },
    }
    model = build(description, ModelFactory, SCHEMA, where="test")
    assert isinstance(model.fusion, Concat)
    assert model.fusion.channels_out == 6 + 8 + 4 + 8
    assert model.head.dropout.p == 0.3
    assert model(batch()).logits.shape == (4, 3)


def test_late_fusion_with_one_weight_per_modality():
    model = LateFusion(SCHEMA, experts=WITH_IMAGE, fusion=ModalityWeighted).eval()
    output = model(batch())
    assert [tuple(p.shape) for p in model.fusion.parameters()] == [(4,)]
    assert all(torch.equal(s, torch.full_like(s, 0.25)) for s in output.weights.values())


@ALL
def test_a_task_trains_saves_and_restores_it(name, tmp_path):
    torch.manual_seed(0)
    factory = partial(EXPERTS[name], head=partial(LinearHead, dropout=0.1))
    task = ClassificationTask(SCHEMA, factory)
    data = batch()
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, torch.utils.data.DataLoader([data], batch_size=None))
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    content = torch.load(tmp_path / "task.ckpt", weights_only=True)["hyper_parameters"]
    again = ClassificationTask(
        Schema({name: MODALITIES[name]}, CLASSES[::-1], target="multiclass"),
        partial(build, content["model"], ExpertFactory, where="test"),
        trained_on=content["trained_on"],
    )
    again.load_state_dict(task.state_dict())
    for model in (task, again):
        model.eval()
    assert torch.equal(again(data).logits, task(data).logits)
