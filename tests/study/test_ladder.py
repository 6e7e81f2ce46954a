"""The modality ladder: members derived from a fusion, and what a report says of them."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from finished_runs import finished
from matplotlib.figure import Figure
from study_runs import write_study

from fusionlab.cli_compare import compare
from fusionlab.errors import InputError
from fusionlab.plots import ladder_chart
from fusionlab.study.collected import StudyRecord, read_study_record, write_study_record
from fusionlab.study.gains import gains, gains_table
from fusionlab.study.ladder import experts_of, reduced, rungs
from fusionlab.study.members import read_members
from fusionlab.study.report import write_report
from fusionlab.study.study_file import read_study
from fusionlab.study.table import compare as compare_runs

FOUR = ("image", "caption", "site", "weather")


def test_rungs_from_few_to_many():
    found = rungs(FOUR, ["all", "alone", "pairs"])
    assert list(found) == [
        *FOUR, "image+caption", "image+site", "image+weather", "caption+site", "caption+weather",
        "site+weather", "all",
    ]  # fmt: skip
    assert found["caption+weather"] == ("caption", "weather")
    assert found["all"] == FOUR
    assert list(rungs(FOUR, ["all_but_one"])) == [
        "image+caption+site", "image+caption+weather", "image+site+weather", "caption+site+weather"
    ]  # fmt: skip
    # Of two, a pair is all of them, and all but one is one alone.
    assert list(rungs("ab", ["alone", "pairs", "all_but_one", "all"])) == ["a", "b", "all"]


# ---- what is left of a fusion -------------------------------------------------------------------


def fused(**changes) -> dict:
    experts = {
        name: {"class_path": "small.Expert", "init_args": {"width": i}}
        for i, name in enumerate(FOUR)
    }
    return {
        "model": {
            "class_path": "fusionlab.tasks.ClassificationTask",
            "init_args": {
                "model": {
                    "class_path": "fusionlab.models.LateFusion",
                    "init_args": {"experts": experts, "reference": "image", **changes},
                },
                "parameter_groups": {
                    "experts.image.*": {"lr": 0.1},
                    "experts.site.encoder.*": {"lr": 0.2},
                    "fusion.*": {"lr": 0.3},
                },
            },
        },
        "data": {
            "class_path": "D",
            "init_args": {"modality_dropout": {"image": 0.1, "caption": 0.2, "site": 0.3}},
        },
    }


def model_of(config: dict) -> dict:
    return config["model"]["init_args"]["model"]


def test_a_pair_keeps_two_experts_and_what_is_said_of_them():
    whole = fused(fusion={"class_path": "F", "init_args": {"weights": dict.fromkeys(FOUR, 0.25)}})
    before = copy.deepcopy(whole)
    config = reduced(whole, ("caption", "site"), where="w")
    assert whole == before  # which other rungs are derived from, too
    arguments = model_of(config)["init_args"]
    assert list(arguments["experts"]) == ["caption", "site"]
    assert arguments["experts"]["site"] == model_of(whole)["init_args"]["experts"]["site"]
    assert arguments["reference"] is None
    assert arguments["fusion"]["init_args"]["weights"] == {"caption": 0.25, "site": 0.25}
    groups = config["model"]["init_args"]["parameter_groups"]
    assert list(groups) == ["experts.site.encoder.*", "fusion.*"]
    assert config["data"]["init_args"]["modality_dropout"] == {"caption": 0.2, "site": 0.3}
    other = reduced(whole, ("image", "weather"), where="w")
    assert model_of(other)["init_args"]["reference"] == "image"


def test_one_alone_becomes_the_model():
    whole = fused()
    model_of(whole)["init_args"]["experts"]["site"]["init_args"]["modality"] = "table"
    config = reduced(whole, ("site",), where="w")
    arguments = {"width": 2, "modality": "table"}
    assert model_of(config) == {"class_path": "small.Expert", "init_args": arguments}
    assert config["model"]["init_args"]["parameter_groups"] == {"encoder.*": {"lr": 0.2}}
    assert config["data"]["init_args"]["modality_dropout"] is None
    assert model_of(reduced(whole, ("image",), where="w"))["init_args"]["modality"] == "image"


def test_all_is_the_fusion_itself():
    assert reduced(fused(), FOUR, where="w") == fused()


def test_a_fusion_that_names_one_it_loses_is_refused():
    whole = fused(fusion={"class_path": "FiLM", "init_args": {"condition": "site"}})
    reduced(whole, ("image", "site"), where="w")
    with pytest.raises(InputError, match=r"w: fusion\.init_args\.condition is 'site', which this"):
        reduced(whole, ("image", "weather"), where="w")


@pytest.mark.parametrize("name", ["all", "a+b", "a/b", "-a"])
def test_names_that_no_member_can_have(name):
    experts = {key: {"class_path": "small.Expert"} for key in (name, "site")}
    with pytest.raises(InputError, match=r"cannot be part of a member's name"):
        experts_of(fused(experts=experts), where="w")


def test_a_frozen_expert_cannot_stand_alone():
    whole = fused()
    experts = model_of(whole)["init_args"]["experts"]
    experts["image"] = {"class_path": "fusionlab.experts.FrozenExpert", "init_args": {}}
    reduced(whole, ("image", "site"), where="w")
    with pytest.raises(InputError, match=r"'image' is a FrozenExpert and has nothing to train"):
        reduced(whole, ("image",), where="w")


# ---- study files --------------------------------------------------------------------------------


def ladder_study(folder: Path, root: Path, **changes) -> Path:
    """The tiny study with a ladder of its two experts, trained together."""
    file = write_study(folder, root, members=changes.pop("members", None), **changes)
    late = yaml.safe_load((folder / "late.yaml").read_text())
    late["model"]["init_args"]["model"]["init_args"]["experts"] = {
        name: yaml.safe_load((folder / f"{name}.yaml").read_text())["model"]["init_args"]["model"]
        for name in ("aerial", "sentinel2")
    }
    (folder / "late.yaml").write_text(yaml.safe_dump(late))
    return file


def test_members_of_a_ladder_are_read_as_others_are(tmp_path, flair2_root):
    file = ladder_study(tmp_path, flair2_root, ladder={"fusion": "late.yaml"})
    members = read_members(read_study(file))
    assert {name: member.rung for name, member in members.items()} == {
        "aerial": ("aerial",), "sentinel2": ("sentinel2",), "all": ("aerial", "sentinel2"),
    }  # fmt: skip
    alone = members["sentinel2"].config
    model = alone["model"]["init_args"]["model"]
    assert model["class_path"] == "small_models.PixelExpert"
    assert model["init_args"]["modality"] == "sentinel2"
    assert alone["trainer"]["max_epochs"] == 2  # of the study's overlay
    assert alone["output"] == alone["checkpoint"]["dirpath"] == "{runs}/sentinel2"
    fusion = members["all"].config["model"]["init_args"]["model"]
    assert fusion["class_path"] == "fusionlab.models.LateFusion"


def test_a_member_takes_the_place_of_a_rung(tmp_path, flair2_root):
    other = {"model": {"init_args": {"model": {"init_args": {"width": 4}}}}}
    file = ladder_study(
        tmp_path, flair2_root, ladder={"fusion": ["late.yaml"], "rungs": ["all"]},
        members={"again": ["late.yaml"], "aerial": ["aerial.yaml", other]},
    )  # fmt: skip
    members = read_members(read_study(file))
    assert list(members) == ["aerial", "all", "again"]
    assert members["aerial"].rung == ("aerial",)
    assert members["again"].rung == ()
    assert members["aerial"].config["model"]["init_args"]["model"]["init_args"]["width"] == 4


MISTAKES = {
    "[late.yaml]": r"ladder: expected the configuration of a fusion .* got a list",
    "{rungs: [all]}": r"ladder: expected the configuration of a fusion",
    "{fusion: late.yaml, rung: [all]}": r"no setting 'rung'\. Did you mean rungs\?",
    "{fusion: late.yaml, rungs: [pair]}": r"ladder\.rungs: no rungs 'pair'\. Did you mean pairs",
    "{fusion: late.yaml, rungs: []}": r"ladder\.rungs: name one or more of alone, pairs",
    "{fusion: lat.yaml}": r"ladder\.fusion: \S+lat\.yaml does not exist\. Did you mean late\.yaml",
    "{fusion: []}": r"ladder\.fusion names no configuration",
    "{fusion: aerial.yaml}": r"ladder\.fusion: .*two or more `experts:`.* the model is PixelExp",
}


def test_a_contrastive_model_is_no_ladder():
    config = fused()
    config["model"]["init_args"]["model"]["class_path"] = "fusionlab.models.ContrastiveModel"
    with pytest.raises(InputError, match=r"LateFusion or FeatureFusion, but .* ContrastiveModel"):
        experts_of(config, where="ladder")


@pytest.mark.parametrize(("ladder", "says"), MISTAKES.items())
def test_mistakes_are_named(ladder, says, tmp_path, flair2_root):
    file = ladder_study(tmp_path, flair2_root, ladder=yaml.safe_load(ladder))
    with pytest.raises(InputError, match=says) as caught:
        read_members(read_study(file))
    assert str(file) in str(caught.value)


@pytest.mark.slow
def test_a_ladder_is_trained_and_reported(tmp_path, flair2_root, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])  # the experts are in its small_models
    file = ladder_study(tmp_path, flair2_root, ladder={"fusion": "late.yaml"}, seeds=[0, 1])
    assert compare(["compare", "--config", str(file)]) == 0
    assert "What each modality adds" in capsys.readouterr().out
    out = tmp_path / "out"
    content = json.loads((out / "comparison.json").read_text())
    assert [gain["modality"] for gain in content["gains"]] == ["aerial", "sentinel2"]
    assert (out / "ladder.png").is_file()
    # The report once more knows the ladder without the study file.
    (out / "ladder.png").unlink()
    assert compare(["compare", str(out)]) == 0
    assert (out / "ladder.png").is_file()
    assert "What each modality adds" in (out / "comparison.md").read_text()


# ---- what each modality adds --------------------------------------------------------------------


SCORES = {
    "image": (0.5, 0.6), "site": (0.3, 0.4), "weather": (0.2, 0.2),
    "image+site": (0.7, 0.7), "image+weather": (0.6, 0.6), "site+weather": (0.4, 0.6),
    "all": (0.9, 0.9),
}  # fmt: skip
RUNGS = {
    name: ["image", "site", "weather"] if name == "all" else name.split("+") for name in SCORES
}


@pytest.fixture(scope="module")
def comparison():
    runs = [
        finished(name, seed, {"miou": score})
        for name, scores in {**SCORES, "attention": (0.95, 0.85)}.items()
        for seed, score in enumerate(scores)
    ]
    return compare_runs(runs, "test/miou", RUNGS)


def test_gains_are_means_over_members_that_differ_in_one_modality(comparison):
    image, site, weather = gains(comparison)
    assert image.alone.mean == pytest.approx(0.55)
    # Seed 0: to site + 0.4, to weather + 0.4; seed 1: + 0.3, + 0.4.
    assert image.added[1].mean == pytest.approx((0.4 + 0.35) / 2)
    assert image.added[1].std == pytest.approx(0.05 / np.sqrt(2))
    assert image.added[2].mean == pytest.approx((0.5 + 0.3) / 2)
    assert weather.added[1].mean == pytest.approx((0.1 + 0.1 + 0.0 + 0.2) / 4)
    assert site.added[2].mean == pytest.approx(0.3)
    head, *rows = gains_table(comparison)
    assert head == ["modality", "alone: mIoU, %", "added to one other (points)",
                    "added to all others (points)"]  # fmt: skip
    assert rows[0][0] == "image"
    assert rows[0][2] == "+37.50 ± 3.54"


def test_seeds_that_are_not_there_are_left_out():
    values = {"image": {0: 0.5, 1: 0.9}, "site": {0: 0.1}, "all": {0: 0.8}}
    runs = [
        finished(name, seed, {"miou": score})
        for name, by_seed in values.items()
        for seed, score in by_seed.items()
    ]
    of = {"image": ["image"], "site": ["site"], "all": ["image", "site"]}
    image, site = gains(compare_runs(runs, "test/miou", of))
    assert site.added[1].mean == pytest.approx(0.3)
    assert image.added[1].n == 1


def test_the_report_shows_the_ladder_and_what_is_taken_for_what(tmp_path):
    runs = [
        finished(name, seed, {"miou": score}, folder=tmp_path / f"seed_{seed}" / name)
        for name, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]
    drawn = tmp_path / "seed_0" / "image" / "test_confusion.png"
    drawn.parent.mkdir(parents=True)
    figure = Figure(figsize=(2, 1))
    figure.savefig(drawn)
    report = write_report(runs, tmp_path / "report", title="t", rungs=RUNGS)
    page = report.files["html"].read_text()
    assert 'id="figure-ladder"' in page
    assert "added to all others (points)" in page
    assert page.count('id="confusion-') == 1
    assert 'id="confusion-image"' in page
    assert report.files["ladder"].read_bytes().startswith(b"\x89PNG")
    assert "| image | 55.00 ± 7.07 | +37.50 ± 3.54 |" in report.files["markdown"].read_text()
    gain = json.loads(report.files["json"].read_text())["gains"][0]
    assert gain["modality"] == "image"
    assert gain["added"]["1"]["mean"] == pytest.approx(0.375)
    plain = write_report(runs, tmp_path / "report", title="t")
    assert not (tmp_path / "report" / "ladder.png").exists()
    assert 'id="ladder"' not in plain.files["html"].read_text()


def test_a_study_without_a_ladder_says_nothing_of_it(comparison):
    runs = [run for group in comparison.runs.values() for run in group]
    plain = compare_runs(runs, "test/miou")
    assert gains(plain) == []
    assert gains_table(plain) == []


def test_records_of_before_are_read(tmp_path):
    record = StudyRecord("t", ["a"], [0], None, [], {"a": ["image"]})
    write_study_record(tmp_path, record)
    assert read_study_record(tmp_path) == record
    old = json.loads((tmp_path / "study.json").read_text())
    del old["rungs"]
    (tmp_path / "study.json").write_text(json.dumps(old))
    assert read_study_record(tmp_path).rungs == {}


def test_the_chart_marks_the_modalities_of_each_rung(comparison):
    scores = {name: [100 * value for value in SCORES[name]] for name in reversed(SCORES)}
    chart = ladder_chart(
        {name: (RUNGS[name], scores[name]) for name in scores}, ["image", "site", "weather"],
        x_label="mIoU, %", others={"attention": [95.0]},
    )  # fmt: skip
    dots, bars = chart.axes
    marked = [list(line.get_xdata()) for line in dots.lines if line.get_color() == "#333333"]
    assert [len(found) for found in marked] == [1, 1, 1, 2, 2, 2, 3, 3]  # few to many
    widths = [patch.get_width() for patch in bars.patches]
    assert widths[-2:] == [pytest.approx(90.0), pytest.approx(95.0)]
    with pytest.raises(InputError, match="no rung of the ladder has any"):
        ladder_chart({"image": (["image"], [])}, ["image"], x_label="x")
