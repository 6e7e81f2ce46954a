"""Mistakes on the command line: what is said of them."""

from pathlib import Path

import pytest
import torch
from cli_runs import command, config, fails, load, pixel_expert

from fusionlab.cli import run
from fusionlab.errors import InputError


def test_the_command_prints_one_message_and_status_2(tmp_path):
    done = command(
        "fit", "--config", str(Path("../configs/demo/flair2/aerial.yaml")),
        "--data.root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"),
        "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fusionlab: error:")
    assert "nowhere" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_architecture(runs, flair2_root, tmp_path):
    file = config(
        tmp_path / "other.yaml", flair2_root,
        {"class_path": "FrozenExpert", "init_args": {
            "checkpoint": str(runs / "aerial" / "best.ckpt"), "expert": pixel_expert(width=3),
        }}, modalities=["aerial"],
    )  # fmt: skip
    fails(["test", "--config", file, "--output", str(tmp_path)], "another architecture")


def test_a_restored_checkpoint_of_another_architecture(runs, tmp_path):
    fails(
        ["test", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path),
         "--ckpt_path", str(runs / "aerial" / "best.ckpt"), "--model.model.width", "3"],
        "another architecture",
    )  # fmt: skip


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_checkpoint_with_pickled_code(runs, tmp_path, capsys):
    content = load(runs / "aerial" / "best.ckpt")
    torch.save({**content, "extra": Evil()}, tmp_path / "evil.ckpt")
    fails(
        ["test", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path / "out"),
         "--ckpt_path", str(tmp_path / "evil.ckpt")],
        "could run code",
    )  # fmt: skip
    assert "never" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_there(runs, tmp_path):
    fails(
        ["test", "--config", str(runs / "aerial.yaml"), "--ckpt_path", str(tmp_path / "x.ckpt")],
        "does not exist",
    )


@pytest.mark.parametrize(
    ("old", "new", "flags", "says"),
    [
        ("class_path: ClassWeighted", "class_path: ClasWeighted", [],
         "model.model.fusion: no class 'ClasWeighted'. Did you mean ClassWeighted"),
        ("checkpoint:", "chekpoint:", [],
         "model.model.experts: no option 'chekpoint'. Did you mean checkpoint?"),
        ("batch_size:", "batchsize:", [], "data: no option 'batchsize'. Did you mean batch_size?"),
        ("max_epochs:", "max_epoch:", [], "trainer: no option 'max_epoch'. Did you mean max_epoch"),
        ("model:\n  class", "modle:\n  class", [], "no option 'modle'. Did you mean model?"),
        ("class_path: FrozenExpert", "class_path: small_models.PixlExpert", [],
         "no class 'PixlExpert' in small_models. Did you mean PixelExpert"),
        ("class_path: FrozenExpert", "class_path: smal_models.PixelExpert", [],
         "no module 'smal_models'"),
        ("", "", ["--data.bathc_size", "3"], "data: no option 'bathc_size'. Did you mean batch_s"),
        ("", "", ["--confg", "x.yaml"], "no option --confg. Did you mean --config"),
        ("", "", ["--trainer.max_epoch", "3"], "--trainer.max_epoch. Did you mean --trainer.max_"),
        ("", "", ["--model.model.fusion", "ClasWeighted"], "Did you mean ClassWeighted"),
        ("", "", ["--model.model.fusion", "fusionlab.losses.Dice"], "of another kind. Known: Att"),
        ("", "", ["--model.loss", "WeightedSum"], "model.loss: missing: terms."),
        ("", "", ["--trainer.max_epochs", "ten"], "trainer.max_epochs: expected int or null, got"),
        ("", "", ["--trainer.precision", "17"], "trainer.precision: Expected"),
        ("", "", ["--config", "nowhere.yaml"], "--config: nowhere.yaml does not exist."),
        ("trainer:", "trainer: [", [], "is not YAML"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_misspelling_is_answered_in_three_lines(runs, tmp_path, old, new, flags, says):
    text = (runs / "fusion.yaml").read_text()
    assert old in text
    file = tmp_path / "misspelt.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as raised:
        run(["fit", "--config", str(file), "--output", str(tmp_path / "out"), *flags])
    message = str(raised.value)
    assert says in message
    assert len(message.splitlines()) <= 3
    assert len(message) < 600


def test_a_misspelt_flag_alone():
    fails(["fit", "--confg", "x.yaml"], "--confg. Did you mean --config")
    done = command("fit", "--confg", "x.yaml")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_command_without_a_model(tmp_path):
    fails(["predict", "--data.rasters.aerial", "x.tif"], r"predict` needs a model.*--ckpt_path")


def test_bands_that_the_data_do_not_have(runs, flair2_root, tmp_path):
    file = config(
        tmp_path / "bands.yaml", flair2_root, pixel_expert(bands=["red", "swir"]),
        modalities=["aerial"],
    )  # fmt: skip
    fails(["fit", "--config", file, "--output", str(tmp_path / "out")], "swir.*'nir', 'height'")
    assert not (tmp_path / "out").exists()


def test_class_counts_that_differ(runs, tmp_path):
    fails(
        ["test", "--config", str(runs / "fusion.yaml"), "--data.classes", "19",
         "--output", str(tmp_path / "out")],
        "trained on 13 classes, the data have 19",
    )  # fmt: skip


def test_an_unknown_class_in_the_fusion_weights(runs, tmp_path):
    fails(
        ["fit", "--config", str(runs / "fusion.yaml"), "--output", str(tmp_path / "out"),
         "--model.model.fusion.init_class_weights", '{"vinyard": [0.2, 0.8]}'],
        "Unknown class 'vinyard'.*vineyard",
    )  # fmt: skip


def test_an_empty_split(runs, tmp_path):
    fails(
        ["fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path / "out"),
         "--data.val_domains", "[]"],
        "'val' is empty",
    )  # fmt: skip
