"""The command line: ``fusionlab fit | validate | test | predict --config …``.

A run leaves its files in one folder, ``--output``. With ``--ckpt_path`` the checkpoint says what
the model is, and everything the user writes in YAML or flags wins over it.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning_utilities.core.rank_zero import rank_zero_info

from fusionlab.callbacks import (
    AttentionExamples,
    BestCheckpoint,
    ClassSimilarities,
    EpochSeed,
    Examples,
    GeoTiffWriter,
    InitialValues,
    LastCheckpoint,
    Measures,
    MonitorCheck,
    Report,
    SaveConfig,
    TableWriter,
)
from fusionlab.callbacks.checkpoints import refuse_to_overwrite
from fusionlab.callbacks.trackers import closing_trackers, make_logger
from fusionlab.cli_arguments import (
    OUTPUT,
    asks_for_help,
    checkpoint_path,
    described_in,
    read_ahead,
    task_in,
    with_checkpoint,
)
from fusionlab.cli_facts import denied_facts, refuse_other_files
from fusionlab.cli_lists import EPILOG
from fusionlab.cli_mistakes import check_names, input_error, raised_behind, subclasses
from fusionlab.cli_parser import Parser
from fusionlab.data import DataModule
from fusionlab.errors import InputError
from fusionlab.tasks import ClassificationTask, ContrastiveTask, Task
from fusionlab.types import PIXELWISE

WriterFactory = Callable[[str], Callback]
"""Writes predictions into a folder; in YAML ``class_path`` and ``init_args``."""


# What these warn of is what this program means to do.
for message in (
    "Checkpoint directory .* exists and is not empty",  # the configuration was saved there
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen experts
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside Lightning
    "The number of training batches",  # small data sets log per epoch
    "You requested to overfit but enabled train dataloader shuffling",  # turned off, as wanted
    r"It is recommended to use .*sync_dist=True",  # the metrics are synchronised already
    "Dataset has no geotransform",  # pictures that lie nowhere are data, too
):
    warnings.filterwarnings("ignore", message)


def _tells_something(record: logging.LogRecord) -> bool:
    """Leaves out advertisements, and the list of hardware that is there or not."""
    noise = ("💡 Tip", "GPU available:", "TPU available:")
    return not record.getMessage().startswith(noise)


logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_tells_something)


class FusionlabCLI(LightningCLI):
    """LightningCLI with one output folder, data linked to model, self-describing checkpoints."""

    def __init__(self, args: list[str]) -> None:
        self._command = next((arg for arg in args if arg in self.subcommands()), None)
        super().__init__(
            Task,
            DataModule,
            save_config_callback=SaveConfig,
            seed_everything_default=42,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={
                "description": "Late fusion of frozen unimodal experts for Earth observation.",
                "epilog": EPILOG,
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
            default=OUTPUT,
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
            default=GeoTiffWriter,  # or another that suits the task, see `_parsed`
            help="What predict writes: maps by GeoTiffWriter, tables by TableWriter.",
        )
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": None,  # the task's own
                "checkpoint.save_last": False,  # it would be saved with the best only
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
        if self._command not in (None, subcommand):
            return self.init_parser(**kwargs)  # options that nobody asked for take time to gather
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        assert isinstance(parser, Parser)
        parser.command = subcommand
        # A checkpoint from elsewhere must not run code, whatever its address.
        parser.set_defaults({"weights_only": True})
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # Report prints the scores, readably
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})  # maps are streamed to disk
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses; a checkpoint's own description comes first, so that all else overrides it.

        What a checkpoint states of its training comes once more at the end, see `cli_facts`.

        Raises:
            InputError: for what cannot be understood, in a few lines.
        """
        assert isinstance(args, list)
        try:
            self.config = self._parsed(parser, args)
        except ArgumentError as error:
            raise InputError(str(error)) from error

    def _parsed(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        command = self._command
        if command is None or asks_for_help(args):
            return parser.parse_args(args)
        settings = read_ahead(args, command)
        path = checkpoint_path(settings)
        chosen = self._subcommand_parsers[command]
        assert isinstance(chosen, Parser)
        if path is not None:
            description = described_in(path)
            chosen.set_defaults({"writer": _writer(task_in(description or settings), description)})
            completed = with_checkpoint(args, command, path, description)
            config = parser.parse_args(completed)
            refuse_other_files(config[command], description, where=path)
            if facts := denied_facts(config[command], description):
                said = yaml.safe_dump(facts, sort_keys=False)
                config = parser.parse_args([*completed, "--config", said])
            return config
        chosen.set_defaults({"writer": _writer(task_in(settings), {})})
        if "model" not in settings:
            check_names(chosen, args, settings)  # the model may be there, misspelt
            raise InputError(
                f"`fusionlab {command}` needs a model: a trained one with --ckpt_path FILE, or a "
                "`model:` section in a --config."
            )
        return parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint override the user; see parse_arguments."""

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; passes on what they say of wrong input, and only that."""
        try:
            super().instantiate_classes()
            return
        except ValueError as error:  # jsonargparse wraps it in a list of what else it had tried
            found = input_error(error) or raised_behind(error)
        raise found

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(self._logger, Logger, subclasses=True)

    def _logger(self, cls: type[Logger], *args: Any, **options: Any) -> Logger:  # noqa: ANN401
        """A logger; ``{output}`` in its arguments is the folder of the run."""
        return make_logger(cls, args, options, output=self._get(self.config, "output"))

    def before_instantiate_classes(self) -> None:
        """Refuses to overwrite an earlier run."""
        config = self.config[self.subcommand]
        harmless = config.overwrite or config.ckpt_path or config.trainer.get("fast_dev_run")
        if self.subcommand == "fit" and not harmless:
            refuse_to_overwrite(Path(config.output))

    def before_fit(self) -> None:
        """See `_check`."""
        self._check("fit")

    def before_validate(self) -> None:
        """See `_check`."""
        self._check("validate")

    def before_test(self) -> None:
        """See `_check`."""
        self._check("test")

    def before_predict(self) -> None:
        """See `Task.check`."""
        self.model.check(self.trainer, self.datamodule, "predict")

    def _check(self, stage: str) -> None:
        """Refuses data that cannot be used, and runs that cannot go well, before any writing."""
        self.datamodule.setup(stage)
        self.model.check(self.trainer, self.datamodule, stage)

    def _run_subcommand(self, subcommand: str) -> None:
        with closing_trackers():
            super()._run_subcommand(subcommand)

    def fit(self, model: LightningModule, **kwargs: Any) -> None:  # noqa: ANN401
        """Trains; a model without anything to train is validated and saved as it is."""
        if any(parameter.requires_grad for parameter in model.parameters()):
            self.trainer.fit(model, **kwargs)
            return
        rank_zero_info("Nothing to train here: validating and saving the model as it is.")
        self.trainer.validate(model, datamodule=kwargs["datamodule"], verbose=False)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Report | Measures):
                callback.on_fit_end(self.trainer, model)
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            for name in ("best.ckpt", "last.ckpt"):
                self.trainer.save_checkpoint(Path(self._get(self.config, "output"), name))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """The trainer with the logger and callbacks of the command."""
        output = Path(self._get(self.config_init, "output"))
        trainer = self._get(self.config_init, "trainer")
        callbacks = trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        # In every command, as checkpoints hold its state.
        callbacks.append(Measures(output, enabled=self.subcommand == "fit"))
        if self.subcommand != "fit":
            callbacks.append(InitialValues())
        if self.subcommand == "predict":
            callbacks.append(self._get(self.config_init, "writer")(str(output)))
            callbacks.append(ClassSimilarities(output))
        else:
            callbacks += [EpochSeed(), MonitorCheck(), Report(output), Examples(output)]
            callbacks.append(AttentionExamples(output))
        loggers = trainer.logger
        if loggers is None or loggers is True:
            loggers = []
        if isinstance(loggers, list | Logger) and "logger" not in kwargs:
            loggers = loggers if isinstance(loggers, list) else [loggers]
            # What is drawn and compared comes from the table, whatever else a run is tracked by.
            if self.subcommand == "fit" and not any(isinstance(x, CSVLogger) for x in loggers):
                loggers = [CSVLogger(output, name="logs"), *loggers]
            kwargs["logger"] = loggers or False
        self.save_config_kwargs = {
            "config_filename": _config_name(self.subcommand),
            "save_to_log_dir": False,
        }
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config.get("enable_checkpointing") is False:
            callbacks = [c for c in callbacks if not isinstance(c, ModelCheckpoint)]
        else:
            # After the best, whose score it must hold for a resumed run to go on with.
            callbacks = [*callbacks, LastCheckpoint(self._get(self.config, "output"))]
        return super()._instantiate_trainer(config, callbacks)


def _writer(task: str | None, description: dict[str, Any]) -> type[Callback]:
    """What writes the predictions of a task that is named by its class path.

    Args:
        task: the class path.
        description: of a checkpoint, which knows what the target was; may be empty.
    """
    trained_on = description.get("model", {}).get("init_args", {}).get("trained_on") or {}
    if target := trained_on.get("target"):
        return GeoTiffWriter if target in PIXELWISE else TableWriter
    module, _, name = (task or "").rpartition(".")
    kind: Any = next((k for k in subclasses(Task) if not module and k.__name__ == name), None)
    if module:
        with suppress(ImportError):  # reported where the model is parsed
            kind = getattr(importlib.import_module(module), name, None)
    tables = (ClassificationTask, ContrastiveTask)
    of_samples = isinstance(kind, type) and issubclass(kind, tables)
    return TableWriter if of_samples else GeoTiffWriter


def _config_name(subcommand: str | None) -> str:
    """``config.yaml`` is the training's; other commands do not overwrite it."""
    return "config.yaml" if subcommand == "fit" else f"{subcommand}_config.yaml"


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
    # Classes of the user's own are found in the folder, as `python -m fusionlab` finds them.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        FusionlabCLI(sys.argv[1:])
    except InputError as error:
        if os.environ.get("FUSIONLAB_TRACEBACK"):
            raise
        # From a worker process it comes with that process's traceback around it.
        message = str(error).rsplit("InputError: ", 1)[-1].strip()
        sys.stderr.write(f"fusionlab: error: {message}\n")
        sys.exit(2)
