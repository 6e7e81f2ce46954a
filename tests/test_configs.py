"""Every configuration in configs/ is read, and every one that a run consists of is run."""

import shlex
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from bigearthnet_runs import without_pictures
from lightning.pytorch import Callback
from torch import Tensor

from fusionlab.cli import run
from fusionlab.data import Flair2DataModule
from fusionlab.errors import InputError
from fusionlab.experts import EncoderDecoder
from fusionlab.types import Schema

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = sorted((CONFIGS / "fusion").glob("*.yaml"))
MACHINES = sorted((CONFIGS / "trainer").glob("*.yaml")) + sorted(
    (CONFIGS / "logger").glob("*.yaml")
)
ALL = sorted(CONFIGS.rglob("*.yaml"))
PARTS = sorted((CONFIGS / "encoder_decoder").glob("*.yaml"))
COMPOSED = CONFIGS / "flair2" / "aerial_convnext_upernet.yaml"

# Small versions of what the configurations ask for, on one CPU.
QUICK = [
    "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    "--data.num_workers", "0", "--data.batch_size", "2",
]  # fmt: skip
TESTED = {
    "bigearthnet", "debug", "demo", "encoder_decoder", "feature_fusion", "flair2", "fusion",
    "geo_multimodal", "logger", "predict", "rgb_lidar", "terramesh", "trainer",
}  # fmt: skip


def test_no_folder_is_forgotten():
    assert {path.relative_to(CONFIGS).parts[0] for path in ALL} == TESTED


def test_every_config_says_what_it_is_for():
    for path in ALL:
        assert path.read_text().startswith("# "), path


@pytest.fixture(scope="module")
def experts(flair2_root, tmp_path_factory) -> dict[str, list[str]]:
    """Flags that put trained experts of each data set into its fusion."""
    folder = tmp_path_factory.mktemp("experts")
    flags = {}
    for data in ("flair2", "demo/flair2"):
        flags[data] = []
        for expert, file in experts_of(data).items():
            output = folder / data / expert
            small = ["--model.model.temporal_depth", "1"] if expert == "sentinel2" else []
            run([
                "fit", "--config", str(file), "--data.root", str(flair2_root), *QUICK, *small,
                "--trainer.fast_dev_run", "false", "--trainer.max_epochs", "1",
                "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1",
                "--output", str(output),
            ])  # fmt: skip
            flags[data] += [
                f"--model.model.experts.{expert}.checkpoint", str(output / "best.ckpt"),
            ]  # fmt: skip
    return flags


def experts_of(data: str) -> dict[str, Path]:
    files = {
        "flair2": {"aerial": "aerial_unetformer.yaml", "sentinel2": "sentinel2_tsvit.yaml"},
        "demo/flair2": {"aerial": "aerial.yaml", "sentinel2": "sentinel2.yaml"},
    }
    return {name: CONFIGS / data / file for name, file in files[data].items()}


@pytest.mark.slow
@pytest.mark.parametrize("data", ["flair2", "demo/flair2"])
def test_fusions_run(data, experts, flair2_root, tmp_path):
    for overlay in OVERLAYS:
        with without_pictures():
            cli = run([
                "test", "--config", str(CONFIGS / data / "fusion.yaml"), "--config", str(overlay),
                "--data.root", str(flair2_root), *experts[data], *QUICK, "--output", str(tmp_path),
            ])  # fmt: skip
        wanted = yaml.safe_load(overlay.read_text())
        wanted = wanted["model"]["init_args"]["model"]["init_args"]["fusion"]["class_path"]
        assert type(cli.model.model.fusion).__name__ == wanted


def test_fixed_weights_of_other_experts_are_given_as_the_overlay_says(capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    overlay = Path("configs/fusion/fixed_weighted.yaml").read_text()
    (line,) = (line for line in overlay.splitlines() if line.startswith("#   --config"))
    flags = shlex.split(line.removeprefix("#"))
    with pytest.raises(SystemExit):
        run(["fit", "--config", "configs/bigearthnet/late_fusion.yaml", *flags, "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["model"]["init_args"]
    assert set(model["fusion"]["init_args"]["weights"]) == set(model["experts"]) == {"s1", "s2"}


@pytest.mark.parametrize(
    "overlay", sorted((CONFIGS / "debug").glob("*.yaml")), ids=lambda p: p.stem
)
def test_debug_overlays_run(overlay, flair2_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run([
        "fit", "--config", str(CONFIGS / "demo" / "flair2" / "aerial.yaml"),
        "--config", str(overlay), "--data.root", str(flair2_root),
        "--model.model", "small_models.PixelExpert", *QUICK[2:], "--trainer.max_epochs", "1",
    ])  # fmt: skip


class Seen(Callback):
    """Notes what every epoch is trained with."""

    epochs: ClassVar[list[list[Tensor]]] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epochs[-1].append(batch["inputs"]["aerial"].clone())


def test_overfitting_sees_the_same_batches_in_every_epoch(flair2_root, tmp_path):
    Seen.epochs.clear()
    run([
        "fit", "--config", str(CONFIGS / "demo" / "flair2" / "aerial.yaml"),
        "--config", str(CONFIGS / "debug" / "overfit.yaml"), "--data.root", str(flair2_root),
        "--model.model", "small_models.PixelExpert", *QUICK[2:], "--data.batch_size", "1",
        "--trainer.max_epochs", "3", "--output", str(tmp_path),
        "--trainer.callbacks", "test_configs.Seen",
    ])  # fmt: skip
    first, *others = Seen.epochs
    assert len(first) == 2
    assert len(others) == 2
    assert not torch.equal(*first)
    for epoch in others:
        assert all(torch.equal(a, b) for a, b in zip(first, epoch, strict=True))


@pytest.mark.parametrize("overlay", MACHINES, ids=lambda path: path.stem)
def test_overlays_for_machines_are_read(overlay, capsys):
    # Their hardware is not here; that every key is known and of the right type can be checked.
    with pytest.raises(SystemExit) as ended:
        run(["fit", "--config", str(CONFIGS / "flair2" / "fusion.yaml"), "--config", str(overlay),
             "--print_config"])  # fmt: skip
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    for key, value in yaml.safe_load(overlay.read_text())["trainer"].items():
        if not isinstance(value, dict | list):
            assert printed[key] == value


def test_the_tensorboard_overlay_writes_events(flair2_root, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    run([
        "fit", "--config", str(CONFIGS / "demo" / "flair2" / "aerial.yaml"),
        "--config", str(CONFIGS / "logger" / "tensorboard.yaml"),
        "--data.root", str(flair2_root), "--model.model", "small_models.PixelExpert", *QUICK[2:],
        "--trainer.max_epochs", "1", "--output", "run",
    ])  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list((tmp_path / "run" / "tensorboard").rglob("events.*"))
    assert list((tmp_path / "run" / "logs").rglob("metrics.csv"))
    assert (tmp_path / "run" / "curves.png").is_file()
    # The saved configuration can be used for another run.
    loggers = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["logger"]
    assert {logger["init_args"]["save_dir"] for logger in loggers} == {"{output}"}


def test_overlays_for_new_tiles_are_read(capsys):
    # They are run with the demonstration, and those in predict/ in test_predict_cli.py too.
    files = (CONFIGS / "predict" / "raster.yaml", CONFIGS / "demo" / "flair2" / "predict.yaml")
    with pytest.raises(SystemExit) as ended:
        run([
            "predict", *(arg for file in files for arg in ("--config", str(file))),
            "--model", "SegmentationTask", "--model.model", "small_models.PixelExpert",
            "--data.rasters.aerial", "zone.tif", "--print_config",
        ])  # fmt: skip
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["window"] == 128
    assert printed["writer"]["class_path"].endswith("GeoTiffWriter")
    options = printed["writer"]["init_args"]
    assert (options["quicklook"], options["contributions"]) == (True, True)


def test_the_slurm_overlay_names_the_signal_that_requeueing_needs():
    assert "#SBATCH --signal=SIGUSR1@90" in (CONFIGS / "trainer" / "slurm.yaml").read_text()


# ---- experts composed from parts -------------------------------------------------------------


def arguments(task: dict) -> dict:
    """Of the expert in a model's configuration."""
    return task["init_args"]["model"]["init_args"]


def without_hub(overlay: Path) -> list[str]:
    """Flags for random weights where an overlay asks for a hub's."""
    backbone = arguments(yaml.safe_load(overlay.read_text())["model"])["backbone"]
    asked = isinstance(backbone, dict) and "pretrained" in backbone
    return ["--model.model.backbone.pretrained", "false"] if asked else []


def printed_model(capsys, *args: str) -> dict:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(["fit", *args, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]


def name_of(part: str | dict) -> str:
    return part if isinstance(part, str) else part["name"]


@pytest.fixture(scope="module")
def aerial(flair2_root) -> Schema:
    return Flair2DataModule(str(flair2_root), modalities=["aerial"]).schema


def test_there_are_a_dozen_recipes_of_parts():
    assert len(PARTS) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("overlay", PARTS, ids=lambda path: path.stem)
def test_recipes_of_parts_are_built(overlay, aerial, capsys):
    files = ["--config", str(COMPOSED), "--config", str(overlay)]
    task = printed_model(capsys, *files, *without_hub(overlay))
    options = arguments(task)
    wanted = yaml.safe_load(overlay.read_text())["model"]["init_args"]
    parts = wanted["model"]["init_args"]
    for part in ("backbone", "decoder"):
        assert name_of(options[part]) == name_of(parts[part])
    expert = EncoderDecoder(aerial, **options).eval()
    assert expert.logits(torch.zeros(1, 5, 40, 72)).shape == (1, 13, 40, 72)
    assert expert.names == aerial.classes
    # What an overlay says null of is gone, the rest of the recipe stays.
    auxiliary = [] if parts.get("aux_decoders", "kept") is None else ["stride16"]
    assert list(expert.network.auxiliary) == auxiliary
    assert task["init_args"]["layer_decay"] == wanted.get("layer_decay", 0.9)
    assert task["init_args"]["loss"]["init_args"]["label_smoothing"] == 0.05
    for part in ("backbone", "decoder"):
        if isinstance(parts[part], dict):
            gone = [name for name, value in parts[part].items() if value is None]
            assert all(options[part].get(name) is None for name in gone)


def test_the_frozen_recipe_needs_weights_that_can_be_had_again(aerial, flair2_root, tmp_path):
    overlay = CONFIGS / "encoder_decoder" / "dinov3_linear.yaml"
    files = ["--config", str(COMPOSED), "--config", str(overlay), *without_hub(overlay)]
    with pytest.raises(InputError, match="strip_frozen is set, but no part of EncoderDecoder"):
        run(["fit", *files, "--data.root", str(flair2_root), *QUICK, "--output", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.parametrize("overlay", PARTS, ids=lambda path: path.stem)
def test_recipes_of_parts_run(overlay, flair2_root):
    wanted = yaml.safe_load(overlay.read_text())["model"]["init_args"]
    flags = without_hub(overlay)
    if wanted.get("strip_frozen"):  # refused for random weights, as shown above
        flags += ["--model.strip_frozen", "false"]
    with without_pictures():
        cli = run([
            "fit", "--config", str(COMPOSED), "--config", str(overlay),
            "--data.root", str(flair2_root), *QUICK, *flags,
        ])  # fmt: skip
    expert = cli.model.model
    scores = cli.trainer.callback_metrics
    assert scores["train/loss"].isfinite()
    assert ("train/loss_stride16" in scores) == bool(expert.network.auxiliary)
    trained = {id(p) for g in cli.trainer.optimizers[0].param_groups for p in g["params"]}
    assert trained == {id(p) for p in expert.parameters() if p.requires_grad}
    frozen = wanted["model"]["init_args"].get("frozen", False)
    assert any(p.requires_grad for p in expert.encoder.parameters()) != frozen


@pytest.mark.slow
@pytest.mark.parametrize("overlay", PARTS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "files", [["flair2/canopy_height_regression"], ["terramesh/data", "terramesh/s2"]], ids=len
)
def test_recipes_of_parts_go_with_other_experts(files, overlay, aerial, capsys):
    named = [*(CONFIGS / f"{file}.yaml" for file in files), overlay]
    flags = [arg for file in named for arg in ("--config", str(file))]
    options = arguments(printed_model(capsys, *flags, *without_hub(overlay)))
    schema = aerial
    if "canopy" in files[0]:
        schema = Schema(aerial.modalities, variables=("height",), target="regression", gsd=0.2)
    expert = EncoderDecoder(schema, **options).eval()
    assert expert.logits(torch.zeros(1, 5, 40, 72)).shape == (1, len(schema.outputs), 40, 72)


@pytest.mark.parametrize("name", ["aerial_convnext_upernet", "sentinel2_utae",
                                  "sentinel2_convnext_dates"])  # fmt: skip
def test_experts_of_flair2_run(name, flair2_root):
    with without_pictures():
        cli = run([
            "fit", "--config", str(CONFIGS / "flair2" / f"{name}.yaml"),
            "--data.root", str(flair2_root), *QUICK,
        ])  # fmt: skip
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    assert len(cli.model.model.names) == 13


def test_contrastive_pairs_of_flair2_run(flair2_root):
    with without_pictures():
        cli = run([
            "fit", "--config", str(CONFIGS / "flair2" / "contrastive.yaml"),
            "--data.root", str(flair2_root), *QUICK,
            "--model.model.experts.aerial.backbone", "timm/test_convnext",
        ])  # fmt: skip
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    assert cli.model.pairs == [("aerial", "sentinel2")]
