"""What tasks share, by the example of one without classes, and how the command line shows it."""

from functools import partial
from types import MappingProxyType

import jsonargparse
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric

from fusionlab.component import Explanation, Model
from fusionlab.data.base import collate
from fusionlab.losses import Loss
from fusionlab.tasks import ClassificationTask, RegressionTask, SegmentationTask, SupervisedTask
from fusionlab.types import Auxiliary, Modality, Output, Schema

SCHEMA = Schema({"a": Modality(("x",), 1.0), "b": Modality(("x",), 1.0)}, gsd=1.0)
SHARED = ("loss", "auxiliary_weight", "optimizer", "lr_scheduler", "parameter_groups")
SHARED = (*SHARED, "layer_decay", "strip_frozen", "trained_on", "schema", "model")


class Squared(Loss):
    def forward(self, logits, target, counted=None):
        error = (logits[:, 0] - target.nan_to_num()) ** 2
        known = target.isfinite() & counted[:, None, None]
        return torch.where(known, error, 0).sum() / known.sum().clamp(min=1)


class Bias(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted, target, counted):
        self.total += torch.where(counted, predicted - target, 0).sum()
        self.seen += counted.sum()

    def compute(self):
        return {"bias": self.total / self.seen}


class Heights(SupervisedTask):
    """A number per pixel; unknown where the target is none."""

    losses = MappingProxyType({"segmentation": Squared})

    def __init__(self, schema, model, **options):
        super().__init__(schema, model, metrics=lambda _: Bias(), **options)

    def known(self, target):
        return target.isfinite()

    def score(self, metric, logits, target, counted):
        metric.update(logits[:, 0], target, counted)
        return logits[:, 0]


class Mix(Model):
    """A weighted sum of two sensors, the first of which weighs three quarters."""

    reference, gsd, modalities, contributors = "a", 1.0, ("a", "b"), ("a", "b")

    def __init__(self, schema):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        a, b = (batch["inputs"][name] for name in "ab")
        weights = {"a": torch.full((1, 1, 1, 1), 0.75), "b": torch.full((1, 1, 1, 1), 0.25)}
        return Output(0.75 * a + 0.25 * b + self.offset, weights=weights)

    def explain(self, batch):
        output = self(batch)
        shares = {name: w.expand_as(output.logits)[:, 0] for name, w in output.weights.items()}
        return Explanation(output, shares)


class Samples(Dataset):
    """Heights are what both sensors say, and 2 more."""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        image = torch.full((1, 4, 4), float(i))
        target = image[0] + 2
        target[0, i % 4] = torch.nan
        return {
            "inputs": {"a": image, "b": image},
            "available": {"a": torch.tensor(i != 3), "b": torch.tensor(i != 3)},
            "target": target,
            "counted": torch.tensor(i != 4),
            "sample_id": str(i),
        }


def trainer(folder, **options):
    return Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip


def loader(batch_size):
    return DataLoader(Samples(), batch_size=batch_size, collate_fn=collate)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_task_without_classes(tmp_path, batch_size):
    task = Heights(SCHEMA, Mix)
    (scores,) = trainer(tmp_path).test(task, loader(batch_size), verbose=False)
    assert scores == pytest.approx(
        {"test/loss": 4.0, "test/bias": -2.0, "test/share/a": 0.75, "test/share/b": 0.25}
    )
    assert task.test.results["bias"] == -2
    assert task.fusion_weights("test")["a"].tolist() == [0.75]
    assert task.charts("test") == task.fit_charts() == {}
    assert task.monitor == ("val/loss", "min")


def test_it_learns(tmp_path):
    task = Heights(SCHEMA, Mix, optimizer=partial(torch.optim.SGD, lr=0.4))
    trainer(tmp_path, max_epochs=5).fit(task, loader(5), loader(5))
    assert task.model.offset.item() == pytest.approx(2, abs=0.01)
    assert task.trainer.callback_metrics["val/bias"].item() == pytest.approx(0, abs=0.01)


def test_what_was_not_seen_is_tested_but_not_learned_from():
    task = Heights(SCHEMA, Mix)
    task.log = lambda *_, **__: None
    batch = collate([Samples()[i] for i in range(5)])
    wrong = {**batch, "target": batch["target"].clone()}
    wrong["target"][3] += 100
    assert task.training_step(batch, 0) == task.training_step(wrong, 0)
    task.validation_step(batch, 0)
    before = task.val.compute()["loss"]
    task.val.reset()
    task.validation_step(wrong, 0)
    assert task.val.compute()["loss"] > before


class Advised(Mix):
    """With auxiliary heads that are wrong by 1: one named and weighted, the other neither."""

    def forward(self, batch):
        output = super().forward(batch)
        wrong = output.logits + 1
        return output._replace(auxiliary=(Auxiliary("deep", wrong, 3.0), Auxiliary("", wrong)))


def test_auxiliary_losses_by_name_and_weight():
    task = Heights(SCHEMA, Advised, auxiliary_weight=0.5)
    logged = {}
    task.log = lambda name, value, **_: logged.update({name: value.item()})
    task.training_step(collate([Samples()[0]]), 0)
    assert logged == pytest.approx({"train/loss": 4 + 3.0 * 1 + 0.5 * 1, "train/loss_deep": 1})


def test_shares_on_request():
    task = Heights(SCHEMA, Mix)
    batch = collate([Samples()[0]])
    output, shares = task.answer(batch)
    assert shares is None
    task.explain = True
    again, shares = task.answer(batch)
    assert torch.equal(output.logits, again.logits)
    assert {name: share.unique().tolist() for name, share in shares.items()} == {
        "a": [0.75], "b": [0.25],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "own"),
    [
        (SegmentationTask, {"alignment"}),
        (RegressionTask, {"alignment"}),
        (ClassificationTask, {"threshold", "classes", "classes+"}),
    ],
)
def test_the_command_line_shows_inherited_arguments(task, own):
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(task, "task", skip={"schema"})
    options = {
        option.removeprefix("--task."): action.help
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--task.") and not option.endswith(".help")
    }
    assert options.keys() == own | set(SHARED) - {"schema"}
    undocumented = [name for name, text in options.items() if not text or text.startswith("(")]
    assert undocumented == []


def test_inherited_arguments_are_kept_in_checkpoints(tmp_path):
    task = Heights(SCHEMA, Mix, layer_decay=None, auxiliary_weight=0.3, strip_frozen=False)
    assert dict(task.hparams) == {
        "auxiliary_weight": 0.3, "layer_decay": None, "strip_frozen": False,
        "loss": None, "lr_scheduler": None, "parameter_groups": None,
    }  # fmt: skip
    with pytest.raises(TypeError, match="layer_decoy"):
        Heights(SCHEMA, Mix, layer_decoy=0.5)
