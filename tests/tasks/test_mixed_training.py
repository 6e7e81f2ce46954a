"""Tasks on mixed batches: when they are mixed, what losses make of it, and what is refused."""

import warnings
from functools import partial
from typing import get_args

import pytest
import torch
from embedding_experts import PooledExpert
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import move_data_to_device
from raster_scenes import trainer
from small_models import PixelExpert
from torch.utils.data import Dataset

from fusionlab.callbacks import EpochSeed
from fusionlab.data import CutMix, DataModule, MixUp, RandomD4
from fusionlab.errors import InputError
from fusionlab.losses import CrossEntropy, Dice, Lovasz, WeightedSum
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.tasks import ClassificationTask, RegressionTask, SegmentationTask
from fusionlab.tasks.base import Task
from fusionlab.types import PIXELWISE, REGRESSION, Modality, Schema, Target, TimeSeries

CLASSES = ("forest", "water", "sand")
SIDE = 8


def schema(target, classes=CLASSES):
    modalities = {"fine": Modality(("r", "g"), 1.0), "coarse": Modality(("b",), 4.0)}
    names = {"variables" if target in REGRESSION else "classes": classes}
    return Schema(modalities, gsd=1.0 if target in PIXELWISE else None, target=target, **names)


class Scenes(Dataset):
    def __init__(self, target):
        self.target = target

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        fine = torch.randint(0, 99, (2, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        hard, degrees = torch.tensor(index % 3), torch.rand(3, generator=generator)
        target = {
            "segmentation": fine[0].long() % 3, "multiclass": hard,
            "multilabel": (degrees > 0.5).float(), "scalar_regression": degrees,
            "regression": degrees[:, None, None].expand(3, SIDE, SIDE),
        }[self.target]  # fmt: skip
        return {
            "inputs": {"fine": fine, "coarse": torch.rand(1, 2, 2, generator=generator)},
            "available": {"fine": torch.tensor(True), "coarse": torch.tensor(True)},
            "target": target,
        }


class SceneData(DataModule):
    def __init__(self, target, classes=CLASSES, **options):
        super().__init__(batch_size=4, **options)
        self.schema = schema(target, classes)

    def dataset(self, split):
        return Scenes(self.schema.target)


TASKS = {"segmentation": SegmentationTask, "multiclass": ClassificationTask,
         "multilabel": ClassificationTask, "regression": RegressionTask,
         "scalar_regression": RegressionTask}  # fmt: skip


def task(target, *, classes=CLASSES, made=None, **options):
    torch.manual_seed(0)
    if target in PIXELWISE:
        model = partial(LateFusion, experts={"fine": PixelExpert, "coarse": PixelExpert})
    else:
        experts = {"fine": PooledExpert, "coarse": PooledExpert}
        model = partial(FeatureFusion, experts=experts)
    return (made or TASKS[target])(schema(target, classes), model, **options)


def fitted(model, data, **options):
    seed_everything(3)
    model.log = lambda *_, **__: None
    model.log_dict = lambda *_, **__: None
    made = trainer(EpochSeed(), max_epochs=1, num_sanity_val_steps=1, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You have overridden")
        made.fit(model, datamodule=data)
    return model


class Watching(ClassificationTask):
    """Notes what it is given to train on and to be validated by."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch)
        return super().validation_step(batch, batch_idx)


def test_training_batches_alone_are_mixed_and_the_same_in_every_run():
    for make in (MixUp, CutMix):
        runs = [fitted(task("multiclass", made=Watching), SceneData("multiclass", mix=make()))
                for _ in range(2)]  # fmt: skip
        seen = runs[0].seen
        assert len(seen["train"]) == 3
        assert len(seen["val"]) == 4  # one of them before training
        assert any(batch["target"].is_floating_point() for batch in seen["train"])
        assert all(batch["target"].dtype == torch.int64 for batch in seen["val"])
        assert all(batch["inputs"]["fine"].dtype == torch.uint8 for batch in seen["val"])
        assert all(set(batch) == {"inputs", "available", "target"} for batch in seen["train"])
        for one, two in zip(seen["train"], runs[1].seen["train"], strict=True):
            assert torch.equal(one["inputs"]["fine"], two["inputs"]["fine"])
            assert torch.equal(one["target"], two["target"])
        weights = [run.state_dict().values() for run in runs]
        assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


class Hooked(Watching):
    """Has hooks of its own."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "before": True}

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "after": batch["target"].dtype}


@pytest.mark.parametrize("mix", [None, MixUp(1.0)])
def test_hooks_of_the_model_are_called_too(mix):
    model = fitted(task("multiclass", made=Hooked), SceneData("multiclass", mix=mix))
    for batch in (*model.seen["train"], *model.seen["val"]):
        assert batch["before"]
        assert batch["after"] == batch["target"].dtype
    assert (model.seen["train"][0]["target"].is_floating_point()) == (mix is not None)


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_every_kind_of_target_is_trained_on(target, make):
    losses = {"segmentation": partial(WeightedSum, terms={"ce": CrossEntropy, "dice": Dice})}
    model = task(target, loss=losses.get(target))
    before = [weight.clone() for weight in model.parameters()]
    fitted(model, SceneData(target, mix=make(1.0)))
    moved = zip(before, model.parameters(), strict=True)
    assert all(after.isfinite().all() for after in model.parameters())
    assert any(not torch.equal(a, b) for a, b in moved)


def batch(target, mix=None, classes=CLASSES):
    data = SceneData(target, classes)
    data.trainer = None
    data.setup("test")
    given = next(iter(data.test_dataloader()))
    torch.manual_seed(1)
    return given if mix is None else mix(given, schema(target, classes))


@pytest.mark.parametrize("target", ["segmentation", "multiclass"])
def test_shares_come_in_the_order_of_the_model(target):
    """Data that list classes in another order than the checkpoint was trained on."""
    mixed = batch(target, MixUp(1.0))
    assert mixed["target"].is_floating_point()
    other = ("sand", "forest", "water")
    order = [CLASSES.index(name) for name in other]
    moved = {**mixed, "target": mixed["target"][:, order]}
    torch.manual_seed(0)
    model = partial(PixelExpert if target == "segmentation" else PooledExpert, modality="fine")
    losses = []
    for names, given in ((CLASSES, mixed), (other, moved)):
        torch.manual_seed(0)
        made = TASKS[target](
            schema(target, names), model, trained_on=schema(target).to_dict()
        ).eval()
        made.log = lambda *_, **__: None
        losses.append(made.training_step(given, 0))
        known = made.known(made.target(given))
        assert known.all()
        assert known.shape == given["target"][:, 0].shape
    torch.testing.assert_close(losses[0], losses[1])


def test_auxiliary_heads_learn_from_shares():
    expert = partial(PooledExpert, modality="fine", auxiliary=True)
    logged = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        made = ClassificationTask(schema("multiclass"), expert, auxiliary_weight=weight)
        made.log = lambda name, value, **_: logged.setdefault(name, []).append(value.detach())
        loss = made.training_step(batch("multiclass", MixUp(1.0)), 0)
        loss.backward()
        logged.setdefault("loss", []).append(loss.detach())
    assert logged["loss"][1] > logged["loss"][0] > 0


def test_unknown_pixels_of_shares_are_left_out():
    given = batch("segmentation", MixUp(1.0))
    given["target"][:, :, :4] = 0
    model = SegmentationTask(schema("segmentation"), partial(PixelExpert, modality="fine"))
    model.log = lambda *_, **__: None
    assert not model.known(given["target"])[:, :4].any()
    assert model.known(given["target"])[:, 4:].all()
    other = {**given, "inputs": {**given["inputs"]}}
    model.eval()
    first = model.training_step(given, 0)
    other["inputs"]["fine"] = given["inputs"]["fine"].clone()
    other["inputs"]["fine"][:, :, :4] = 7
    torch.testing.assert_close(model.training_step(other, 0), first)


def test_an_evaluation_takes_shares_too():
    for target in ("segmentation", "multiclass"):
        model = task(target).eval()
        model.validation_step(batch(target, MixUp(1.0)), 0)
        results = model.val.compute()
        assert results["loss"].isfinite()
        assert results["overall_accuracy"].isfinite()


@pytest.mark.parametrize(
    ("mix", "target", "refused"),
    [
        (MixUp(), "segmentation", True),
        (MixUp(), "multiclass", True),
        (CutMix(), "multiclass", True),
        (CutMix(), "segmentation", False),
    ],
)
def test_a_loss_that_takes_no_shares_is_refused_before_training(mix, target, refused):
    loss = partial(WeightedSum, terms={"ce": CrossEntropy, "lovasz": Lovasz})
    model, data = task(target, loss=loss), SceneData(target, mix=mix)
    if not refused:
        fitted(model, data)
        return
    with pytest.raises(InputError, match=r"Lovasz needs one right class.*data.mix.*Focal, Dice"):
        fitted(model, data)
    assert model.global_step == 0
    trainer().validate(model, datamodule=SceneData(target, mix=mix), verbose=False)


class PlainTask(Task):
    """A task that says nothing of mixed samples."""


def test_tasks_and_data_that_cannot_be_mixed_are_refused():
    model = PlainTask(schema("multiclass"), partial(PooledExpert, modality="fine"))
    model.train_dataloader = lambda: None
    model.training_step = lambda *_: None
    with pytest.raises(InputError, match=r"data.mix: MixUp.*PlainTask trains on samples as they"):
        fitted(model, SceneData("multiclass", mix=MixUp()))
    data = SceneData("multiclass", mix=MixUp())
    data.schema = Schema(data.schema.modalities)
    with pytest.raises(InputError, match="the data have no target"):
        data.setup("fit")


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_nothing_waits_for_the_device(make, target):
    """Tensors on the meta device have no values to wait for."""
    given = batch(target)
    series = TimeSeries(torch.rand(4, 2, 1, 2, 2), torch.ones(4, 2).long(), torch.ones(4, 2) > 0)
    given["inputs"]["series"], given["inputs"]["text"] = series, ["a", "b", "c", "d"]
    torch.manual_seed(0)
    drawn = make(1.0).plan(given, schema(target))
    assert drawn is not given
    mixed = make().apply(move_data_to_device(drawn, torch.device("meta")), schema(target))
    assert mixed["inputs"]["fine"].device.type == "meta"
    assert mixed["inputs"]["fine"].shape == given["inputs"]["fine"].shape


def test_flips_of_all_modalities_commute_with_a_model_that_allows_it():
    """A network of 1x1 convolutions, pooled over the image, answers a turned sample the same."""
    pooled = task("multiclass").eval()
    maps = SegmentationTask(
        schema("segmentation"), partial(PixelExpert, modality="fine")
    ).eval()  # fmt: skip
    sample = Scenes("segmentation")[4]

    def asked(sample):
        return {
            "inputs": {name: value[None] for name, value in sample["inputs"].items()},
            "available": {name: value[None] for name, value in sample["available"].items()},
        }

    before, drawn = maps(asked(sample)).logits[0], RandomD4().choices(square=True)
    assert len(drawn) == 8
    for symmetry in drawn:
        moved = symmetry(sample)
        torch.testing.assert_close(pooled(asked(moved)).logits, pooled(asked(sample)).logits)
        torch.testing.assert_close(maps(asked(moved)).logits[0], symmetry.image(before.detach()))
