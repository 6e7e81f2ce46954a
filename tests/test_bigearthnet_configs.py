"""Every configuration for BigEarthNet is run: recipes, overlays, and the demonstration's."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from bigearthnet_runs import EXPERTS, without_pictures
from cli_runs import load
from test_configs import CONFIGS, QUICK

from fusionlab.cli import FusionlabCLI, run
from fusionlab.errors import InputError

FOLDER = CONFIGS / "bigearthnet"
DEMO = CONFIGS / "demo" / "bigearthnet"
RUNS = QUICK[2:]


def content(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


OVERLAYS = (FOLDER / "resnet101.yaml", FOLDER / "lmdb.yaml")
RECIPES = [path for path in sorted(FOLDER.glob("*.yaml")) if path not in OVERLAYS]
PUBLISHED = ("s1", "s2", "s1_s2")
SIZES = [
    pytest.param(path, small, marks=[] if small else pytest.mark.slow, id=f"{path.stem}-{size}")
    for path in RECIPES
    for small, size in ((True, "small"), (False, "whole"))
]


def networks(part: Any, flag: str = "--model.model") -> dict[str, dict[str, Any]]:
    """Arguments of every network in a model's configuration, by the flag that begins with."""
    arguments = part.get("init_args", {})
    found = {flag: arguments} if "backbone" in arguments else {}
    for name, expert in arguments.get("experts", {}).items():
        found |= networks(expert, f"{flag}.experts.{name}")
    if "expert" in arguments:
        found |= networks(arguments["expert"], f"{flag}.expert")
    return found


def flags(recipe: Path, runs: Path, *, small: bool) -> list[str]:
    """What makes a recipe run without a hub and, if small, in a moment."""
    chosen = []
    model = content(recipe)["model"]["init_args"]["model"]
    for flag, arguments in networks(model).items():
        if "pretrained" in arguments:  # as where a checkpoint brings the weights
            chosen += [f"{flag}.restored", "true"]
        if small and "sensors" not in arguments:  # the published networks are what they are
            plain = str(arguments["backbone"]).startswith("vit")
            little = "test_vit" if plain else "test_resnet"
            chosen += [f"{flag}.backbone", little]
    for name, expert in model["init_args"].get("experts", {}).items():
        if "checkpoint" in expert["init_args"]:
            path = runs / name / "best.ckpt"
            chosen += [f"--model.model.experts.{name}.checkpoint", str(path)]
    return chosen


def fit(*configs: Path, root: Path, more: list[str]) -> FusionlabCLI:
    named = [arg for path in configs for arg in ("--config", str(path))]
    with without_pictures():
        return run(["fit", *named, "--data.root", str(root), *QUICK, *more])


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "small"), SIZES)
def test_recipes_run(recipe, small, bigearthnet_root, bigearthnet_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = fit(recipe, root=bigearthnet_root, more=flags(recipe, bigearthnet_runs, small=small))
    wanted = content(recipe)["model"]["init_args"]
    # Each part has the learning rate that the recipe gives it, and the rest that of the optimiser.
    groups = wanted.get("parameter_groups", {})
    rates = [options["lr"] for options in groups.values()]
    rates.append(wanted["optimizer"]["init_args"]["lr"])
    (optimizer,) = cli.trainer.optimizers
    assert [group["initial_lr"] for group in optimizer.param_groups] == rates
    # What is frozen is in none of them.
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in cli.model.parameters() if p.requires_grad}
    for flag, arguments in networks(wanted["model"]).items():
        part = cli.model.get_submodule(flag.removeprefix("--model."))
        frozen = arguments.get("frozen", False) or flag.endswith(".expert")
        body = part.body if hasattr(part, "body") else part.encoder
        assert any(p.requires_grad for p in body.parameters()) != frozen
    assert not (tmp_path / "runs").exists()  # a fast run leaves nothing


def test_the_overlay_of_the_lmdb_runs(bigearthnet_root, tmp_path):
    for path in bigearthnet_root.glob("*.parquet"):  # the patches are nowhere else
        (tmp_path / path.name).symlink_to(path)
    overlay = yaml.safe_load((FOLDER / "lmdb.yaml").read_text())
    assert overlay["data"]["init_args"].keys() == {"lmdb"}
    lmdb = ["--data.lmdb", str(bigearthnet_root / "lmdb"), "--model.model.backbone", "test_resnet"]
    fit(FOLDER / "s1_s2.yaml", FOLDER / "lmdb.yaml", root=tmp_path, more=lmdb)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_recipes_say_of_frozen_weights_is_so(path):
    """`strip_frozen` is refused where nothing is frozen, so no such recipe may advise it."""
    told = [line for line in path.read_text().splitlines() if line.startswith("#")]
    asked = content(path)["model"]["init_args"].get("strip_frozen", False)
    assert asked or "strip_frozen" not in " ".join(told)


@pytest.mark.parametrize("path", [*RECIPES, CONFIGS.parent / "README.md"], ids=lambda p: p.stem)
def test_commands_with_the_overlay_of_resnet101_name_a_folder_of_their_own(path):
    told = path.read_text().replace("\\\n", " ").splitlines()
    commands = [line for line in told if "fusionlab fit" in line and "resnet101.yaml" in line]
    for command in commands:
        if "--config configs/bigearthnet/resnet101.yaml" in command:
            assert re.search(r"--output runs/\S+_resnet101\b", command)
    assert commands or path.stem not in (*PUBLISHED, "README")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_overlay_of_resnet101_is_read(name, capsys):
    printed = configuration(FOLDER / f"{name}.yaml", *OVERLAYS, capsys=capsys)
    network = printed["model"]["init_args"]["model"]["init_args"]
    assert network == {**network, "backbone": "resnet101", "drop_rate": 0.15}
    assert printed["data"]["init_args"]["lmdb"] == "data/bigearthnet/lmdb"


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_overlay_of_resnet101_runs(name, bigearthnet_root):
    cli = fit(FOLDER / f"{name}.yaml", FOLDER / "resnet101.yaml", root=bigearthnet_root, more=[])
    assert cli.model.model.body.name == "resnet101"


def configuration(*files: Path, capsys) -> dict[str, Any]:
    """What a run would be configured with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(["fit", *(arg for file in files for arg in ("--config", str(file))), "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipe_of_the_publishers(name, capsys):
    printed = configuration(FOLDER / f"{name}.yaml", capsys=capsys)
    task, data = printed["model"]["init_args"], printed["data"]["init_args"]
    network = task["model"]["init_args"]
    assert (network["backbone"], network["drop_rate"], network["drop_path_rate"]) == (
        "resnet50", 0.15, 0.15,
    )  # fmt: skip
    assert task["loss"]["class_path"].endswith("BinaryCrossEntropy")
    assert task["optimizer"]["class_path"] == "torch.optim.AdamW"
    options = task["optimizer"]["init_args"]
    assert (options["lr"], options["weight_decay"]) == (1e-3, 0.01)
    schedule = task["lr_scheduler"]
    assert schedule["class_path"].endswith("WarmupCosine")
    assert schedule["init_args"]["warmup"] == 1000
    assert data["batch_size"] == 512
    assert data["augment"]["init_args"] == {"flips": True, "quarter_turns": False}
    assert printed["trainer"]["max_epochs"] == 100
    (early,) = printed["trainer"]["callbacks"]
    assert early["class_path"].endswith("EarlyStopping")
    wanted = {"monitor": "val/ap_macro", "mode": "max", "patience": 5}
    assert early["init_args"].items() >= wanted.items()


def test_training_stops_when_macro_precision_no_longer_rises(bigearthnet_root, tmp_path):
    # Of a single patch every ranking is perfect, so no epoch is better than the first.
    with without_pictures():
        run([
            "fit", "--config", str(FOLDER / "s1.yaml"), "--data.root", str(bigearthnet_root), *RUNS,
            "--model.model.backbone", "test_resnet", "--data.max_samples", "{train: 2, val: 1}",
            "--output", str(tmp_path),
        ])  # fmt: skip
    assert load(tmp_path / "last.ckpt")["epoch"] == 5
    assert load(tmp_path / "best.ckpt")["epoch"] == 0


@pytest.mark.parametrize("expert", EXPERTS)
def test_experts_of_the_demonstration(expert, bigearthnet_root):
    lmdb = ["--data.lmdb", str(bigearthnet_root / "lmdb")]
    fit(DEMO / f"{expert}.yaml", root=bigearthnet_root, more=lmdb)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "overlay"),
    [
        (base, overlay)
        for base, folder in (("feature_fusion", "feature_fusion"), ("late_fusion", "fusion"))
        for overlay in sorted((CONFIGS / folder).glob("*.yaml"))
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_fusions_of_the_demonstration(base, overlay, bigearthnet_root, bigearthnet_runs, tmp_path):
    recipe = DEMO / f"{base}.yaml"
    more = flags(recipe, bigearthnet_runs, small=True)
    more += ["--data.lmdb", str(bigearthnet_root / "lmdb"), "--model.model.cache", str(tmp_path)]
    more += ["--output", str(tmp_path)]
    if overlay.stem == "fixed_weighted":  # those in the file are of FLAIR #2
        more += ["--model.model.fusion.weights", "{s1: 0.3, s2: 0.7}"]
    if overlay.stem == "gated_cloud":  # there are no series here that clouds could hide
        with pytest.raises(InputError, match="data: no option 'cloud_cover'"):
            fit(recipe, overlay, root=bigearthnet_root, more=more)
        return
    cli = fit(recipe, overlay, root=bigearthnet_root, more=more)
    wanted = content(overlay)["model"]["init_args"]["model"]["init_args"]["fusion"]
    assert type(cli.model.model.fusion).__name__ == wanted["class_path"]
    assert all(
        value.isfinite() for value in cli.trainer.callback_metrics.values() if value == value
    )
