"""Contrastive training: what it learns, what takes part, what is logged, drawn and saved."""

import math
from contextlib import nullcontext
from functools import partial

import pyarrow.parquet as pq
import pytest
import torch
from contrastive_pairs import (
    ENCODERS,
    TWO,
    SceneDataModule,
    Scenes,
    fitted,
    model,
    schema,
    task,
    trainer,
)
from embedding_experts import PooledExpert
from matplotlib.figure import Figure
from small_models import PixelExpert
from test_no_waiting import FromHost
from torch.utils.data import DataLoader

from fusionlab.callbacks import TableWriter
from fusionlab.data.samples import collate
from fusionlab.errors import InputError
from fusionlab.losses import InfoNCE, SigmoidContrastive
from fusionlab.tasks import ContrastiveTask
from fusionlab.types import Schema

DIRECTIONS = ("image_to_caption", "caption_to_image")


def batch(n=8, **options):
    return collate([Scenes(**options)[i] for i in range(n)])


def quiet(made):
    made.log = lambda *_, **__: None
    return made


def loss_of(made, given):
    return quiet(made).training_step(given, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> ContrastiveTask:
    return fitted(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("loss", [InfoNCE, SigmoidContrastive])
def test_learns_to_find_what_shows_the_same(tmp_path, loss):
    """Samples of one class are of one place here, and each is found by any of its modalities."""
    made = fitted(tmp_path, loss=loss, epochs=15)
    scores = {name: float(value) for name, value in made.trainer.callback_metrics.items()}
    assert scores["val/recall_at_1"] > 0.9
    assert scores["val/median_rank"] == 1
    assert {f"val/recall_at_{k}/{name}" for k in (1, 5, 10) for name in DIRECTIONS} <= set(scores)
    assert "train/loss/image_and_radar" in scores
    assert scores["train/scale/image_and_caption"] != pytest.approx(1 / 0.07)
    assert made.monitor == ("val/mean_recall", "max")
    assert made.monitor[0] in scores
    assert not any("candidates" in name for name in scores)
    (tested,) = made.trainer.test(made, SceneDataModule(), verbose=False)
    assert tested["test/recall_at_1"] > 0.9
    assert tested["test/candidates/image_to_caption"] == 39  # of 48, of which nine have no caption


def test_scores_and_loss_do_not_depend_on_batches(trained, tmp_path):
    one, other = (
        trainer(tmp_path).validate(trained, SceneDataModule(batch_size=size), verbose=False)[0]
        for size in (48, 5)
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=1e-5), name


def test_loss_of_an_evaluation_is_that_of_all_its_samples_as_one_batch(trained, tmp_path):
    (scores,) = trainer(tmp_path).validate(trained, SceneDataModule(), verbose=False)
    trained.eval()
    whole = collate([Scenes(places=True, first=1000)[i] for i in range(48)])
    expected = trained.loss(trained.embedded(whole)).item()
    assert scores["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_sample_counted_elsewhere_is_left_out(tmp_path):
    made = task(TWO)
    samples = [Scenes()[i] for i in range(12)]
    for i, sample in enumerate(samples):
        sample["counted"] = torch.tensor(i != 3)
    runs = []
    for chosen in (samples, [s for i, s in enumerate(samples) if i != 3]):
        loader = DataLoader(chosen, batch_size=5, collate_fn=collate)
        runs.append(trainer(tmp_path).validate(made, loader, verbose=False)[0])
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)


def test_no_target_is_needed(tmp_path):
    data = SceneDataModule(labelled=False)
    made = fitted(tmp_path, TWO, data=data, epochs=1)
    assert math.isfinite(made.trainer.callback_metrics["val/loss"])
    given = batch()
    del given["target"]
    assert loss_of(made, given).isfinite()


def test_what_the_data_name_is_not_what_it_answers():
    made = task(data=schema(target="segmentation"))
    assert (made.schema.outputs, made.schema.pixelwise) == ((), False)


def test_places_are_no_negative_examples():
    made = task(TWO)
    assert loss_of(made, batch(places=True)) < loss_of(made, batch())


def test_a_batch_in_which_nobody_is_there():
    made = task()
    given = batch()
    given["available"] = {name: torch.zeros(8, dtype=torch.bool) for name in given["available"]}
    loss = loss_of(made, given)
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in made.parameters())


def test_only_the_pairs_that_are_named_count():
    made = task(pairs=[["image", "caption"], ["radar", "image"]])
    assert made.pairs == [("image", "caption"), ("radar", "image")]
    assert made.hparams["pairs"] == [["image", "caption"], ["radar", "image"]]
    losses, _ = made.loss.per_pair(made.embedded(batch()))
    torch.testing.assert_close(loss_of(made, batch()), losses.mean())
    assert task().pairs == [("image", "radar"), ("image", "caption"), ("radar", "caption")]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pairs": [["image", "caption"]]}, r"\['radar'\] of the experts .* in none of the pairs"),
     ({"pairs": [["image", "caption", "radar"]]}, "a pair is the names of two experts"),
     ({"pairs": [["image", "lidar"]]}, "two of the experts")],
)  # fmt: skip
def test_pairs_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        task(**options)


def test_other_models_are_refused():
    with pytest.raises(InputError, match=r"trains a ContrastiveModel, got PixelExpert\. For one"):
        ContrastiveTask(schema(), partial(PixelExpert, modality="image"))


@pytest.mark.parametrize("loss", [InfoNCE, SigmoidContrastive])
def test_no_step_waits_for_the_device(loss, monkeypatch):
    """Tensors on the meta device have no values: whoever asks for one is refused by torch."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta
    made = quiet(task({"image": PooledExpert, "radar": PooledExpert}, loss=loss)).to("meta")
    given = batch(places=True)
    given = {
        "inputs": {n: given["inputs"][n].to("meta") for n in ("image", "radar")},
        "available": {n: given["available"][n].to("meta") for n in ("image", "radar")},
        "place": given["place"].to("meta"), "counted": given["place"].to("meta") > 0,
    }  # fmt: skip
    with FromHost() as copied:
        made.training_step(given, 0).backward()
        made.loss.clamp()
        made.eval()
        made.validation_step(given, 0)
        made.predict_step(given, 0)
    assert copied.seen == []


# ---- the scale ------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [InfoNCE, SigmoidContrastive])
def test_scales_have_no_weight_decay(loss):
    made = task(loss=loss, optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.2))
    optimizer = made.configure_optimizers()
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in made.named_parameters():
        assert decay[id(parameter)] == (0 if name.startswith("loss.") else 0.2)


def test_groups_of_the_user_come_first():
    groups = {"model.experts.image.*": {"lr": 1e-5}, "loss.log_scale": {"lr": 1e-2}}
    made = task(parameter_groups=groups)
    lrs = {id(p): g["lr"] for g in made.configure_optimizers().param_groups for p in g["params"]}
    assert lrs[id(made.loss.log_scale)] == 1e-2
    assert lrs[id(next(made.model.experts["image"].parameters()))] == 1e-5
    with_bias = task(loss=SigmoidContrastive, parameter_groups={"loss.log_scale": {"lr": 1e-2}})
    decay = {
        id(p): g["weight_decay"]
        for g in with_bias.configure_optimizers().param_groups for p in g["params"]
    }  # fmt: skip
    assert decay[id(with_bias.loss.bias)] == 0


def test_scales_stay_in_their_bounds(tmp_path):
    made = task(TWO, optimizer=partial(torch.optim.SGD, lr=1e4))
    seen = []
    made.on_train_batch_end = lambda *_: seen.append(made.loss.log_scale.item())
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(made, SceneDataModule())
    assert all(0 <= value <= math.log(100) + 1e-6 for value in seen)
    assert min(seen) == 0 or max(seen) == pytest.approx(math.log(100))


# ---- what a run leaves ----------------------------------------------------------------------


def test_similarities_of_the_first_samples_are_drawn(trained, tmp_path):
    trainer(tmp_path).test(trained, SceneDataModule(), verbose=False)
    charts = trained.charts("test")
    assert list(charts) == ["similarity"]
    figure = charts["similarity"]
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.images]
    assert [(a.get_ylabel(), a.get_xlabel()) for a in panels] == trained.pairs
    shown = panels[1].images[0].get_array()
    assert shown.shape == (16, 16)
    assert shown.mask[:, 4].all()  # scene_2004 has no caption
    assert not shown.mask[4, 3]
    right = [(i, j) for i in range(16) for j in range(16) if i % 4 == j % 4 and j % 5 != 4]
    wrong = [(i, j) for i in range(16) for j in range(16) if i % 4 != j % 4 and j % 5 != 4]
    assert min(shown[i, j] for i, j in right) > max(shown[i, j] for i, j in wrong)
    assert trained.fit_charts().keys() == charts.keys()
    figure.savefig(tmp_path / "similarity.png", dpi=40)


def test_predictions_are_a_table_of_embeddings(trained, tmp_path):
    writer = TableWriter(tmp_path / "out")
    trainer(tmp_path, callbacks=[writer]).predict(trained, SceneDataModule())
    found = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    assert list(found) == [
        "sample", *(f"available_{name}" for name in ENCODERS),
        *(f"embedding_{name}" for name in ENCODERS),
    ]  # fmt: skip
    trained.eval()
    expected = trained.model.embed(collate([Scenes(first=2000)[i] for i in range(48)]))
    assert found["sample"][:2] == ["scene_2000", "scene_2001"]
    for name, values in expected.items():
        for i, row in enumerate(found[f"embedding_{name}"]):
            if found[f"available_{name}"][i]:
                assert row == pytest.approx(values[i].tolist(), abs=1e-5)
            else:
                assert row is None
    assert found["embedding_caption"][4] is None


def test_embeddings_have_no_place_in_csv(trained, tmp_path):
    writer = TableWriter(tmp_path, format="csv")
    with pytest.raises(InputError, match=r"ContrastiveTask gives embeddings.*`format: parquet`"):
        trainer(tmp_path, callbacks=[writer]).predict(trained, SceneDataModule())


def test_a_checkpoint_is_restored(trained, tmp_path):
    trained.trainer.save_checkpoint(tmp_path / "run.ckpt")
    content = torch.load(tmp_path / "run.ckpt", weights_only=True)
    said = content["hyper_parameters"]
    again = ContrastiveTask(schema(), model(), pairs=said["pairs"], trained_on=said["trained_on"])
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"])
    given = batch()
    for made in (trained, again):
        made.eval()
    assert torch.equal(again.embedded(given).embeddings, trained.embedded(given).embeddings)
    assert torch.equal(again.loss.log_scale, trained.loss.log_scale)
    assert Schema.from_dict(said["trained_on"]).classes == ()
    assert said["pairs"] == [list(pair) for pair in trained.pairs]
