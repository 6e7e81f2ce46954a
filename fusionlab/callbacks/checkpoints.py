"""The checkpoints of a run: ``best.ckpt``, ``last.ckpt``, and when they may be replaced."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_only, rank_zero_warn

from fusionlab.errors import InputError
from fusionlab.tasks import Task


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best epoch, by the task's own measure unless another is named.

    Args:
        mode: whether less or more is better; by default less of a loss, and more of anything else.
        options: of `ModelCheckpoint`.
    """

    def __init__(
        self,
        *,
        mode: Literal["min", "max"] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(mode=mode or "min", **options)
        self._given = mode
        self._resumed: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Asks the task what to monitor."""
        assert isinstance(pl_module, Task)
        if self.monitor is None:
            self.monitor, mode = pl_module.monitor
        else:
            mode = "min" if self.monitor.endswith("loss") else "max"
        mode = self._given or mode
        if mode != self.mode:
            self.mode = mode
            self.kth_value = torch.tensor(torch.inf if mode == "min" else -torch.inf)
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes which file a training goes on from."""
        if trainer.state.fn == "fit" and trainer.ckpt_path is not None:
            self._resumed = Path(trainer.ckpt_path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the best so far where a training goes on in its folder, moved or not.

        Lightning forgets its score if the folder has another path, and would put a worse epoch in
        its place. In a folder of its own a resumed run begins a ``best.ckpt`` of its own, and says
        where the earlier one is.
        """
        if self._resumed is None:
            return  # nothing will be saved
        if state_dict["dirpath"] == self.dirpath:
            super().load_state_dict(state_dict)
            return
        assert self.dirpath is not None
        folder, best = Path(self.dirpath), Path(state_dict["best_model_path"])
        here = folder / best.name
        if self._resumed.resolve().parent == folder and here.is_file():
            super().load_state_dict(_moved(state_dict, folder))
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The dirpath has changed from")  # told below
            super().load_state_dict(state_dict)
        if best.name:
            score = f"{self.monitor} = {float(state_dict['best_model_score']):.4g}"
            rank_zero_warn(
                f"The training goes on in another folder: {here} will be the best epoch from here "
                f"on. The best so far ({score}) stays {best}."
            )


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest epoch as ``last.ckpt``; best.ckpt may be much older.

    A class of its own has a state of its own, so that users may add any other ModelCheckpoint.
    """

    def __init__(self, output: str | Path) -> None:
        super().__init__(output, "last", save_on_train_epoch_end=True, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the newest epoch replaces any other."""


def _moved(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The state of a `ModelCheckpoint` whose files lie in another folder now."""

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else ""

    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    return {
        **state,
        "dirpath": str(folder),
        "best_k_models": {here(path): score for path, score in state["best_k_models"].items()},
        **{name: here(state[name]) for name in paths},
    }


def refuse_to_overwrite(folder: Path) -> None:
    """Protects the checkpoints of an earlier run; a job that SLURM runs again may go on.

    Raises:
        InputError: on the first process, if the folder holds any.
    """
    if _requeued(folder):
        return
    earlier = [name for name in ("best.ckpt", "last.ckpt") if (folder / name).exists()]
    # Other processes of a distributed run start later, when the first may have saved already.
    if earlier and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        raise InputError(
            f"{folder} already holds {' and '.join(earlier)} of an earlier run. Choose another "
            f"--output, go on with it (--ckpt_path {folder / 'last.ckpt'}), or replace it "
            "(--overwrite true)."
        )


def _requeued(folder: Path) -> bool:
    """Whether SLURM runs the job again, which then goes on with what it saved when it ended."""
    if not SLURMEnvironment.detect():
        return False
    again = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    return again or any(folder.glob("hpc_ckpt_*.ckpt"))
