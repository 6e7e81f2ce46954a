"""Study files: what they say, and what is wrong with them."""

import time
from pathlib import Path

import pytest
import yaml
from study_runs import write_study

from fusionlab.errors import InputError
from fusionlab.study.placeholders import filled, replaced, restored, tokenised, used_members
from fusionlab.study.study_file import read_study


def study(folder: Path, text: str) -> Path:
    for name in ("base.yaml", "early.yaml"):
        (folder / name).write_text("trainer: {}\n")
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def test_what_a_study_file_says(tmp_path):
    found = read_study(study(tmp_path, """
        title: Shapes
        output: runs/shapes
        seeds: [3, 1]
        members:
          rgb: early.yaml
          early: &early [base.yaml, early.yaml]
          wide: [*early, {model: {init_args: {width: 8}}}]
        overlay: {trainer: {max_epochs: 5}}
        allow_differences: data.init_args.augment
        score: test/accuracy
    """))  # fmt: skip
    base, early = tmp_path / "base.yaml", tmp_path / "early.yaml"
    assert found.members == {
        "rgb": (early,),
        "early": (base, early),
        "wide": (base, early, {"model": {"init_args": {"width": 8}}}),
    }
    assert list(found.members) == ["rgb", "early", "wide"]
    assert (found.title, found.output, found.seeds) == ("Shapes", Path("runs/shapes"), (3, 1))
    assert found.overlay == {"trainer": {"max_epochs": 5}}
    assert (found.allow_differences, found.score) == (("data.init_args.augment",), "test/accuracy")
    other = read_study(tmp_path / "study.yaml", output=tmp_path, seeds=[7])
    assert (other.output, other.seeds) == (tmp_path, (7,))


def test_what_need_not_be_said(tmp_path):
    folder = tmp_path / "rgb_lidar"
    folder.mkdir()
    found = read_study(study(folder, "{output: out, members: {a: base.yaml}}"))
    assert (found.title, found.seeds, found.overlay) == ("rgb lidar", (0,), {})
    assert (found.allow_differences, found.score) == ((), None)


MISTAKES = {
    "output: o\nmembres: {a: base.yaml}": r"no setting 'membres'. Did you mean members\?",
    "members: {a: base.yaml}": r"missing `output:`",
    "output: o": r"missing `members:`",
    "output: o\nmembers: [base.yaml]": r"members: expected a name for each.*got a list",
    "output: o\nmembers: {a: []}": r"members\.a names no configuration",
    "output: o\nmembers: {a: erly.yaml}": r"members\.a: \S+erly\.yaml does not exist\. "
    r"Did you mean early\.yaml",
    "output: o\nmembers: {a: [3]}": r"members\.a: expected files or settings, got 3",
    "output: o\nmembers: {a/b: base.yaml}": r"'a/b' cannot be the name of a member",
    "output: o\nmembers: {.a: base.yaml}": r"'\.a' cannot be the name",
    "output: o\nmembers: {1: base.yaml}": r"1 cannot be the name",
    "output: o\nseeds: 3\nmembers: {a: base.yaml}": r"seeds: expected a list .* got 3",
    "output: o\nseeds: [0, 0]\nmembers: {a: base.yaml}": r"different whole numbers",
    "output: o\nseeds: [true]\nmembers: {a: base.yaml}": r"different whole numbers",
    "output: o\nseeds: []\nmembers: {a: base.yaml}": r"different whole numbers",
    "output: 3\nmembers: {a: base.yaml}": r"output: expected text, got 3",
    "output: o\noverlay: x.yaml\nmembers: {a: base.yaml}": r"overlay: expected settings",
    "output: o\nallow_differences: {a: 1}\nmembers: {a: base.yaml}": r"expected a list of keys",
    "output: o\ntrackers: csv\nmembers: {a: base.yaml}": r"trackers: expected a list of loggers",
    "output: [": r"is not YAML",
    "- a": r"expected settings of a study, got a list",
    "model: {}\noutput: o": r"configures one run, not a study: .*fusionlab fit --config",
}


@pytest.mark.parametrize(("text", "says"), MISTAKES.items())
def test_what_is_wrong_is_named(tmp_path, text, says):
    with pytest.raises(InputError, match=says) as caught:
        read_study(study(tmp_path, text))
    assert str(tmp_path / "study.yaml") in str(caught.value)


def test_a_study_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"--config: .*gone\.yaml does not exist"):
        read_study(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="is a folder; expected a study file"):
        read_study(tmp_path)


# ---- placeholders -------------------------------------------------------------------------------


def test_placeholders_are_filled_in_everywhere():
    part = {"a": ["{runs}/x/best.ckpt", 3, None], "b": {"c": "{study}/cache"}, "d": "{output}"}
    assert filled(part, runs=Path("r"), study=Path("s")) == {
        "a": ["r/x/best.ckpt", 3, None], "b": {"c": "s/cache"}, "d": "{output}",
    }  # fmt: skip
    assert restored(yaml.safe_load(yaml.safe_dump(tokenised(part)))) == part
    assert replaced("abc", {"b": "{runs}"}) == "a{runs}c"


def test_whose_runs_are_used():
    part = {"model": {"x": ["{runs}/aerial/best.ckpt", "{study}/cache"], "y": "{runs}/s2"}}
    assert used_members(part) == {"aerial": "model.x[0]", "s2": "model.y"}
    assert used_members({"filename": "{epoch}-{val/loss}", "logger": "{output}"}) == {}
    with pytest.raises(InputError, match=r"model\.x: .* has a \{run\}\. Did you mean \{runs\}\?"):
        used_members({"model": {"x": "{run}/aerial/best.ckpt"}})
    with pytest.raises(InputError, match=r"cache: \{runs\} names no member"):
        used_members({"cache": "{runs}"})


def test_mistakes_are_found_without_what_training_needs(tmp_path, monkeypatch, capsys):
    from fusionlab.cli_compare import compare

    file = write_study(tmp_path, tmp_path, seeds=[0, 0])
    begin = time.perf_counter()
    assert compare(["compare", "--config", str(file)]) == 2
    assert time.perf_counter() - begin < 1
    said = capsys.readouterr().err
    assert said.startswith(f"fusionlab: error: {file}: seeds:")
    assert said.count("\n") <= 3
