"""The demonstrations choose by validation, and fail where a fusion shows too little."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("demonstration", "demo_bigearthnet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("demo_bigearthnet")


def results(demo, *, test=90.0, without=(70.0, 60.0), seed=0, others=99.0):
    """Experts of 60 (s1) and 70 (s2); per level, a fusion to choose and a better-looking one."""

    def row(model, ap, val, lost=()):
        return demo.Result(
            model, seed, ap_macro=ap, ap_micro=ap, f1_macro=ap, val_ap_macro=val,
            without=dict(zip(demo.EXPERTS, lost, strict=False)), trained_parameters=1, seconds=1.0,
        )  # fmt: skip

    return [
        row("s1", 60.0, 99.0),
        row("s2", 70.0, 99.0),
        row("decisions gated", others, 80.0, (0.0, 0.0)),
        row("decisions concat", test, 81.0, without),
        row("embeddings weighted", test, 83.0, without),
        row("embeddings attention", others, 82.0, (0.0, 0.0)),
    ]


def failures(demo, found):
    return [failure for gain in demo.gains(found) for failure in gain.failures]


def test_chosen_by_validation_although_another_is_better_on_test(demo):
    found = demo.gains(results(demo, test=80.0))
    assert [gain.model for gain in found] == ["decisions concat", "embeddings weighted"]
    assert all(gain.over_expert == 10.0 for gain in found)
    assert all(gain.without == {"s1": 0.0, "s2": 0.0} for gain in found)


def test_every_seed_chooses_its_own(demo):
    second = results(demo, seed=1, test=76.0)
    second[2].val_ap_macro, second[2].without = 90.0, {"s1": 71.0, "s2": 59.0}
    found = demo.gains([*results(demo), *second])
    assert [(gain.seed, gain.model) for gain in found] == [
        (0, "decisions concat"), (0, "embeddings weighted"),
        (1, "decisions gated"), (1, "embeddings weighted"),
    ]  # fmt: skip
    assert found[2].without == {"s1": 1.0, "s2": -1.0}
    line = "seed 1, decisions: gated: +29.0 points of macro AP over the better expert; without "
    assert str(found[2]).startswith(line + "Sentinel-1 +1.0 to the Sentinel-2 expert")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"test": 75.0, "without": (67.0, 57.0)}, ()),  # both bounds, exactly
        ({"test": 74.9}, ("+4.90 points of macro AP over the better expert",)),
        ({"test": float("nan")}, ("+nan points",)),
        ({"without": (66.9, 60.0)}, ("-3.10 points of macro AP without s1",)),
        ({"without": (70.0, 56.9)}, ("-3.10 points of macro AP without s2",)),
        ({"test": 60.0, "without": (0.0, 0.0)}, ("-10.00", "without s1", "without s2")),
    ],
)
def test_what_must_hold(demo, options, expected):
    found = failures(demo, results(demo, **options))
    assert len(found) == 2 * len(expected)  # of both levels
    for failure, wanted in zip(found, 2 * expected, strict=True):
        assert wanted in failure


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("good", [False, True])
def test_the_command_fails_unless_short(demo, good, short, tmp_path, monkeypatch, capsys):
    """Everything but the training, which `./scripts/demo bigearthnet --short` runs."""
    published = []
    seeds = {0: results(demo), 1: results(demo, seed=1, test=90.0 if good else 72.0)}
    monkeypatch.setattr(demo, "write_bigearthnet", lambda folder, *_, **__: Written(folder))
    monkeypatch.setattr(demo, "write_rasters", lambda folder, _: Written(folder))
    monkeypatch.setattr(demo, "train_all", lambda runs, data, seed, *, short: seeds[seed])
    mapped = []
    monkeypatch.setattr(demo, "classify", lambda folder, runs, place, models: mapped.append(models))
    monkeypatch.setattr(demo, "picture", lambda place, grids, path: path)
    monkeypatch.setattr(demo, "publish", lambda *given, **_: published.append(given))
    (tmp_path / "short").mkdir()
    flags = ["--folder", str(tmp_path), "--seeds", "0", "1", "--publish", *["--short"] * short]
    monkeypatch.setattr(sys, "argv", ["demo", *flags])
    if good or short:
        demo.main()
    else:
        with pytest.raises(SystemExit) as ended:
            demo.main()
        assert "seed 1, decisions concat: +2.00 points" in str(ended.value.code)
    assert bool(published) == (good or short)
    assert mapped == [["s1", "s2", "decisions concat", "embeddings weighted"]]
    kept = json.loads((tmp_path / ("short" if short else ".") / "results.json").read_text())
    assert [row["val_ap_macro"] for row in kept[:3]] == [99.0, 99.0, 80.0]


class Written:
    """What a generator gives back."""

    patches = 0

    def __init__(self, root):
        self.root = root


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("demonstration", "publish", "demo_rgb_lidar"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("demo_rgb_lidar")


def accuracies(folder, **members):
    for member, value in members.items():
        run = folder / "seed_0" / member
        run.mkdir(parents=True)
        (run / "test_metrics.json").write_text(json.dumps({"test/overall_accuracy": value}))


def test_the_study_names_strategies_that_are_too_low(study, tmp_path):
    accuracies(tmp_path, rgb=0.5, early=0.98, late=0.96, intermediate_add=0.97)
    assert study.too_low(tmp_path) == [
        "intermediate_add, seed_0: 97.0 %", "late, seed_0: 96.0 %"
    ]  # fmt: skip


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("late", [0.99, 0.9])
def test_the_study_fails_where_it_shows_too_little(study, late, status, tmp_path, monkeypatch):
    """Everything but rendering and training, which `./scripts/demo rgb_lidar --short` does."""
    given = []

    def compare(args):
        given.append(yaml.safe_load(Path(args[2]).read_text()))
        accuracies(tmp_path / "study", late=late)
        return status

    monkeypatch.setattr(study, "write_rgb_lidar", lambda *_: None)
    monkeypatch.setattr(study, "contact_sheet", lambda *_, **__: Figure())
    monkeypatch.setattr(study, "compare", compare)
    monkeypatch.setattr(sys, "argv", ["demo", "--folder", str(tmp_path), "--seeds", "4"])
    if status or late < 0.97:
        with pytest.raises(SystemExit, match="does not show what it must"):
            study.main()
    else:
        study.main()
    (content,) = given
    assert content["seeds"] == [4]
    assert content["overlay"]["data"]["init_args"]["root"] == str(tmp_path / "data")
    published = yaml.safe_load((SCRIPTS.parent / "configs/rgb_lidar/study.yaml").read_text())
    assert content["members"].keys() == published["members"].keys()
    assert all(Path(file).is_file() for files in content["members"].values() for file in files)


# ---- images with text, tables and series --------------------------------------------------------


@pytest.fixture
def geo(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("demonstration", "publish", "demo_geo_multimodal"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("demo_geo_multimodal")


def by_prompt(geo, **accuracies):
    """Rows of contrastive models by training samples, ``s100=(seed 0, seed 1)``."""
    return [
        geo.ZeroShot(int(size[1:]), seed, accuracy, 1.0, 1.0)
        for size, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


FOUND = {
    "image": [50.0, 52.0], "all": [85.0, 86.0], "early": [86.0, 84.0],
    "cross_attention": [84.0, 87.0],
}  # fmt: skip
RISING = {"s100": (30.0, 32.0), "s400": (36.0, 34.0), "s1800": (40.0, 41.0)}


@pytest.mark.parametrize(
    ("changes", "prompts", "says"),
    [
        ({}, {}, []),
        ({"image": [79.0, 50.0]}, {}, []),  # 5 points, exactly
        ({"image": [79.5, 50.0]}, {}, ["cross_attention, run 0: +4.5 points"]),
        ({"image": [80.5, 50.0]}, {},
         ["all, run 0: +4.5 points", "cross_attention, run 0: +3.5 points"]),
        ({"cross_attention": [84.0, 86.8]}, {}, ["cross_attention: -0.1 points to late fusion"]),
        ({}, {"s1800": (24.9, 60.0)}, ["zero-shot, seed 0: 24.9 %"]),
        ({}, {"s400": (30.0, 31.0)}, ["zero-shot: 30.5 % of 400 samples, 31.0 % of 100"]),
        ({"all": [float("nan"), 86.0]}, {},
         ["all, run 0: +nan points", "cross_attention: +nan points"]),
    ],
)  # fmt: skip
def test_what_images_with_texts_tables_and_series_must_show(geo, changes, prompts, says):
    found = geo.failures({**FOUND, **changes}, by_prompt(geo, **{**RISING, **prompts}))
    assert len(found) == len(says)
    for failure, wanted in zip(found, says, strict=True):
        assert failure.startswith(wanted)


def test_the_study_of_the_demo_is_the_published_one(geo, tmp_path):
    file = geo.study(tmp_path, tmp_path / "manifest.csv", seeds=[3], short=True)
    content = yaml.safe_load(file.read_text())
    published = yaml.safe_load((SCRIPTS.parent / "configs/geo_multimodal/study.yaml").read_text())
    assert content["seeds"] == [3]
    assert content["ladder"]["rungs"] == published["ladder"]["rungs"]
    assert content["members"].keys() == published["members"].keys()
    files = [content["ladder"]["fusion"], *content["members"].values()]
    assert all(Path(path).is_file() for path in files)
    assert content["overlay"]["data"]["init_args"] == {"manifest": str(tmp_path / "manifest.csv")}
    assert content["overlay"]["trainer"]["max_epochs"] == 1
