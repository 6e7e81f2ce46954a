"""The configurations of images, captions, tables and series: each a command of its own, and run."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from bigearthnet_runs import probabilities, table, without_pictures
from manifest_files import read_rows, write_csv
from test_configs import CONFIGS, QUICK

from fusionlab.cli import run
from fusionlab.cli_compare import compare
from fusionlab.data.synthetic.geo_multimodal import (
    CLASSES,
    GeoMultimodalConfig,
    write_geo_multimodal,
)
from fusionlab.data.synthetic.geo_multimodal.captions import LEADS
from fusionlab.data.synthetic.geo_multimodal.uses import USES
from fusionlab.data.synthetic.geo_multimodal.write import TABLE, VARIABLES
from fusionlab.study.agreement import require_agreement
from fusionlab.study.members import read_members
from fusionlab.study.study_file import read_study

FOLDER = CONFIGS / "geo_multimodal"
ALONE = ("image", "caption", "site", "weather")
FUSED = ("early", "late", "cross_attention")
SHORT = [*QUICK[2:], "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    config = GeoMultimodalConfig(samples=260, patch_size=16, second_visits=0)
    made = write_geo_multimodal(tmp_path_factory.mktemp("geo") / "data", config)
    assert all(made.samples.values())
    return made.manifest


def flags(name: str, manifest: Path) -> list[str]:
    return [
        "--config", str(FOLDER / f"{name}.yaml"), "--data.manifest", str(manifest),
        "--data.statistics", str(manifest.parents[1] / "statistics"),
    ]  # fmt: skip


def test_every_configuration_is_here():
    files = {path.stem for path in FOLDER.glob("*.yaml")}
    assert files == {*ALONE, *FUSED, "augmented", "data", "contrastive", "zero_shot", "study"}


@pytest.mark.parametrize("name", [*FUSED, *ALONE])
def test_each_is_one_command(name, manifest, tmp_path):
    with without_pictures():
        cli = run(["fit", *flags(name, manifest), *QUICK, "--output", str(tmp_path)])
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    schema = cli.datamodule.schema
    assert schema.classes == tuple(sorted(CLASSES))
    kinds = {name: modality.kind for name, modality in schema.modalities.items()}
    assert kinds == {"image": "image", "caption": "text", "site": "table", "weather": "series"}
    assert schema.modalities["site"].bands == TABLE
    assert schema.modalities["weather"].bands == VARIABLES
    assert set(cli.model.model.modalities) == ({name} if name in ALONE else set(ALONE))


@pytest.mark.parametrize("mix", [[], ["--data.mix", "CutMix"]], ids=["mixup", "cutmix"])
def test_an_overlay_augments(mix, manifest, tmp_path):
    overlay = ["--config", str(FOLDER / "augmented.yaml"), *mix]
    with without_pictures():
        cli = run(["fit", *flags("late", manifest), *overlay, *QUICK, "--output", str(tmp_path)])
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    assert type(cli.datamodule.mix).__name__ == ("CutMix" if mix else "MixUp")
    (bound,) = cli.datamodule.transforms("train")
    names = [type(transform).__name__ for transform in bound.transforms]
    assert names == ["RandomD4", "SpatialCrop", "SpectralShift", "SynonymReplacement"]


def test_new_rows_are_predicted_one_by_one_or_together(manifest, tmp_path):
    """As the README says: no labels, splits or places, and no row changes another's answer."""
    with without_pictures():
        run(["fit", *flags("late", manifest), *SHORT, "--output", str(tmp_path / "run")])
    rows = read_rows(manifest)[:12]
    rows = [{k: v for k, v in r.items() if k not in ("land_use", "split", "place")} for r in rows]
    found = []
    for kept in (rows, rows[7:8]):
        path = write_csv(manifest.with_name("new.csv"), kept)
        output = tmp_path / f"new_{len(kept)}"
        new = ["--data.manifest", str(path), "--data.predict_split", "all", "--output", str(output)]
        checkpoint = ["--ckpt_path", str(tmp_path / "run/best.ckpt")]
        with without_pictures():
            run(["predict", *flags("late", manifest), *checkpoint, *new, *QUICK[2:]])
        found.append(probabilities(table(output)))
    many, one = found
    assert set(many) == set(CLASSES)
    assert all(len(values) == 12 for values in many.values())
    for name in CLASSES:
        assert many[name][7] == pytest.approx(one[name][0], abs=1e-4)


def test_fusions_look_alike_but_for_how_they_fuse():
    contents = {name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in FUSED}
    experts = []
    for content in contents.values():
        found = content["model"]["init_args"].pop("model")["init_args"]["experts"]
        found["image"]["init_args"].pop("stage", None)
        experts.append(found)
        content.pop("output")
    assert experts[0] == experts[1] == experts[2]
    assert contents["early"] == contents["late"] == contents["cross_attention"]


def test_the_study_is_a_ladder_of_the_late_fusion():
    study = read_study(FOLDER / "study.yaml")
    members = read_members(study)
    assert list(members) == [
        *ALONE, "image+caption", "image+site", "image+weather", "caption+site", "caption+weather",
        "site+weather", "all", "early", "cross_attention",
    ]  # fmt: skip
    configs = {name: member.config for name, member in members.items()}
    assert require_agreement(configs, allowed=(), where="study") == []
    for name in ALONE:  # what a rung trains alone is what its own file trains
        own = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["model"]["init_args"]["model"]
        rung = configs[name]["model"]["init_args"]["model"]
        assert rung["class_path"].endswith(own["class_path"])
        assert own["init_args"].items() <= rung["init_args"].items()


@pytest.mark.slow
def test_the_ladder_is_trained(manifest, tmp_path, monkeypatch):
    content = yaml.safe_load((FOLDER / "study.yaml").read_text())
    content["ladder"]["fusion"] = str(FOLDER / "late.yaml")
    content["members"] = {}
    content["overlay"] = {
        "data": {"init_args": {"manifest": str(manifest)}},
        "trainer": {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1,
                    "accelerator": "cpu", "devices": 1},
    }  # fmt: skip
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    flags = ["--seeds", "0", "--output", str(tmp_path / "out")]
    chosen = ["--members", "image", "caption+weather", "all"]
    assert compare(["compare", "--config", str(file), *flags, *chosen]) == 0
    assert (tmp_path / "out" / "ladder.png").is_file()


def test_images_are_classified_by_prompts_after_contrastive_training(manifest, tmp_path):
    run_folder, found = tmp_path / "contrastive", tmp_path / "zero_shot"
    small = ["--data.batch_size", "16"]
    with without_pictures():
        cli = run(["fit", *flags("contrastive", manifest), *SHORT, *small,
                   "--output", str(run_folder)])  # fmt: skip
    assert cli.model.pairs == [("image", "caption")]
    zero_shot = [
        *flags("zero_shot", manifest), *QUICK[2:], "--output", str(found),
        "--model.model.checkpoint", str(run_folder / "best.ckpt"),
    ]  # fmt: skip
    with without_pictures():
        cli = run(["test", *zero_shot])
    assert len(cli.model.model.texts) == len(CLASSES)
    scores = json.loads((found / "test_metrics.json").read_text())
    assert 0 <= scores["test/overall_accuracy"] <= 1
    run(["predict", *zero_shot])
    answers = probabilities(table(found))
    assert set(answers) == set(CLASSES)
    np.testing.assert_allclose(np.stack(list(answers.values())).sum(axis=0), 1, atol=1e-4)
    assert (found / "predictions_similarity.png").is_file()
    # A run says in one file what it was made with, also where the data stood in another.
    saved = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert saved["data"]["init_args"]["manifest"] == str(manifest)
    assert not (run_folder / "data.yaml").exists()


def test_prompts_name_every_class():
    model = yaml.safe_load((FOLDER / "zero_shot.yaml").read_text())["model"]["init_args"]["model"]
    prompts, templates = (model["init_args"][name] for name in ("prompts", "templates"))
    assert set(prompts) == set(CLASSES)
    # What is asked for was never said in a caption word for word.
    said = {name for use in USES.values() for name in use.names}
    assert said.isdisjoint(text for texts in prompts.values() for text in texts)
    assert {lead.strip() for lead in LEADS}.isdisjoint(t.removesuffix(" {}") for t in templates)
