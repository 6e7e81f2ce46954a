import json
import math
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jsonargparse
import pytest
import torch
from embedding_experts import PooledExpert
from lightning.pytorch import Trainer, seed_everything
from small_models import PixelExpert
from torch.utils.data import Dataset

from fusionlab.data import DataModule
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.fusion import ClassWeighted
from fusionlab.fusion.features import Weighted
from fusionlab.losses import AsymmetricLoss, BinaryCrossEntropy, CrossEntropy, Focal
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.tasks import ClassificationTask, ModelFactory, Task
from fusionlab.types import IGNORE_INDEX, Modality, Schema

CLASSES = ("wood", "road", "water")
MODALITIES = {"a": Modality(("r", "g", "b"), 1.0), "b": Modality(("x",), 1.0)}


def schema(target="multilabel", classes=CLASSES) -> Schema:
    return Schema(MODALITIES, classes, target=target)


class Samples(Dataset):
    """A class applies where the band of its number is bright; modality b knows nothing."""

    def __init__(self, target: str = "multilabel", n: int = 48, classes=CLASSES) -> None:
        self.target, self.n = target, n
        self.order = [CLASSES.index(name) for name in classes]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        random = torch.Generator().manual_seed(i)
        applies = torch.rand(3, generator=random) < 0.4
        if self.target == "multiclass":
            applies = torch.arange(3) == i % 3
        image = torch.rand(3, 6, 6, generator=random) + 2.0 * applies[:, None, None]
        target = applies[self.order].float()
        return {
            "inputs": {"a": image, "b": torch.rand(1, 6, 6, generator=random)},
            "available": {"a": torch.tensor(True), "b": torch.tensor(i % 4 != 1)},
            "target": target.argmax() if self.target == "multiclass" else target,
            "sample_id": str(i),
        }


class Samples48(DataModule):
    def __init__(self, target="multilabel", n=48, classes=CLASSES, **options) -> None:
        super().__init__(**{"batch_size": 12, **options})
        self.schema, self.n = schema(target, classes), n

    def dataset(self, split: str) -> Dataset:
        return Samples(self.schema.target, self.n, self.schema.classes)


BOTH = {"a": PooledExpert, "b": PooledExpert}
ONE = partial(PooledExpert, modality="a")


def task(target="multilabel", model=ONE, classes=CLASSES, **options) -> ClassificationTask:
    torch.manual_seed(0)
    made = ClassificationTask(schema(target, classes), model, **options)
    made.log = lambda *_, **__: None
    return made


def batch(target="multilabel", n=8, **changes):
    samples = Samples(target)
    return {**collate([samples[i] for i in range(n)]), **changes}


def trainer(folder, **options) -> Trainer:
    return Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip


def fitted(folder, target="multilabel", **options) -> ClassificationTask:
    seed_everything(1)
    model = ClassificationTask(
        schema(target), ONE, optimizer=partial(torch.optim.AdamW, lr=0.05), **options
    )
    trainer(folder, max_epochs=12).fit(model, Samples48(target))
    return model


@pytest.mark.parametrize("loss", [None, AsymmetricLoss])
def test_learns_what_can_be_told(tmp_path, loss):
    model = fitted(tmp_path, loss=loss)
    scores = model.trainer.callback_metrics
    assert scores["val/ap_macro"].item() == pytest.approx(1)
    assert scores["val/ap_micro"].item() == pytest.approx(1)
    assert {f"val/{kind}/{name}" for kind in ("ap", "f1") for name in CLASSES} <= set(scores)
    assert not any("support" in name for name in scores)
    assert "val/overall_accuracy" not in scores
    assert model.monitor == ("val/ap_macro", "max")
    assert model.monitor[0] in scores
    (tested,) = model.trainer.test(model, Samples48(), verbose=False)
    assert tested["test/f1_macro"] > 0.9
    assert tested["test/classes_evaluated"] == 3
    positives = sum(Samples()[i]["target"] for i in range(48))
    assert [tested[f"test/support/{name}"] for name in CLASSES] == positives.tolist()


def test_learns_one_class_per_sample(tmp_path):
    model = fitted(tmp_path, "multiclass")
    scores = model.trainer.callback_metrics
    assert scores["val/overall_accuracy"] == scores["val/f1_macro"] == 1
    assert scores["val/ap_macro"].item() == pytest.approx(1)
    assert model.monitor == ("val/f1_macro", "max")
    assert model.confusion("val").tolist() == [[16, 0, 0], [0, 16, 0], [0, 0, 16]]


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_nothing_is_learned_from_what_was_not_seen_or_is_counted_elsewhere(target):
    model = task(target, partial(PooledExpert, modality="b")).eval()
    data = batch(target, counted=torch.tensor([True] * 6 + [False] * 2))  # b misses 1 and 5
    other = data["target"].clone()
    for i in (1, 5, 6, 7):
        other[i] = 1 - other[i] if target == "multilabel" else (other[i] + 1) % 3
    assert model.training_step(data, 0) == model.training_step({**data, "target": other}, 0)
    other[0] = 1 - other[0] if target == "multilabel" else (other[0] + 1) % 3
    assert model.training_step(data, 0) != model.training_step({**data, "target": other}, 0)


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
@pytest.mark.parametrize("why", ["counted elsewhere", "not seen"])
def test_a_batch_without_anything_to_learn_has_no_gradient(target, why):
    nothing = torch.zeros(8, dtype=torch.bool)
    data = batch(target)
    if why == "not seen":
        data["available"] = {"a": nothing, "b": nothing}
    else:
        data["counted"] = nothing
    model = task(target, partial(PooledExpert, modality="a", auxiliary=True))
    loss = model.training_step(data, 0)
    loss.backward()
    assert loss.item() == 0
    gradients = [p.grad for p in model.parameters()]
    assert len(gradients) > 4
    assert all(g is not None and not g.any() for g in gradients)


def test_auxiliary_logits_are_weighted():
    model = partial(PooledExpert, modality="a", auxiliary=True)
    plain, with_auxiliary = task(model=model, auxiliary_weight=0.0), task(model=model)
    output = with_auxiliary(batch())
    extra = with_auxiliary.loss(output.auxiliary[0].logits, batch()["target"])
    difference = with_auxiliary.training_step(batch(), 0) - plain.training_step(batch(), 0)
    torch.testing.assert_close(difference, 0.4 * extra)


def test_uncounted_samples_and_unknown_classes_are_in_no_score():
    data = batch("multiclass")
    data["target"][:2] = IGNORE_INDEX
    model = task("multiclass").eval()
    model.validation_step({**data, "counted": torch.tensor([True] * 5 + [False] * 3)}, 0)
    model.val.compute()
    assert model.confusion("val").sum() == 3
    one, two = task().eval(), task().eval()
    one.test_step(batch(n=5), 0)
    two.test_step(batch(n=5), 0)
    two.test_step(batch(n=8, counted=torch.zeros(8, dtype=torch.bool)), 1)
    assert one.test.compute().items() == two.test.compute().items()


def test_targets_come_in_the_class_order_of_the_model():
    trained = schema().to_dict()
    model = task(classes=("water", "wood", "road"), trained_on=trained)
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.2, 0.8]])
    assert model.target({"target": target}).tolist() == [[0, 0, 1], [*target[1, 1:].tolist(), 0]]
    model = task(
        "multiclass", classes=("water", "wood", "road"), trained_on=schema("multiclass").to_dict()
    )
    assert model.target({"target": torch.tensor([0, 1, 2, 255])}).tolist() == [2, 0, 1, 255]


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_a_checkpoint_is_scored_the_same_on_data_in_another_class_order(tmp_path, target):
    options = {"threshold": {"road": 0.7}} if target == "multilabel" else {}
    model = fitted(tmp_path, target, **options)
    expected = model.trainer.test(model, Samples48(target, n=17), verbose=False)[0]
    model.trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    stored = checkpoint["hyper_parameters"]
    assert stored["threshold"] == (options.get("threshold") or 0.5)
    data = Samples48(target, n=17, classes=("water", "wood", "road"))
    again = ClassificationTask(
        data.schema, ONE, threshold=stored["threshold"], trained_on=stored["trained_on"]
    )
    again.load_state_dict(checkpoint["state_dict"])
    assert trainer(tmp_path).test(again, data, verbose=False)[0] == pytest.approx(expected)
    wrong = ClassificationTask(data.schema, ONE)
    wrong.load_state_dict(checkpoint["state_dict"])
    assert trainer(tmp_path).test(wrong, data, verbose=False)[0] != pytest.approx(expected)


def test_thresholds_per_class_decide():
    data = batch()
    probabilities = task().eval().predict_step(data, 0)["probabilities"]
    threshold = probabilities[0, 1].item()  # the sample's own: given by equality
    model = task(threshold={"road": threshold, "water": 1.0}).eval()
    labels = model.predict_step(data, 0)["labels"]
    assert labels[0, 1]
    expected = probabilities >= torch.tensor([0.5, threshold, 1.0])
    assert torch.equal(labels, expected)
    assert torch.equal(model.validation_step(data, 0)["predicted"], expected)


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_predictions_need_no_target_and_are_float32(target):
    model = task(target).eval()
    data = batch(target)
    del data["target"]
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model.predict_step(data, 0)
    assert set(prediction) == {"probabilities", "labels"}
    assert prediction["probabilities"].dtype == torch.float32
    assert prediction["labels"].dtype == torch.bool
    if target == "multiclass":
        torch.testing.assert_close(prediction["probabilities"].sum(dim=1), torch.ones(8))
        assert torch.equal(prediction["labels"].sum(dim=1), torch.ones(8).long())
        index = model.validation_step(batch(target), 0)["predicted"]
        assert torch.equal(model.predict_step(data, 0)["labels"].long().argmax(dim=1), index)


def test_shares_and_embeddings_on_request():
    fusion = task(model=partial(FeatureFusion, experts=BOTH, fusion=Weighted)).eval()
    late = task(model=partial(LateFusion, experts=BOTH)).eval()
    alone = task().eval()
    for model in (fusion, late, alone):
        model.explain = True
        prediction = model.predict_step(batch(), 0)
        total = torch.stack(list(prediction["shares"].values())).sum(dim=0)
        torch.testing.assert_close(total, torch.ones(8))
    assert set(fusion.predict_step(batch(), 0)["shares"]) == {"a", "b"}
    for model in (fusion, late, alone):
        model.embeddings, model.explain = True, False
    assert set(fusion.predict_step(batch(), 0)["embeddings"]) == {"a", "b", "fused"}
    (embedding,) = alone.predict_step(batch(), 0)["embeddings"].values()
    torch.testing.assert_close(embedding, alone.model.features(batch()["inputs"]["a"]))
    with pytest.raises(InputError, match="LateFusion fuses decisions"):
        late.predict_step(batch(), 0)


def test_fusion_weights_are_measured_where_a_class_is_given():
    model = task(model=partial(FeatureFusion, experts=BOTH, fusion=Weighted), threshold=0.0).eval()
    assert model.fusion_weights("val") is None
    with torch.no_grad():
        model.model.fusion.weight.copy_(torch.tensor([math.log(3), 0.0]))
    model.validation_step(batch(), 0)
    scores = model.val.compute()
    # b is missing in samples 1 and 5 of 8, where a decides alone.
    expected = torch.full((3,), (6 * 0.75 + 2) / 8)
    torch.testing.assert_close(model.fusion_weights("val")["a"], expected)
    assert scores["share/a"].item() == pytest.approx(expected[0].item())
    model.val.reset()
    assert model.fusion_weights("val") is not None
    learned = task(model=partial(LateFusion, experts=BOTH, fusion=ClassWeighted))
    torch.testing.assert_close(learned.fusion_weights("val")["a"], torch.full((3,), 0.5))
    assert task().fusion_weights("val") is None


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_charts_show_the_last_evaluation(target, tmp_path):
    model = task(target, partial(FeatureFusion, experts=BOTH, fusion=Weighted)).eval()
    assert set(model.charts("test")) <= {"confusion"}
    model.test_step(batch(target), 0)
    model.test.compute()
    model.test.reset()
    charts = model.charts("test")
    kinds = {"average_precision", "precision_recall", "fusion_weights"}
    assert set(charts) == kinds | ({"confusion"} if target == "multiclass" else set())
    assert isinstance(model, Task)
    for name, figure in charts.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=30)


def test_built_from_a_configuration():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--task", type=Callable[[Schema, ModelFactory], ClassificationTask])
    loss = {
        "class_path": "fusionlab.losses.BinaryCrossEntropy",
        "init_args": {"pos_weight": {"road": 3}, "label_smoothing": 0.1},
    }
    given = {"class_path": "ClassificationTask", "init_args": {"threshold": {"road": 0.3}}}
    given["init_args"]["loss"] = loss
    made = parser.instantiate(parser.parse_object({"task": given})).task(schema(), ONE)
    assert made.loss.pos_weight.tolist() == [1, 3, 1]
    assert made.decision.thresholds.tolist() == pytest.approx([0.5, 0.3, 0.5])


def test_default_losses():
    assert isinstance(task().loss, BinaryCrossEntropy)
    assert isinstance(task("multiclass").loss, CrossEntropy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: task("segmentation"), "'segmentation'.*SegmentationTask"),
        (lambda: task(loss=Focal), "'multilabel'.*BinaryCrossEntropy"),
        (lambda: task("multiclass", loss=BinaryCrossEntropy), "'multiclass'.*CrossEntropy"),
        (lambda: task(threshold={"lake": 0.5}), "'lake' in threshold.*wood"),
        (lambda: task("multiclass", threshold=0.3), "most probable class"),
        (lambda: task(classes=()), "at least 1 class names, the data name 0"),
        (lambda: task("multiclass", classes=("a",)), "at least 2 class names"),
        (lambda: task("multiclass", classes=[str(i) for i in range(256)]), "at most 255"),
        (lambda: task(trained_on=schema("multiclass").to_dict()), "multiclass target.*multilabel"),
        (lambda: task(classes=("a", "b", "c"), trained_on=schema().to_dict()), "trained on the"),
        (
            lambda: task(model=partial(PixelExpert, modality="a")).training_step(batch(), 0),
            r"PixelExpert answers logits of shape \(8, 3, 6, 6\).*\(samples, 3\)",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def _process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    for target in ("multilabel", "multiclass"):
        scores = _train_and_test(folder, target, devices=2, strategy="ddp")
        torch.save(scores, folder / f"{target}_{rank}.pt")


def _train_and_test(folder: Path, target: str, **options) -> dict[str, float]:
    # 7 samples to validate and test: one process counts 4, the other 3.
    data = Samples48(target, n=7, batch_size=2)
    fusion = partial(FeatureFusion, experts=BOTH, fusion=Weighted)
    trainer(folder, max_epochs=1, **options).fit(ClassificationTask(schema(target), fusion), data)
    seed_everything(0)  # the two learn from other batches: test one that is the same for both
    model = ClassificationTask(schema(target), fusion)
    return dict(trainer(folder, **options).test(model, data, verbose=False)[0])


@pytest.mark.slow
def test_two_processes_train_and_test_like_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (port, tmp_path), nprocs=2)
    for target in ("multilabel", "multiclass"):
        one = _train_and_test(tmp_path, target)
        for rank in range(2):
            two = torch.load(tmp_path / f"{target}_{rank}.pt", weights_only=True)
            loss = two["test/loss"]  # a sum of floats in another order
            assert loss == pytest.approx(one["test/loss"], rel=1e-6)
            assert json.dumps(two | {"test/loss": 0}) == json.dumps(one | {"test/loss": 0})
