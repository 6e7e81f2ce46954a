"""Study files in configs/: all members are read and comparable, and what is unusual is run."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from bigearthnet_runs import without_pictures

from fusionlab import fusion
from fusionlab.cli import run
from fusionlab.cli_compare import compare
from fusionlab.fusion import features
from fusionlab.study.agreement import require_agreement
from fusionlab.study.members import Member, read_members, runs_of
from fusionlab.study.study_file import Study, read_study

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
STUDIES = sorted(CONFIGS.rglob("study.yaml"))
SMALL = [
    "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1",
    "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1",
    "--trainer.enable_progress_bar", "false", "--data.batch_size", "2",
]  # fmt: skip


@cache
def read(file: Path) -> tuple[Study, dict[str, Member]]:
    study = read_study(file)
    return study, read_members(study)


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.parent.name)
def test_members_are_read_and_comparable(file):
    study, members = read(file)
    named = [name for name, member in members.items() if not member.rung]
    assert named == list(study.members)
    assert len(members) > len(named) or study.ladder is None
    configs = {name: member.config for name, member in members.items()}
    remarks = require_agreement(configs, allowed=study.allow_differences, where=str(file))
    alike = file.parent.name in ("rgb_lidar", "geo_multimodal")
    assert any("Not identical" in remark for remark in remarks) != alike
    runs = runs_of(members, study, study.seeds)
    assert len({run.digest for run in runs}) == len(runs)
    assert not [run for run in runs if "{runs}" in str(run.config) or "{study}" in str(run.config)]


OPERATORS = {
    name
    for name in features.__all__
    if name not in ("FeatureOperator", "FeatureOperatorFactory", "FusedFeatures", "TokenOperator")
}


@pytest.mark.parametrize(
    ("folder", "alone"),
    [
        ("demo/flair2", {"aerial", "sentinel2", "aerial_unet", "sentinel2_utae"}),
        ("demo/bigearthnet", {"s1", "s2"}),
    ],
)
def test_the_demos_have_every_operator(folder, alone):
    _, members = read(CONFIGS / folder / "study.yaml")
    assert {name for name, member in members.items() if not member.needs} == alone
    found: dict[str, set[str]] = {}
    for name, member in members.items():
        model = member.config["model"]["init_args"]["model"]
        if name in alone:
            continue
        kind = model["class_path"].rpartition(".")[-1]
        operator = model["init_args"]["fusion"]["class_path"].rpartition(".")[-1]
        found.setdefault(kind, set()).add(operator)
        assert model["init_args"]["cache"] == "{study}/cache"
        assert len(member.needs) == 2
    # The matrix product answers for no pixel, and of vectors it is Hadamard's; attention between
    # tokens answers for no pixel either, and is in the study of images with texts.
    assert found["FeatureFusion"] == OPERATORS - {"MatMul", "CrossAttention"}
    assert found["LateFusion"] == {
        name
        for name, found in vars(fusion).items()
        if isinstance(found, type)
        and issubclass(found, fusion.Fusion)
        and found is not fusion.Fusion
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "members"),
    [
        ("flair2", ["decisions_gated_cloud", "features_concat"]),
        ("bigearthnet", ["decisions_fixed_weighted", "embeddings_concat"]),
    ],
)
def test_the_demos_are_compared(data, members, request, tmp_path, capfd):
    """The command itself: experts, then fusions of them, tests and the report."""
    root = request.getfixturevalue(f"{data}_root")
    file = CONFIGS / "demo" / data / "study.yaml"
    content = yaml.safe_load(file.read_text())
    overlay = content["overlay"]
    lmdb = {"lmdb": str(root / "lmdb")} if data == "bigearthnet" else {}
    given = overlay.get("data", {}).get("init_args", {})
    overlay["data"] = {"init_args": {**given, "root": str(root), "batch_size": 2, **lmdb}}
    overlay["trainer"] |= {
        "accelerator": "cpu", "devices": 1, "max_epochs": 1,
        "limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1,
    }  # fmt: skip

    def absolute(part):
        if isinstance(part, list):
            return [absolute(inner) for inner in part]
        return str((file.parent / part).resolve()) if isinstance(part, str) else part

    content["members"] = {name: absolute(parts) for name, parts in content["members"].items()}
    written = tmp_path / "study.yaml"
    written.write_text(yaml.safe_dump(content | {"output": str(tmp_path / "study")}))
    assert compare(["compare", "--config", str(written), "--members", *members]) == 0
    table = (tmp_path / "study" / "comparison.md").read_text()
    alone = {"flair2": {"aerial", "sentinel2", "aerial\\_unet", "sentinel2\\_utae"},
             "bigearthnet": {"s1", "s2"}}[data]  # fmt: skip
    for member in (*(name.replace("_", "\\_") for name in members), *alone):
        assert f"| {member} |" in table.replace("**", "")
    assert (tmp_path / "study" / "report.html").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("data", ["flair2", "bigearthnet"])
def test_fusions_of_the_demos_run(data, request, tmp_path):
    root = request.getfixturevalue(f"{data}_root")
    study, members = read(CONFIGS / "demo" / data / "study.yaml")
    study = replace(study, output=tmp_path)
    flags = [*SMALL, "--data.root", str(root)]
    flags += ["--data.lmdb", str(root / "lmdb")] if data == "bigearthnet" else []
    for planned in runs_of(members, study, [0]):
        config = yaml.safe_dump(planned.config, sort_keys=False)
        last = ["--trainer.fast_dev_run", "true"] if planned.needs else []
        with without_pictures():
            cli = run(["fit", "--config", config, *flags, *last])
        scores = cli.trainer.callback_metrics
        assert scores["val/loss"].isfinite(), planned.member
