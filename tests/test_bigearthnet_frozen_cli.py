"""Frozen experts from the command line: not a bit of them changes, nor need it be saved again."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from bigearthnet_runs import (
    EXPERTS,
    OTHERS,
    RGB,
    S1,
    best,
    config,
    frozen,
    fused,
    labels_of,
    network,
    patches_of,
    predict,
    probabilities,
    scores,
    table,
    without_pictures,
)
from cli_runs import load
from safetensors.torch import save_file

from fusionlab.cli import run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

WIDE = {"s2_rgb": RGB, "s2_other_s1": [*OTHERS, *S1]}
"""The two modalities of the reference: RGB, and all other bands with Sentinel-1."""


def weights_file(path: Path, backbone: str, *, seed: int = 0) -> str:
    """Weights as a hub keeps them; BatchNorm statistics are those of some training."""
    torch.manual_seed(seed)
    state = timm.create_model(backbone).state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.uniform_(-0.5, 0.5)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    save_file(state, path)
    return str(path)


def fit(file: str, output: Path, *flags: str) -> dict:
    with without_pictures():
        run(["fit", "--config", file, "--output", str(output), *flags])
    return load(output / "last.ckpt")


def parts(state: dict, prefix: str) -> dict:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def check_frozen(state: dict, file: str, prefix: str) -> None:
    """Every weight and statistic of the file is in the checkpoint, to the last bit."""
    from safetensors.torch import load_file

    inside, original = parts(state, prefix), load_file(file)
    same = [name for name in original if name in inside and name != first_layer(original)]
    assert len(same) >= len(original) - 3  # but for the bands of the first layer, the classifier
    for name in same:
        assert torch.equal(inside[name], original[name]), name


def first_layer(state: dict) -> str:
    return next(name for name, value in state.items() if value.ndim == 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    backbones = {"s2_rgb": "test_vit", "s2_other_s1": "test_resnet"}
    return {n: weights_file(folder / f"{n}.safetensors", b) for n, b in backbones.items()}


def two_backbones(weights: dict[str, str], **options) -> dict:
    experts = {
        "s2_rgb": network("test_vit", pretrained=weights["s2_rgb"], **options),
        "s2_other_s1": network(pretrained=weights["s2_other_s1"], **options),
    }
    head = {"class_path": "MLPHead", "init_args": {"hidden": 8}}
    return fused("FeatureFusion", experts, "Projection", head=head)


@pytest.fixture(scope="module")
def stripped(bigearthnet_root, weights, tmp_path_factory) -> Path:
    """A run of two frozen backbones with `strip_frozen`, and one without it."""
    folder = tmp_path_factory.mktemp("stripped")
    for name, strip in (("whole", False), ("stripped", True)):
        file = config(
            folder / f"{name}.yaml", bigearthnet_root, two_backbones(weights, frozen=True),
            data={"modalities": WIDE}, strip_frozen=strip,
        )  # fmt: skip
        fit(file, folder / name)
    return folder


def test_frozen_backbones_are_bit_identical_after_training(stripped, weights):
    state = load(stripped / "whole" / "last.ckpt")["state_dict"]
    for name, file in weights.items():
        check_frozen(state, file, f"model.experts.{name}.body.network.")
    assert any("running_var" in name for name in state)
    # And what is not frozen has learned.
    first = load(stripped / "whole" / "best.ckpt")
    assert first["epoch"] == 0
    moved = [s["exp_avg"].abs().max() for s in first["optimizer_states"][0]["state"].values()]
    trained = [name for name in state if name.startswith(("model.fusion", "model.head"))]
    assert len(moved) == len(trained)
    assert max(moved) > 0


def test_trainable_backbones_do_change(bigearthnet_root, weights, tmp_path):
    # Otherwise the test above would show nothing.
    file = config(
        tmp_path / "c.yaml", bigearthnet_root, two_backbones(weights), data={"modalities": WIDE}
    )
    state = fit(file, tmp_path / "run")["state_dict"]
    for name, path in weights.items():
        with pytest.raises(AssertionError):
            check_frozen(state, path, f"model.experts.{name}.body.network.")


@pytest.mark.parametrize("fusion", ["features", "decisions"])
def test_frozen_experts_are_bit_identical_after_their_fusion(bigearthnet_runs, fusion):
    state = load(bigearthnet_runs / fusion / "last.ckpt")["state_dict"]
    for name in EXPERTS:
        expert = parts(load(bigearthnet_runs / name / "best.ckpt")["state_dict"], "model.")
        inside = parts(state, f"model.experts.{name}.expert.")
        if fusion == "features":  # which has no use for their decisions
            expert = {key: value for key, value in expert.items() if not key.startswith("head.")}
        assert inside.keys() == expert.keys()
        for key, value in expert.items():
            assert torch.equal(inside[key], value), key
        assert any("running_mean" in key for key in expert)


def test_a_joint_model_freezes_what_it_is_told_to(bigearthnet_runs):
    whole = load(bigearthnet_runs / "joint" / "last.ckpt")
    names = [n for n in whole["state_dict"] if n.startswith("model.experts.s1.")]
    assert names
    # Random weights, but those that the seed gives: BatchNorm has seen nothing.
    for name in names:
        value = whole["state_dict"][name]
        if name.endswith("running_mean"):
            assert (value == 0).all()
        elif name.endswith("running_var"):
            assert (value == 1).all()
    others = parts(whole["state_dict"], "model.experts.s2_rgb.")
    assert any((v != 0).any() for n, v in others.items() if n.endswith("running_mean"))


# ---- checkpoints without frozen weights ------------------------------------------------------


def test_a_stripped_checkpoint_gives_the_same_answers(stripped, bigearthnet_root, tmp_path):
    whole, without = (stripped / name / "best.ckpt" for name in ("whole", "stripped"))
    assert without.stat().st_size < whole.stat().st_size / 2
    state = load(without)["state_dict"]
    assert state
    assert not any(".body." in name for name in state)
    modalities = ["--data.modalities", str(WIDE).replace("'", "")]
    found = [
        scores([*best(stripped, name, bigearthnet_root), *modalities], tmp_path / name)
        for name in ("whole", "stripped")
    ]
    assert found[0] == found[1]
    predict(without, tmp_path, *patches_of(bigearthnet_root), *modalities)
    columns = table(tmp_path)
    assert columns["sample"] == list(labels_of(bigearthnet_root, "test"))
    assert len(probabilities(columns)) == 19


def test_weights_that_a_stripped_checkpoint_lacks(stripped, bigearthnet_root, weights, tmp_path):
    flags = [*patches_of(bigearthnet_root), "--data.modalities", str(WIDE).replace("'", "")]
    checkpoint = stripped / "stripped" / "best.ckpt"
    path = Path(weights["s2_other_s1"])
    aside = path.rename(path.with_name("aside.safetensors"))
    try:
        with pytest.raises(InputError, match=r"s2_other_s1\.safetensors does not exist"):
            predict(checkpoint, tmp_path / "out", *flags)
        assert not (tmp_path / "out").exists()
        # Other weights of the same kind are told from those of the training ...
        other = weights_file(tmp_path / "other.safetensors", "test_resnet", seed=1)
        shutil.copy(other, path)
        with pytest.raises(InputError, match=r"s2_other_s1.*others\. Give the same pretrained"):
            predict(checkpoint, tmp_path / "out", *flags)
        # ... and the right ones may lie anywhere.
        moved = ["--model.model.experts.s2_other_s1.pretrained", str(aside)]
        predict(checkpoint, tmp_path / "out", *flags, *moved)
        assert len(table(tmp_path / "out")["sample"]) == 6
    finally:
        aside.replace(path)


def test_a_whole_checkpoint_asks_for_no_weights_even_with_its_training_configuration(
    stripped, bigearthnet_root, weights, tmp_path
):
    path = Path(weights["s2_rgb"])
    aside = path.rename(path.with_name("gone.safetensors"))
    try:
        training = ["--config", str(stripped / "whole.yaml")]
        again = scores([*training, *best(stripped, "whole", bigearthnet_root)], tmp_path)
    finally:
        aside.replace(path)
    assert again["test/ap_macro"] is not None


@pytest.mark.slow
def test_a_stripped_fusion_of_trained_experts(bigearthnet_runs, bigearthnet_root, tmp_path):
    # It needs the experts' own files again, and says so where they are gone.
    for name in EXPERTS:
        shutil.copy(bigearthnet_runs / name / "best.ckpt", tmp_path / f"{name}.ckpt")
    experts = {name: frozen(tmp_path / f"{name}.ckpt") for name in EXPERTS}
    model = fused("FeatureFusion", experts, "Weighted")
    file = config(tmp_path / "c.yaml", bigearthnet_root, model, strip_frozen=True)
    state = fit(file, tmp_path / "run")["state_dict"]
    assert not any(".expert." in name for name in state)
    checkpoint = tmp_path / "run" / "best.ckpt"
    predict(checkpoint, tmp_path / "out", *patches_of(bigearthnet_root))
    assert len(table(tmp_path / "out")["sample"]) == 6
    (tmp_path / "s1.ckpt").unlink()
    with pytest.raises(InputError, match=r"s1\.ckpt does not exist"):
        predict(checkpoint, tmp_path / "none", *patches_of(bigearthnet_root))


@pytest.mark.slow
def test_dinov3_and_resnet101_frozen(bigearthnet_root, tmp_path):
    backbones = {"s2_rgb": "vit_small_patch16_dinov3.lvd1689m", "s2_other_s1": "resnet101"}
    files = {
        name: weights_file(tmp_path / f"{name}.safetensors", backbone.split(".")[0])
        for name, backbone in backbones.items()
    }
    recipe = Path(__file__).parents[1] / "configs" / "bigearthnet" / "fusion_frozen.yaml"
    flags = ["--data.root", str(bigearthnet_root), "--data.batch_size", "4", "--data.num_workers",
             "0", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
             "--trainer.enable_progress_bar", "false"]  # fmt: skip
    for name, path in files.items():
        flags += [f"--model.model.experts.{name}.pretrained", path]
    state = fit(str(recipe), tmp_path / "whole", *flags, "--model.strip_frozen", "false")
    for name, path in files.items():
        check_frozen(state["state_dict"], path, f"model.experts.{name}.body.network.")
    small = fit(str(recipe), tmp_path / "stripped", *flags)
    assert (tmp_path / "stripped" / "last.ckpt").stat().st_size < 20e6
    assert sum(v.numel() for v in small["state_dict"].values()) < 3e6
    whole = [str(tmp_path / name / "best.ckpt") for name in ("whole", "stripped")]
    told = [scores(["--config", str(recipe), *flags, "--ckpt_path", c], tmp_path) for c in whole]
    assert told[0]["test/loss"] == told[1]["test/loss"]
