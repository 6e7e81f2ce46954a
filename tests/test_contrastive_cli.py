"""From the command line: contrastive training, its table, zero-shot classes, and refusals."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from bigearthnet_runs import without_pictures
from contrastive_pairs import CLASSES
from matplotlib.image import imread
from test_distributed import check_one_like_two

from fusionlab.cli import run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

CPU = {
    "accelerator": "cpu", "devices": 1, "enable_progress_bar": False,
    "enable_model_summary": False, "log_every_n_steps": 1,
}  # fmt: skip
EXPERTS = {
    "image": {"class_path": "token_experts.PatchExpert"},
    "caption": {"class_path": "token_experts.WordExpert"},
}
PROMPTS = {"red_field": ["red field", "red"], "dark_road": "dark road"}


def write(path: Path, model: dict, **data) -> str:
    content: dict = {
        "model": model,
        "data": {"class_path": "contrastive_pairs.SceneDataModule", "init_args": data},
        "trainer": CPU,
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def contrastive(path: Path, **options) -> str:
    model = {"class_path": "ContrastiveModel", "init_args": {"experts": EXPERTS, "width": 6}}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.02}}
    task = {"class_path": "ContrastiveTask",
            "init_args": {"model": model, "optimizer": optimizer, **options}}  # fmt: skip
    return write(path, task, modalities=["image", "caption"])


def zero_shot(path: Path, checkpoint: Path, *, task=None, labelled=True, **options) -> str:
    model = {
        "class_path": "ZeroShot",
        "init_args": {"checkpoint": str(checkpoint), "templates": ["{}", "a {} seen"], **options},
    }
    content = {"class_path": "ClassificationTask", "init_args": {"model": model, **(task or {})}}
    return write(path, content, modalities=["image"], labelled=labelled)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("contrastive")
    file = contrastive(folder / "contrastive.yaml")
    run(["fit", "--config", file, "--trainer.max_epochs", "12", "--output", str(folder / "run")])
    return folder / "run"


def test_a_run_leaves_scores_pictures_and_a_checkpoint(trained):
    assert {"best.ckpt", "last.ckpt", "similarity.png", "curves.png", "measures.json"} <= {
        path.name for path in trained.iterdir()
    }
    measured = json.loads((trained / "measures.json").read_text())
    assert measured["monitor"] == ["val/mean_recall", "max"]
    assert measured["flops_per_sample"] > 0
    assert imread(trained / "similarity.png").std() > 0.05


def test_testing_and_embedding_a_split(trained, tmp_path):
    file = contrastive(tmp_path / "c.yaml")
    args = ["--config", file, "--ckpt_path", str(trained / "best.ckpt"), "--output"]
    run(["test", *args, str(tmp_path / "test")])
    scores = json.loads((tmp_path / "test" / "test_metrics.json").read_text())
    assert scores["test/recall_at_1/image_to_caption"] > 0.9
    assert (tmp_path / "test" / "test_similarity.png").is_file()
    run(["predict", *args, str(tmp_path / "table")])
    read = pq.read_table(tmp_path / "table" / "predictions.parquet")
    assert read.schema.names == [
        "sample", "available_image", "available_caption", "embedding_image", "embedding_caption",
    ]  # fmt: skip
    vectors = torch.tensor(read.to_pydict()["embedding_image"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(48))
    said = json.loads(read.schema.metadata[b"fusionlab"])
    assert said["model"]["class_path"].endswith("ContrastiveModel")


def test_options_in_yaml(trained, tmp_path):
    loss = {"class_path": "SigmoidContrastive", "init_args": {"bias": -5.0}}
    file = contrastive(tmp_path / "c.yaml", loss=loss, pairs=[["caption", "image"]])
    args = ["--config", file, "--trainer.max_epochs", "1", "--output", str(tmp_path / "run")]
    with without_pictures():
        cli = run(["fit", *args])
    assert cli.model.pairs == [("caption", "image")]
    best = str(tmp_path / "run" / "best.ckpt")
    with without_pictures():
        again = run(["test", "--config", file, "--ckpt_path", best,
                     "--output", str(tmp_path / "test")])  # fmt: skip
    assert again.model.loss.bias.item() != -5
    stored = torch.load(best, weights_only=True)["state_dict"]
    assert torch.equal(again.model.loss.bias.detach(), stored["loss.bias"])


def test_zero_shot_without_training(trained, tmp_path):
    file = zero_shot(tmp_path / "z.yaml", trained / "best.ckpt", prompts=PROMPTS)
    run(["test", "--config", file, "--output", str(tmp_path / "test")])
    scores = json.loads((tmp_path / "test" / "test_metrics.json").read_text())
    assert scores["test/overall_accuracy"] == 1
    assert scores["trained_parameters"] == 0
    assert (tmp_path / "test" / "test_confusion.png").is_file()
    run(["predict", "--config", file, "--output", str(tmp_path / "table"),
         "--writer.embeddings", "true"])  # fmt: skip
    table = pq.read_table(tmp_path / "table" / "predictions.parquet").to_pydict()
    assert table["label"] == [CLASSES[i % 4] for i in range(48)]
    assert len(table["embedding_image"][0]) == 6
    assert imread(tmp_path / "table" / "predictions_similarity.png").std() > 0.05


@pytest.mark.slow
def test_a_saved_zero_shot_model_stands_alone(trained, tmp_path):
    """The contrastive checkpoint, and what the configuration says of it, is no longer needed."""
    moved = tmp_path / "contrastive.ckpt"
    moved.write_bytes((trained / "best.ckpt").read_bytes())
    file = zero_shot(tmp_path / "z.yaml", moved, prompts=PROMPTS)
    run(["fit", "--config", file, "--output", str(tmp_path / "run")])
    run(["predict", "--config", file, "--output", str(tmp_path / "before")])
    moved.unlink()
    best = ["--ckpt_path", str(tmp_path / "run" / "best.ckpt")]
    run(["predict", "--config", file, *best, "--output", str(tmp_path / "after")])
    before, after = (
        pq.read_table(tmp_path / name / "predictions.parquet").to_pydict()
        for name in ("before", "after")
    )
    assert before == after
    # Other words for the same classes are read anew.
    run(["predict", "--config", file, *best, "--output", str(tmp_path / "other"),
         "--model.model.prompts", "{red_field: green field, green_field: red field}"])  # fmt: skip
    other = pq.read_table(tmp_path / "other" / "predictions.parquet").to_pydict()
    assert other["label"][:2] == ["green_field", "red_field"]
    # A file with other weights, beside a checkpoint that holds them, is refused.
    with pytest.raises(InputError, match="is not the file that this expert was trained in"):
        run(["predict", "--config", file, *best, "--output", str(tmp_path / "no"),
             "--model.model.checkpoint", str(tmp_path / "run" / "best.ckpt")])  # fmt: skip


def test_images_of_which_nobody_knows_a_class(trained, tmp_path):
    task = {"classes": ["red_field", "green_field"]}
    file = zero_shot(tmp_path / "z.yaml", trained / "best.ckpt", task=task, labelled=False)
    run(["predict", "--config", file, "--output", str(tmp_path / "table")])
    table = pq.read_table(tmp_path / "table" / "predictions.parquet").to_pydict()
    assert table["label"][::4] == ["red_field"] * 12
    assert table["label"][1::4] == ["green_field"] * 12


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--data.batch_size", "1"], "there would be nothing to learn from"),
     (["--data.missing", "[caption]"], r"nothing to compare in the pair \['image', 'caption'\]"),
     (["--data.missing", "[image, caption]"], "data.missing"),
     (["--data.mix", "MixUp"], "have no target|trains on samples as they are"),
     (["--trainer.precision", "bf16-true"], "Say bf16-mixed"),
     (["--model.strip_frozen", "true"], "strip_frozen is set")],
)  # fmt: skip
def test_nothing_is_written_of_a_run_that_cannot_go_well(tmp_path, flags, message):
    file = contrastive(tmp_path / "c.yaml")
    with pytest.raises(InputError, match=message):
        run(["fit", "--config", file, *flags, "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prompts": {"lake": "water"}}, "Unknown class 'lake' in ZeroShot prompts"),
     ({"templates": ["a photo"]}, "'a photo' has no {}"), ({"image": "s2"}, "`image: s2` is none")],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_read(trained, tmp_path, options, message):
    file = zero_shot(tmp_path / "z.yaml", trained / "best.ckpt", **options)
    with pytest.raises(InputError, match=message):
        run(["predict", "--config", file, "--output", str(tmp_path / "table")])
    assert not (tmp_path / "table").exists()


@pytest.mark.slow
def test_encoders_in_a_fusion_and_with_a_head(trained, tmp_path):
    def part(kind, name):
        checkpoint = str(trained / "best.ckpt")
        return {"class_path": kind, "init_args": {"checkpoint": checkpoint, "part": name}}

    fusion = {"class_path": "CrossAttention", "init_args": {"width": 8, "heads": 2}}
    experts = {name: part("FrozenExpert", name) for name in EXPERTS}
    model = {"class_path": "FeatureFusion", "init_args": {"experts": experts, "fusion": fusion}}
    task = {"class_path": "ClassificationTask", "init_args": {"model": model}}
    file = write(tmp_path / "f.yaml", task, modalities=["image", "caption"])
    output = tmp_path / "run"
    run(["fit", "--config", file, "--trainer.max_epochs", "1", "--output", str(output)])
    assert (output / "val_attention.png").is_file()
    run(["test", "--config", file, "--ckpt_path", str(output / "best.ckpt"),
         "--output", str(tmp_path / "test")])  # fmt: skip
    assert imread(tmp_path / "test" / "test_attention.png").std() > 0.05
    experts["image"]["init_args"].pop("part")
    file = write(tmp_path / "g.yaml", task, modalities=["image", "caption"])
    with pytest.raises(InputError, match=r"ContrastiveModel of the experts \['image', 'caption'\]"):
        run(["fit", "--config", file, "--output", str(tmp_path / "no")])


@pytest.mark.slow
def test_two_processes_train_and_are_tested_like_one(tmp_path):
    """Seven samples: one process has one more, and the other repeats one that does not count."""
    file = contrastive(tmp_path / "c.yaml")
    content = yaml.safe_load(Path(file).read_text())
    content["data"]["init_args"] |= {"n": 7, "batch_size": 2}
    content["trainer"]["max_epochs"] = 1
    Path(file).write_text(yaml.safe_dump(content, sort_keys=False))
    check_one_like_two(file, tmp_path)
