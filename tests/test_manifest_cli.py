"""A manifest from the command line: classes, labels and values per sample, and masks as maps."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from bigearthnet_runs import network, without_pictures
from manifest_files import (
    BANDS,
    CLASSES,
    MASK,
    OPTIONS,
    RADAR,
    SEASONS,
    STACK,
    WIDE,
    change,
    manifest_data,
    options,
    read_rows,
    write_csv,
    write_manifest,
)

from fusionlab.cli import FusionlabCLI, main, run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

CPU = [
    "--trainer.accelerator", "cpu", "--trainer.devices", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"))


def config(file: Path, manifest: Path, *, task: str = "ClassificationTask", **data) -> list[str]:
    """Flags of a configuration: an expert for the image, whatever else is delivered."""
    expert = network(modality="image", bands=["red", "green", "nir"])
    if task == "SegmentationTask":
        expert = {"class_path": "small_models.PixelExpert", "init_args": {"modality": "image"}}
    sections = {
        "model": {"class_path": task, "init_args": {"model": expert}},
        "data": {"class_path": "ManifestDataModule", "init_args": options(manifest, **data)},
    }
    file.write_text(yaml.safe_dump(sections))
    return ["--config", str(file), *CPU]


def do(command: str, *args: str) -> FusionlabCLI:
    with without_pictures():
        return run([command, *args])


def rows_of(output: Path) -> list[dict]:
    return pq.read_table(output / "predictions.parquet").to_pylist()


@pytest.fixture(scope="module")
def trained(manifest, tmp_path_factory) -> Path:
    """A run with all it draws."""
    folder = tmp_path_factory.mktemp("trained")
    flags = config(folder / "c.yaml", manifest)
    run(["fit", *flags, "--trainer.max_epochs", "2", "--output", str(folder / "run")])
    return folder / "run"


def test_yaml_says_all_that_python_says(manifest, tmp_path):
    given = {
        "images": {"image": {"column": "image", "bands": BANDS, "size": [8, 8]}, "s": STACK,
                   "radar": RADAR},
        "series": {**OPTIONS["series"], "ndvi": WIDE},
        "splits": {"val": 0.25, "test": 0.25, "seed": 3},
        "place": "place", "name": "id", "allow_missing": ["caption"], "num_workers": 0,
    }  # fmt: skip
    flags = config(tmp_path / "c.yaml", manifest, **given)
    cli = do("fit", *flags, "--output", str(tmp_path / "run"), "--trainer.fast_dev_run", "1")
    made = manifest_data(manifest, **given)
    assert cli.datamodule.schema == made.schema
    assert len(cli.datamodule.dataset("val")) == len(made.dataset("val"))


def test_training_draws_examples(trained):
    assert {path.name for path in trained.glob("*.png")} >= {"curves.png", "val_examples.png"}


def test_scores_are_those_of_the_table(trained, manifest, tmp_path):
    flags = [*config(tmp_path / "c.yaml", manifest), "--ckpt_path", str(trained / "best.ckpt")]
    cli = do("test", *flags, "--output", str(tmp_path / "test"))
    accuracy = float(cli.trainer.callback_metrics["test/overall_accuracy"])
    do("predict", *flags, "--output", str(tmp_path / "table"))
    rows = rows_of(tmp_path / "table")
    truth = {row["id"]: row["land_use"] for row in read_rows(manifest) if row["split"] == "test"}
    assert [row["sample"] for row in rows] == list(truth)
    assert "source" not in rows[0]
    right = [row["label"] == truth[row["sample"]] for row in rows]
    assert accuracy == pytest.approx(np.mean(right))


def test_new_rows_need_no_labels_and_may_lack_images(trained, manifest, tmp_path):
    kept = ("id", "image", "caption")
    path = manifest.with_name("new.csv")
    write_csv(path, [{name: row[name] for name in kept} for row in read_rows(manifest)[:6]])
    change(path, 2, image="")
    flags = config(
        tmp_path / "c.yaml", path, predict_split="all", tables=None, series=None, name="id"
    )
    do("predict", *flags, "--ckpt_path", str(trained / "best.ckpt"), "--output", str(tmp_path))
    rows = rows_of(tmp_path)
    assert [row["sample"] for row in rows] == [f"p{i:03d}" for i in range(6)]
    assert [row["label"] is None for row in rows] == [i == 2 for i in range(6)]
    assert not rows[2]["available_image"]


def test_a_model_is_not_asked_without_all_that_it_sees(trained, manifest, tmp_path):
    flags = [*config(tmp_path / "c.yaml", manifest), "--ckpt_path", str(trained / "best.ckpt")]
    do("test", *flags, "--data.missing", "[caption, site]", "--output", str(tmp_path))
    with pytest.raises(InputError, match="takes away all that the model looks at"):
        do("test", *flags, "--data.missing", "[image]", "--output", str(tmp_path))


def test_masks_are_learned_and_mapped_where_the_images_lie(manifest, tmp_path):
    flags = config(
        tmp_path / "c.yaml", manifest, task="SegmentationTask", target=MASK, crop=8, overlap=4
    )
    do("fit", *flags, "--trainer.max_epochs", "1", "--output", str(tmp_path / "run"))
    checkpoint = ["--ckpt_path", str(tmp_path / "run/best.ckpt")]
    do("predict", *flags, *checkpoint, "--output", str(tmp_path / "maps"))
    names = [row["id"] for row in read_rows(manifest) if row["split"] == "test"]
    assert sorted(p.name for p in (tmp_path / "maps").glob("*.tif")) == [
        f"{name}_classes.tif" for name in names
    ]
    with (
        rasterio.open(tmp_path / f"maps/{names[0]}_classes.tif") as written,
        rasterio.open(manifest.parent / f"images/{names[0]}.tif") as source,
    ):
        assert (written.crs, written.transform) == (source.crs, source.transform)
        assert written.shape == source.shape
        assert written.read(1).max() < len(CLASSES)
    # Without masks, the model says that its answers are maps.
    flags = config(
        tmp_path / "c.yaml", manifest, task="SegmentationTask", target=None, predict_split="val"
    )
    do("predict", *flags, *checkpoint, "--output", str(tmp_path / "more"))
    assert len(list((tmp_path / "more").glob("*_classes.tif"))) == 3


def test_every_kind_is_fused_and_vocabulary_and_categories_travel(manifest, tmp_path):
    experts = {
        "image": network(),
        "caption": {"class_path": "TextExpert", "init_args": {"width": 8, "heads": 2, "depth": 1}},
        "site": {"class_path": "TabularExpert", "init_args": {"width": 8, "hidden": 8}},
        "weather": {
            "class_path": "SeriesExpert", "init_args": {"width": 8, "heads": 2, "depth": 1},
        },
    }  # fmt: skip
    model = {"class_path": "LateFusion", "init_args": {
        "experts": experts, "fusion": {"class_path": "Average"},
    }}  # fmt: skip
    file = tmp_path / "c.yaml"
    flags = config(file, manifest)
    sections = yaml.safe_load(file.read_text())
    sections["model"]["init_args"]["model"] = model
    file.write_text(yaml.safe_dump(sections))
    do("fit", *flags, "--trainer.max_epochs", "1", "--output", str(tmp_path / "run"))
    # The same rows without splits: categories in another order, and no vocabulary of their own.
    rows = read_rows(manifest)[18:]
    path = manifest.with_name("again.csv")
    write_csv(path, [{k: v for k, v in row.items() if k != "split"} for row in rows])
    tables = {"site": {**OPTIONS["tables"]["site"], "categories": {"season": SEASONS[::-1]}}}
    other = config(tmp_path / "d.yaml", path, predict_split="all", tables=tables)
    checkpoint = ["--ckpt_path", str(tmp_path / "run/best.ckpt")]
    do("predict", *flags, *checkpoint, "--output", str(tmp_path / "a"))
    settings = yaml.safe_load((tmp_path / "d.yaml").read_text())
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({"data": settings["data"]}))
    do("predict", *other, *checkpoint, "--output", str(tmp_path / "b"))
    first = {row["sample"]: row for row in rows_of(tmp_path / "a")}
    second = {row["sample"]: row for row in rows_of(tmp_path / "b")}
    assert len(first) == 3
    for name, row in first.items():
        for column in (f"probability_{c}" for c in CLASSES):
            assert second[name][column] == pytest.approx(row[column], rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--data.texts", "{caption: caption}"],
         "data.texts: expected options, got 'caption'. Write {caption: {column: caption}}."),
        (["--data.tables", "{site: elevation}"],
         "data.tables: expected options, got 'elevation'. Write {site: {columns: [elevation]}}."),
        (["--data.target", "land_use"],
         "data.target: expected options, got 'land_use'. Write {column: land_use}."),
        (["--data.target.kind", "klass"],
         "data.target.kind: expected one of class, classes, values, mask, got 'klass'. Did you "
         "mean class or classes?"),
        (["--data.predict_split", "everything"],
         "data.predict_split: expected one of test, val, train, all, got 'everything'."),
    ],
)  # fmt: skip
def test_natural_mistakes_say_what_to_write(manifest, tmp_path, flags, says, capsys, monkeypatch):
    command = ["fusionlab", "fit", *config(tmp_path / "c.yaml", manifest), *flags]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        main()
    assert says in capsys.readouterr().err


def test_what_is_wrong_is_listed_on_the_terminal(manifest, tmp_path, monkeypatch, capsys):
    path = manifest.with_name("bad.csv")
    path.write_bytes(manifest.read_bytes())
    change(path, 1, elevation="high")
    change(path, 4, image="gone.tif")
    flags = config(tmp_path / "c.yaml", path)
    command = ["fusionlab", "fit", *flags, "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()[-4:]
    assert "has 2 problems" in lines[0]
    assert lines[1] == "  row 2, elevation: expected a number, got 'high'."
    assert lines[2] == f"  row 5, image: there is no file {manifest.parent}/gone.tif."
    assert not (tmp_path / "run").exists()
