"""Regression of maps and of whole samples: fits, scores, orders of variables, checkpoints."""

from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert
from height_maps import MODALITIES, HeightMaps, Heights, schema
from lightning.pytorch import Trainer
from small_models import PixelExpert
from torch import nn

from fusionlab.callbacks import Report
from fusionlab.component import build
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts import Expert, UNetFormer
from fusionlab.fusion import ClassWeighted
from fusionlab.fusion import Concat as ConcatDecisions
from fusionlab.losses import CrossEntropy, Huber, MeanSquaredError
from fusionlab.models import CentreCrop, FeatureFusion, LateFusion
from fusionlab.tasks import (
    ClassificationTask,
    ModelFactory,
    RegressionTask,
    SegmentationTask,
    WarmupCosine,
)
from fusionlab.types import Schema

PIXELS = partial(PixelExpert, modality="rgb")
SAMPLES = partial(PooledExpert, modality="rgb")
BOTH = {"rgb": PixelExpert, "sar": PixelExpert}
POOLED = {"rgb": PooledExpert, "sar": PooledExpert}


def task(model=PIXELS, data=None, **options) -> RegressionTask:
    torch.manual_seed(0)
    return RegressionTask(data or schema(), model, **options)


def batch(given=None, n=4, **changes):
    return {**collate([Heights(given or schema())[i] for i in range(n)]), **changes}


def trainer(folder, **options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet | options
    )


def evaluated(model, given, folder, **options):
    return trainer(folder).test(model, HeightMaps(given, **options), verbose=False)[0]


def trained_with(lr):
    return {
        "optimizer": partial(torch.optim.AdamW, lr=lr),
        "lr_scheduler": partial(WarmupCosine, warmup=0.1),
    }


def test_unetformer_learns_heights_from_images(tmp_path):
    given = schema(names=("height",))
    small = partial(
        UNetFormer, modality="rgb", backbone="test_resnet", decode_channels=16, window_size=4,
        heads=4, dropout=0.0,
    )  # fmt: skip
    model = task(small, given, **trained_with(0.06))
    before = evaluated(model, given, tmp_path)
    data = HeightMaps(given, batch_size=8)
    trainer(tmp_path, max_epochs=60, limit_val_batches=0).fit(model, data)
    after = evaluated(model, given, tmp_path)
    assert after["test/rmse"] < before["test/rmse"] / 2
    assert after["test/r2"] > 0.6  # so it knows more than the mean
    assert after["test/loss"] == pytest.approx(after["test/rmse"] ** 2, rel=1e-4)
    assert after.keys() == {f"test/{name}" for name in ("loss", "rmse", "mae", "bias", "r2")}


@pytest.mark.parametrize("loss", [MeanSquaredError, partial(Huber, delta=5.0)])
def test_whole_samples_are_learned(tmp_path, loss):
    given = schema("scalar_regression", ("height",))
    model = task(SAMPLES, given, loss=loss, **trained_with(0.15))
    data = HeightMaps(given, batch_size=8)  # whose statistics are those of all
    trainer(tmp_path, max_epochs=120, limit_val_batches=0).fit(model, data)
    assert evaluated(model, given, tmp_path)["test/r2"] > 0.75
    prediction = model.eval().predict_step(batch(given), 0)
    assert prediction["values"].shape == (4, 1)
    assert prediction.keys() == {"values"}


def test_scores_do_not_depend_on_batches_or_on_what_others_count(tmp_path):
    for given, model in (
        (schema(), PIXELS), (schema("scalar_regression"), SAMPLES)
    ):  # fmt: skip
        alone = evaluated(task(model, given), given, tmp_path, batch_size=1)
        together = evaluated(task(model, given), given, tmp_path, batch_size=8)
        assert together == pytest.approx(alone, rel=1e-4)
        assert {f"test/{s}/{v}" for s in ("rmse", "mae", "bias", "r2") for v in given.variables} < (
            alone.keys()
        )
        made = task(model, given).eval()
        made.validation_step(batch(given), 0)
        moments = made.val.scores.moments.clone()
        made.validation_step(batch(given, counted=torch.tensor([False] * 4)), 1)
        assert torch.equal(made.val.scores.moments, moments)


def test_an_evaluation_says_what_was_predicted_and_draws_it(tmp_path):
    made = task().eval()
    data = batch()
    predicted = made.validation_step(data, 0)["predicted"]
    assert torch.equal(predicted, made(data).logits)
    assert made.monitor == ("val/rmse", "min")
    assert made.charts("val") == {}  # nothing was scored yet
    report = Report(tmp_path)
    trainer(tmp_path, callbacks=[report]).test(made, HeightMaps(schema()), verbose=False)
    figure = made.charts("test")["regression"]
    rmse = made.test.results["rmse/height"].item()
    assert figure.axes[0].get_title(loc="left").startswith(f"height\nRMSE {rmse:.3g} m")
    assert (tmp_path / "test_regression.png").is_file()


def test_answers_come_onto_the_grid_of_the_target():
    """The radar's pixels are twice as large as those of the target."""
    made = task(partial(PixelExpert, modality="sar"), alignment=CentreCrop).eval()
    data = batch()
    coarse = made(data).logits
    assert coarse.shape == (4, 2, 16, 16)
    fine = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    torch.testing.assert_close(made.validation_step(data, 0)["predicted"], fine)
    placement = {"shape": torch.tensor([[64, 64]] * 4), "gsd": torch.full((4,), 0.5)}
    finer = made.predict_step({**data, "placement": placement}, 0)["values"]
    torch.testing.assert_close(finer, nn.functional.interpolate(coarse, (64, 64), mode="bilinear"))


def test_variables_in_another_order(tmp_path):
    given, turned = schema(), schema(names=("moisture", "height"))
    model = task(data=given)
    expected = evaluated(model, given, tmp_path)
    again = task(data=turned, trained_on=given.to_dict())
    again.load_state_dict(model.state_dict())
    assert evaluated(again, turned, tmp_path) == pytest.approx(expected)
    assert again.eval().predict_step(batch(turned), 0)["values"].shape == (4, 2, 32, 32)
    scalar = task(SAMPLES, schema("scalar_regression", ("moisture", "height")),
                  trained_on=schema("scalar_regression").to_dict())  # fmt: skip
    assert scalar.target({"target": torch.tensor([[1.0, 2.0]])}).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (schema(names=("height", "age")), r"on the variables of the data.*\['moisture'\].*'age'"),
        (schema(names=("height",)), r"variables of the data \(2 and 1\)"),
        (schema(units=("cm", "%")), "'height' in 'm', but the data give it in 'cm'"),
        (schema("scalar_regression"), "trained on a regression target.*is scalar_regression"),
        (Schema(MODALITIES, ("a", "b")), "trained on a regression target.*is segmentation"),
    ],
)
def test_data_that_do_not_fit_the_checkpoint_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        task(data=data, trained_on=schema().to_dict())


def test_wrong_tasks_targets_and_losses_are_refused():
    classes = Schema(MODALITIES, ("a", "b"))
    with pytest.raises(InputError, match="'segmentation': use SegmentationTask"):
        RegressionTask(classes, PIXELS)
    for target, kind in (
        ("regression", SegmentationTask),
        ("scalar_regression", ClassificationTask),
    ):
        with pytest.raises(InputError, match=f"{target!r}: use RegressionTask"):
            kind(schema(target), PIXELS)
    with pytest.raises(InputError, match="names of what is regressed"):
        RegressionTask(schema(names=()), PIXELS)
    with pytest.raises(InputError, match=r"CrossEntropy is a loss for.*MeanSquaredError"):
        task(loss=CrossEntropy)
    with pytest.raises(InputError, match=r"MeanSquaredError is a loss for.*CrossEntropy"):
        SegmentationTask(classes, PIXELS, loss=MeanSquaredError)


class OldExpert(Expert):
    """Made for classes only."""

    def logits(self, values):
        return self.inputs(values)[:, : self.num_classes]


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (partial(OldExpert, modality="rgb"), "regression", r"\(4, 0, 32, 32\).*`self.num_outputs`"),
        (PIXELS, "scalar_regression", r"\(4, 2, 32, 32\).*whole samples need \(samples, 2\)"),
        (SAMPLES, "regression", r"\(4, 2\), but.*pixels need \(samples, 2, rows, columns\)"),
    ],
)
def test_answers_of_the_wrong_shape_are_refused(model, target, message):
    with pytest.raises(InputError, match=message):
        task(model, schema(target)).eval().validation_step(batch(schema(target)), 0)


def test_targets_of_the_wrong_shape_are_refused():
    for wrong in (torch.zeros(4, 32, 32), torch.zeros(4, 1, 32, 32)):
        with pytest.raises(InputError, match=r"shape \(samples, 2, rows, columns\).*deliver \(4, "):
            task().validation_step(batch(target=wrong), 0)


def test_shares_of_sensors_per_variable(tmp_path):
    made = task(partial(LateFusion, experts=BOTH, fusion=ClassWeighted))
    with torch.no_grad():
        made.model.fusion.weight.copy_(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log())
    scores = evaluated(made, schema(), tmp_path)
    # The radar is missing in a quarter of the samples; there the camera has it all.
    assert scores["test/share/rgb/height"] == pytest.approx(0.75 * 0.9 + 0.25, abs=1e-3)
    assert scores["test/share/sar/moisture"] == pytest.approx(0.75 * 0.8, abs=1e-3)
    assert made.charts("test").keys() == {"regression", "fusion_weights"}
    made.explain = True
    shares = made.eval().predict_step(batch(), 0)["shares"]
    assert {name: tuple(share.shape) for name, share in shares.items()} == {
        "rgb": (4, 32, 32), "sar": (4, 32, 32),
    }  # fmt: skip
    torch.testing.assert_close(shares["rgb"][0], torch.full((32, 32), 0.55))
    assert (shares["rgb"][1] == 1).all()
    one = task(partial(LateFusion, experts=BOTH), schema(names=("height",)))
    names = {
        name for name in evaluated(one, schema(names=("height",)), tmp_path) if "share" in name
    }
    assert names == {"test/share/rgb", "test/share/sar"}


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("regression", partial(LateFusion, experts=BOTH, fusion=ConcatDecisions)),
        ("scalar_regression", partial(LateFusion, experts=POOLED, fusion=ClassWeighted)),
        ("scalar_regression", partial(FeatureFusion, experts=POOLED)),
    ],
)
def test_a_checkpoint_restores_the_model_alone(tmp_path, target, model):
    given = schema(target)
    made = task(model, given, loss=partial(Huber, delta=3.0))
    trainer(tmp_path, max_epochs=2).fit(made, HeightMaps(given))
    expected = evaluated(made, given, tmp_path)
    made.trainer.save_checkpoint(tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    stored = content["hyper_parameters"]
    assert stored["trained_on"]["variables"] == ["height", "moisture"]
    assert stored["trained_on"]["units"] == ["m", "%"]
    rebuilt = partial(build, stored["model"], ModelFactory, where="the checkpoint")
    again = RegressionTask(
        given, rebuilt, trained_on=stored["trained_on"], loss=partial(Huber, delta=3.0)
    )
    again.load_state_dict(content["state_dict"])
    assert evaluated(again, given, tmp_path) == pytest.approx(expected)
    # Data that name nothing, as new rasters do.
    bare = RegressionTask(Schema(MODALITIES), rebuilt, trained_on=stored["trained_on"])
    bare.load_state_dict(content["state_dict"])
    data = batch(given)
    torch.testing.assert_close(
        bare.eval().predict_step(data, 0)["values"], again.eval().predict_step(data, 0)["values"]
    )


def test_embeddings_of_whole_samples_on_request():
    given = schema("scalar_regression")
    made = task(partial(FeatureFusion, experts=POOLED), given).eval()
    assert made.predict_step(batch(given), 0).keys() == {"values"}
    made.embeddings = made.explain = True
    prediction = made.predict_step(batch(given), 0)
    assert prediction["embeddings"].keys() == {"rgb", "sar", "fused"}
    torch.testing.assert_close(sum(prediction["shares"].values()), torch.ones(4))


def test_modality_dropout_and_nothing_seen_teach_nothing():
    made = task(partial(PixelExpert, modality="sar")).eval()  # no dropout
    made.log = lambda *_, **__: None
    data = batch()
    other = data["target"].clone()
    other[1] += 7  # of the sample without radar
    assert made.training_step(data, 0) == made.training_step({**data, "target": other}, 0)
    data["target"] = torch.full_like(data["target"], torch.nan)
    made.training_step(data, 0).backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())
