"""Trackers of experiments: TensorBoard, Weights & Biases and MLflow, through Lightning's loggers.

How they are made from YAML, which of them show pictures, and that their runs end with the command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.image import imread
from numpy.typing import NDArray

from fusionlab.errors import InputError

OUTPUT = "{output}"
"""What stands for the folder of the run in the arguments of a logger."""

_SHOWING = (TensorBoardLogger, WandbLogger, MLFlowLogger)
_EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "TensorBoardLogger": "tensorboard"}


def make_logger(
    cls: type[Logger], args: Sequence[Any], options: Mapping[str, Any], *, output: str | Path
) -> Logger:
    """A logger of a run.

    Args:
        cls: its class.
        args: its arguments by position.
        options: those by name; ``{output}`` in texts becomes the folder.
        output: the run's folder.

    Raises:
        InputError: if the package that it needs is not installed.
    """
    options = {
        name: value.replace(OUTPUT, str(output)) if isinstance(value, str) else value
        for name, value in options.items()
    }
    try:
        return cls(*args, **options)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(cls.__name__)
        how = f'pip install "fusionlab[{extra}]"' if extra else "install it"
        raise InputError(
            f"{cls.__name__} needs a package that is not installed: {how}, or leave the logger "
            "out (`trainer.logger`, `trackers`)."
        ) from error


def takes_images(logger: Logger) -> bool:
    """Whether a logger shows pictures."""
    return isinstance(logger, _SHOWING)


def log_image(loggers: Iterable[Logger], name: str, path: Path, step: int) -> None:
    """Logs a picture with every logger that shows pictures.

    Args:
        loggers: all of a run; those that show none are left out.
        name: ``<stage>/<picture>``.
        path: of a PNG.
        step: of the training, by which pictures of one name are put in a row.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, _pixels(path), step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [str(path)], step=step)
        elif isinstance(logger, MLFlowLogger) and logger.run_id is not None:
            logger.experiment.log_image(logger.run_id, _pixels(path), key=name, step=step)


@contextmanager
def closing_trackers() -> Iterator[None]:
    """Ends the runs of trackers that were begun inside, so that the next begins its own.

    Lightning leaves a run of Weights & Biases open, and logs whatever comes after into it.
    """
    before = _open_wandb_run()
    try:
        yield
    finally:
        after = _open_wandb_run()
        if after is not None and after is not before:
            after.finish()


def _open_wandb_run() -> Any:  # noqa: ANN401
    """The run of Weights & Biases that is open in this process, if there is one."""
    wandb = sys.modules.get("wandb")
    return getattr(wandb, "run", None)


def _pixels(path: Path) -> NDArray[np.uint8]:
    """A PNG as uint8 ``(H, W, 3)``."""
    pixels: NDArray[np.uint8] = (imread(path)[..., :3] * 255).round().astype(np.uint8)
    return pixels
