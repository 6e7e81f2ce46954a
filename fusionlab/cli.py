"""The command line: ``fusionlab fit | validate | test | predict --config …``.

A run leaves its files in one folder, ``--output``. With ``--ckpt_path`` the checkpoint says what
the model is, and everything the user writes in YAML or flags wins over it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.loggers import CSVLogger
from lightning_utilities.core.rank_zero import rank_zero_info

from fusionlab.callbacks import EpochSeed, Examples, GeoTiffWriter, Report
from fusionlab.checkpoints import read_file
from fusionlab.data import DataModule
from fusionlab.errors import InputError
from fusionlab.tasks import Task

WriterFactory = Callable[[str], Callback]
"""Writes predictions into a folder; in YAML ``class_path`` and ``init_args``."""


# What these warn of is what this program means to do.
for message in (
    "Checkpoint directory .* exists and is not empty",  # the configuration was saved there
    "The dirpath has changed from",  # a checkpoint is tested with another output folder
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen experts
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside Lightning
    "The number of training batches",  # small data sets log per epoch
):
    warnings.filterwarnings("ignore", message)


class SaveConfig(SaveConfigCallback):
    """Saves the whole configuration of a run beside its results, one file per command."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called on the first process only."""
        folder = Path(self.config.output)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.config_filename
        self.parser.save(self.config, path, skip_none=False, overwrite=True)


class FusionlabCLI(LightningCLI):
    """LightningCLI with one output folder, data linked to model, self-describing checkpoints."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            Task,
            DataModule,
            save_config_callback=SaveConfig,
            seed_everything_default=42,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_kwargs={
                "description": "Late fusion of frozen unimodal experts for Earth observation.",
                "fit": {"description": "Train an expert or a fusion; its folder is --output."},
                "validate": {"description": "Score a model on the validation split."},
                "test": {"description": "Score a model on the test split."},
                "predict": {"description": "Map a split or new rasters with a trained model."},
            },
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what every command shares."""
        parser.link_arguments("data.schema", "model.init_args.schema", apply_on="instantiate")
        parser.add_argument(
            "--output",
            type=str,
            default="output",
            help="Folder that the run leaves its files in: checkpoints, logs, charts, maps.",
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="Whether fit may replace the checkpoints of an earlier run in that folder.",
        )
        parser.add_argument(
            "--writer",
            type=WriterFactory,
            default=GeoTiffWriter,
            help="What predict writes.",
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val/miou",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("output", "checkpoint.dirpath")
        parser.link_arguments("output", "trainer.default_root_dir")

    def _prepare_subcommand_parser(
        self,
        klass: type,
        subcommand: str,
        **kwargs: Any,  # noqa: ANN401
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # A checkpoint from elsewhere must not run code, whatever its address.
        parser.set_defaults({"weights_only": True})
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})  # maps are streamed to disk
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses; a checkpoint's own description comes first, so that all else overrides it."""
        assert isinstance(args, list)
        with _described_by_checkpoint(args) as completed:
            self.config = parser.parse_args(completed)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint override the user; see parse_arguments."""

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; passes on what they say of wrong input, and only that."""
        try:
            super().instantiate_classes()
        except ValueError as error:  # jsonargparse wraps it in a list of what else it had tried
            raise _input_error(error) or error from None

    def before_instantiate_classes(self) -> None:
        """Refuses to overwrite an earlier run, and finds ``best`` and ``last`` in the output."""
        config = self.config[self.subcommand]
        folder = Path(config.output)
        if config.get("ckpt_path") in ("best", "last"):
            config.ckpt_path = str(folder / f"{config.ckpt_path}.ckpt")
        if config.get("ckpt_path") is not None and not Path(config.ckpt_path).is_file():
            raise InputError(f"--ckpt_path: {config.ckpt_path} does not exist.")
        if self.subcommand != "fit" or config.overwrite or config.ckpt_path:
            return
        if config.trainer.get("fast_dev_run"):
            return
        earlier = [name for name in ("best.ckpt", "last.ckpt") if (folder / name).exists()]
        # Other processes of a distributed run start later, when the first may have saved already.
        if earlier and int(os.environ.get("LOCAL_RANK", 0)) == 0:
            raise InputError(
                f"{folder} already holds {' and '.join(earlier)} of an earlier run. Choose another "
                f"--output, go on with it (--ckpt_path {folder / 'last.ckpt'}), or replace it "
                "(--overwrite true)."
            )

    def before_fit(self) -> None:
        """Refuses data that cannot be used before anything is written."""
        self.datamodule.setup("fit")

    def before_validate(self) -> None:
        """Refuses data that cannot be used before anything is written."""
        self.datamodule.setup("validate")

    def before_test(self) -> None:
        """Refuses data that cannot be used before anything is written."""
        self.datamodule.setup("test")

    def fit(self, model: LightningModule, **kwargs: Any) -> None:  # noqa: ANN401
        """Trains; a model without anything to train is validated and saved as it is."""
        if any(parameter.requires_grad for parameter in model.parameters()):
            self.trainer.fit(model, **kwargs)
            return
        rank_zero_info("Nothing to train here: validating and saving the model as it is.")
        self.trainer.validate(model, datamodule=kwargs["datamodule"])
        for name in ("best.ckpt", "last.ckpt"):
            self.trainer.save_checkpoint(Path(self._get(self.config, "output"), name))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """The trainer with the logger and callbacks of the command."""
        output = Path(self._get(self.config_init, "output"))
        trainer = self._get(self.config_init, "trainer")
        callbacks = trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if self.subcommand == "predict":
            callbacks.append(self._get(self.config_init, "writer")(str(output)))
        else:
            callbacks += [EpochSeed(), Report(output), Examples(output)]
        if trainer.logger is None or trainer.logger is True:
            logs = CSVLogger(output, name="logs") if self.subcommand == "fit" else False
            kwargs.setdefault("logger", logs)
        self.save_config_kwargs = {
            "config_filename": _config_name(self.subcommand),
            "save_to_log_dir": False,
        }
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


def _input_error(error: BaseException | None) -> InputError | None:
    """The input error behind an exception, if there is one."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def _config_name(subcommand: str | None) -> str:
    """``config.yaml`` is the training's; other commands do not overwrite it."""
    return "config.yaml" if subcommand == "fit" else f"{subcommand}_config.yaml"


@contextmanager
def _described_by_checkpoint(args: Sequence[str]) -> Iterator[list[str]]:
    """Command-line arguments with the checkpoint's description of the model put before all else."""
    args = list(args)
    path = _checkpoint_path(args)
    commands = [i for i, a in enumerate(args) if a in FusionlabCLI.subcommands()]
    if path is None and commands and not _names_model(args):
        raise InputError(
            f"`fusionlab {args[commands[0]]}` needs a model: a trained one with --ckpt_path FILE, "
            "or a `model:` section in a --config."
        )
    if path is None or not commands or not Path(path).is_file():
        yield args
        return
    hyper_parameters = dict(read_file(path).get("hyper_parameters", {}))
    hyper_parameters.pop("_instantiator", None)
    class_path = hyper_parameters.pop("_class_path", None)
    if class_path is None:
        yield args
        return
    description = {"model": {"class_path": class_path, "init_args": hyper_parameters}}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "checkpoint.yaml")
        config.write_text(yaml.safe_dump(description))
        position = commands[0] + 1
        yield [*args[:position], "--config", str(config), *args[position:]]


def _checkpoint_path(args: Sequence[str]) -> str | None:
    """The checkpoint given as a flag, or in the last configuration file that names one."""
    written = [c["ckpt_path"] for c in _configs(args) if "ckpt_path" in c]
    given = [*written, *_values(args, "--ckpt_path")]
    return given[-1] if given else None


def _names_model(args: Sequence[str]) -> bool:
    """Whether a flag or a configuration says something of the model, or only help is asked for."""
    if any(arg.startswith(("--model", "--help", "-h", "--data.help")) for arg in args):
        return True
    return any("model" in content for content in _configs(args))


def _configs(args: Sequence[str]) -> list[dict[str, Any]]:
    """The contents of the configuration files given."""
    contents = []
    for file in [*_values(args, "--config"), *_values(args, "-c")]:
        if Path(file).is_file():
            with suppress(yaml.YAMLError):  # the parser will say what is wrong with it
                content = yaml.safe_load(Path(file).read_text())
                contents += [content] if isinstance(content, dict) else []
    return contents


def _values(args: Sequence[str], name: str) -> list[str]:
    """All values given for an argument, as ``--name value`` or ``--name=value``."""
    values = []
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            values.append(args[i + 1])
        elif arg.startswith(f"{name}="):
            values.append(arg.split("=", 1)[1])
    return values


def run(args: list[str]) -> FusionlabCLI:
    """Runs a command from Python, e.g. ``run(["fit", "--config", "experiment.yaml"])``.

    Returns:
        The command's trainer, model and datamodule as attributes.

    Raises:
        InputError: for input that cannot be used.
    """
    return FusionlabCLI(args)


def main() -> None:
    """Runs the command of this process.

    Input that cannot be used is answered with one message and status 2; set the environment
    variable FUSIONLAB_TRACEBACK to see where it was found.
    """
    try:
        FusionlabCLI(sys.argv[1:])
    except InputError as error:
        if os.environ.get("FUSIONLAB_TRACEBACK"):
            raise
        # From a worker process it comes with that process's traceback around it.
        message = str(error).rsplit("InputError: ", 1)[-1].strip()
        sys.stderr.write(f"fusionlab: error: {message}\n")
        sys.exit(2)
