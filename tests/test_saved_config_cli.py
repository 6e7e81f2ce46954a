"""The `config.yaml` that a fit leaves, beside its checkpoint: each says what it knows, and no more.

Settings are the configuration's. What the model was trained on, and that the checkpoint holds its
weights, are facts, which the configuration of the fit could not know.
"""

import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from bigearthnet_runs import S1, S2, network, without_pictures
from bigearthnet_runs import config as patch_config
from cli_runs import fails, load
from cli_runs import scores as reported
from safetensors.torch import save_file

from fusionlab.cli import run
from fusionlab.cli_facts import FACTS, denied_facts, without_facts
from fusionlab.data import Flair2DataModule
from fusionlab.data.flair2.datamodule import MODALITIES
from fusionlab.types import IGNORE_INDEX, Batch, Schema

pytestmark = pytest.mark.slow

REVERSED = {name: list(reversed(modality.bands)) for name, modality in MODALITIES.items()}
BANDS = {"s1": S1, "s2": S2}


class LastClassFirst(Flair2DataModule):
    """FLAIR #2 as someone delivers it who lists its classes the other way round."""

    def __init__(self, **options):
        super().__init__(**options)
        told = self.schema.to_dict()
        for name in ("classes", "colors"):
            told[name] = told[name][::-1]
        self.schema = Schema.from_dict(told)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        target = batch["target"]
        last = self.schema.num_classes - 1
        return {**batch, "target": torch.where(target == IGNORE_INDEX, target, last - target)}


def scored(folder: Path, checkpoint: Path, output: Path, *flags: str) -> dict:
    """Scores of a run's best epoch, configured by what its fit saved."""
    with without_pictures():
        run(["test", "--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint),
             "--output", str(output), *flags])  # fmt: skip
    return reported(output)


def alone(checkpoint: Path, output: Path, settings: dict) -> dict:
    """Scores of a checkpoint on the same data, without a word of the model."""
    only_data = {"data": settings["data"], "trainer": settings["trainer"]}
    with without_pictures():
        run(["test", "--config", yaml.safe_dump(only_data), "--ckpt_path", str(checkpoint),
             "--output", str(output)])  # fmt: skip
    return reported(output)


def saved(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def with_nulls(part):
    """A configuration with every fact written down as unknown, as by hand or by another program."""
    if isinstance(part, list):
        return [with_nulls(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    part = {name: with_nulls(inner) for name, inner in part.items()}
    name = part.get("class_path", "").rpartition(".")[-1]
    unknown = {"FrozenExpert": {"expert": None, "trained_on": None, "sha256": None},
               "TimmExpert": {"restored": False},
               "SegmentationTask": {"trained_on": None},
               "ClassificationTask": {"trained_on": None}}  # fmt: skip
    return (
        {**part, "init_args": {**part["init_args"], **unknown[name]}} if name in unknown else part
    )


def names(part) -> set[str]:
    """All keys of a configuration, at any depth."""
    if isinstance(part, list):
        return set().union(*map(names, part))
    return set(part).union(*map(names, part.values())) if isinstance(part, dict) else set()


@pytest.fixture(params=["saved", "with nulls"])
def written(request, tmp_path):
    """Copies the configuration of a run, as it was saved or with its facts as nulls."""

    def copy(folder: Path) -> Path:
        new = tmp_path / "written"
        new.mkdir()
        content = saved(folder)
        if request.param == "with nulls":
            content = with_nulls(content)
            assert names(content) & set(FACTS)
        (new / "config.yaml").write_text(yaml.safe_dump(content))
        return new

    return copy


# ---- what is saved ---------------------------------------------------------------------------


def test_facts_are_not_saved_with_the_settings(runs, bigearthnet_runs):
    for folder in (runs / "aerial", runs / "fused", bigearthnet_runs / "joint"):
        assert not names(saved(folder)) & set(FACTS)
    expert = saved(runs / "fused")["model"]["init_args"]["model"]["init_args"]["experts"]["aerial"]
    checkpoint = str(runs / "aerial" / "best.ckpt")
    assert expert["init_args"] == {
        "checkpoint": checkpoint, "part": None, "strict": True, "evaluate": True, "stage": None,
        "stage_index": -1,
    }  # fmt: skip


def test_nor_are_those_of_a_restored_model(runs, tmp_path):
    scored(runs / "fused", runs / "fused" / "best.ckpt", tmp_path)
    content = yaml.safe_load((tmp_path / "test_config.yaml").read_text())
    assert not names(content["model"]) & set(FACTS)
    # It names the checkpoint, which says them again.
    run(["test", "--config", str(tmp_path / "test_config.yaml"), "--output", str(tmp_path / "b")])
    assert reported(tmp_path / "b") == reported(tmp_path)


def test_a_file_that_the_user_pins_stays_pinned():
    pinned = {"checkpoint": "a.ckpt", "sha256": "0f", "trained_on": None, "expert": None}
    assert without_facts(pinned) == {"checkpoint": "a.ckpt", "sha256": "0f"}
    stated = {**pinned, "trained_on": {"classes": []}}
    assert without_facts(stated) == {"checkpoint": "a.ckpt"}


# ---- the data's order does not matter ----------------------------------------------------------


CHANGES = pytest.mark.parametrize(
    ("change", "written"),
    [("bands", "saved"), ("classes", "saved"), ("both", "with nulls")],
    indirect=["written"],
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aerial", "fused"])
@CHANGES
def test_maps_from_data_in_another_order(runs, written, tmp_path, name, change):
    checkpoint = runs / name / "best.ckpt"
    expected = alone(checkpoint, tmp_path / "alone", saved(runs / name))
    assert expected["test/miou"] > 0
    chosen = {m: REVERSED[m] for m in saved(runs / name)["data"]["init_args"]["modalities"]}
    flags = {
        "bands": ["--data.bands", yaml.safe_dump(chosen, default_flow_style=True)],
        "classes": ["--data", "test_saved_config_cli.LastClassFirst"],
    }
    flags = flags.get(change) or flags["bands"] + flags["classes"]
    assert scored(written(runs / name), checkpoint, tmp_path / "b", *flags) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joint", "decisions"])
@CHANGES
def test_labels_from_data_in_another_order(bigearthnet_runs, written, tmp_path, name, change):
    checkpoint = bigearthnet_runs / name / "best.ckpt"
    settings = saved(bigearthnet_runs / name)
    expected = alone(checkpoint, tmp_path / "alone", settings)
    modalities = settings["data"]["init_args"]["modalities"] or BANDS
    chosen = {m: BANDS[m][::-1] for m in modalities}
    flags = {
        "bands": ["--data.modalities", yaml.safe_dump(chosen, default_flow_style=True)],
        "classes": ["--data.class_order", "paper"],
    }
    flags = flags.get(change) or flags["bands"] + flags["classes"]
    found = scored(written(bigearthnet_runs / name), checkpoint, tmp_path / "b", *flags)
    assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


# ---- a checkpoint stands alone -----------------------------------------------------------------


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_fusion_whose_experts_are_gone(runs, written, flair2_root, tmp_path, command):
    moved = shutil.copytree(runs / "fused", tmp_path / "fused")
    folder = written(moved)
    file = folder / "config.yaml"
    gone = file.read_text().replace(str(runs), str(tmp_path / "gone"))
    assert gone.count(str(tmp_path / "gone")) >= 2
    file.write_text(gone)
    run([command, "--config", str(file), "--ckpt_path", str(moved / "best.ckpt"),
         "--output", str(tmp_path / "b")])  # fmt: skip
    if command == "test":
        expected = alone(runs / "fused" / "best.ckpt", tmp_path / "a", saved(runs / "fused"))
        assert reported(tmp_path / "b") == expected


def test_a_frozen_backbone_whose_weights_file_is_gone(bigearthnet_root, written, tmp_path):
    weights = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    model = network(pretrained=str(weights), frozen=True)
    data = {"modalities": {"s2": S2}}
    file = patch_config(tmp_path / "frozen.yaml", bigearthnet_root, model, data=data)
    with without_pictures():
        run(["fit", "--config", file, "--output", str(tmp_path / "run")])
    folder, checkpoint = tmp_path / "run", tmp_path / "run" / "best.ckpt"
    expected = scored(folder, checkpoint, tmp_path / "a")
    weights.unlink()
    assert scored(written(folder), checkpoint, tmp_path / "b") == expected


# ---- settings are still the user's --------------------------------------------------------------


def test_settings_win_beside_facts(runs, written, tmp_path):
    cli = run([
        "test", "--config", str(written(runs / "fused") / "config.yaml"),
        "--ckpt_path", str(runs / "fused" / "best.ckpt"), "--output", str(tmp_path / "b"),
        "--model.model.experts.aerial.evaluate", "false", "--model.strip_frozen", "true",
    ])  # fmt: skip
    experts = cli.model.model.experts
    assert [experts[name].evaluate for name in ("aerial", "sentinel2")] == [False, True]
    assert cli.model.strip_frozen
    assert cli.model.data_schema == cli.datamodule.schema


def test_flags_do_not_take_facts_away_either(runs, tmp_path):
    checkpoint = runs / "fused" / "best.ckpt"
    expected = alone(checkpoint, tmp_path / "a", saved(runs / "fused"))
    expert = "--model.model.experts.aerial"
    flags = ["--model.trained_on", "null", f"{expert}.trained_on", "null", f"{expert}.sha256",
             "0f", f"{expert}.expert", "null", "--data.bands", str(REVERSED)]  # fmt: skip
    assert scored(runs / "fused", checkpoint, tmp_path / "b", *flags) == expected


def test_what_another_training_was_on_is_replaced_whole(runs, tmp_path):
    stale = load(runs / "fused" / "best.ckpt")["hyper_parameters"]["trained_on"]
    overlay = yaml.safe_dump({"model": {"init_args": {"trained_on": stale}}})
    checkpoint = runs / "aerial" / "best.ckpt"
    cli = run(["test", "--config", str(runs / "aerial" / "config.yaml"), "--config", overlay,
               "--ckpt_path", str(checkpoint), "--output", str(tmp_path)])  # fmt: skip
    assert cli.model.schema.to_dict() == load(checkpoint)["hyper_parameters"]["trained_on"]
    assert list(cli.model.schema.modalities) == ["aerial"]


def test_another_file_for_an_expert_of_the_checkpoint_is_refused(runs, tmp_path):
    file, checkpoint = (str(runs / "fused" / name) for name in ("config.yaml", "best.ckpt"))
    args = ["test", "--config", file, "--ckpt_path", checkpoint, "--output", str(tmp_path)]
    flag = "--model.model.experts.aerial.checkpoint"
    other = str(runs / "aerial" / "last.ckpt")
    says = (
        rf"^model\.model\.experts\.aerial\.checkpoint: {other} is not the file .*SHA-256.*"
        rf"{checkpoint} holds.*{flag} null.*train the fusion anew"
    )
    fails([*args, flag, other], says)
    overlay = {"experts": {"aerial": {"init_args": {"checkpoint": other}}}}
    overlay = {"model": {"init_args": {"model": {"init_args": overlay}}}}
    fails([*args, "--config", yaml.safe_dump(overlay)], says)
    # The same weights under another name are the same, and null names none.
    same = shutil.copy(runs / "aerial" / "best.ckpt", tmp_path / "same.ckpt")
    for value in (str(same), "null"):
        run([*args, flag, value])


# ---- the rule by itself --------------------------------------------------------------------------


def test_only_what_is_denied_is_put_right():
    inner = {"class_path": "E", "init_args": {"restored": True, "width": 4}}
    arguments = {"trained_on": {"a": 1}, "sha256": "0f", "expert": inner, "strict": True}
    stated = {"experts": {"x.y": {"init_args": arguments}, "z": {"init_args": arguments}}}
    said = {"experts": {"x.y": {"init_args": {**arguments, "strict": False}},
                        "z": {"init_args": {**arguments, "expert": None, "trained_on": None}},
                        "new": {"init_args": {"trained_on": None}}}}  # fmt: skip
    put_right = {"expert": inner, "trained_on": {"a": 1}}
    assert denied_facts(said, stated) == {"experts": {"z": {"init_args": put_right}}}
    wide = {"class_path": "E", "init_args": {"restored": False, "width": 8}}
    said = {"experts": {"z": {"init_args": {**arguments, "expert": wide}}}}
    found = denied_facts(said, stated)["experts"]["z"]["init_args"]
    assert found == {"expert": {"init_args": {"restored": True}}}
    assert denied_facts(stated, stated) == {}
    # A class that takes no such argument is not given one.
    assert denied_facts({"experts": {"z": {"init_args": {"width": 3}}}}, stated) == {}
