"""Fixtures for all tests."""

import shutil
from pathlib import Path

import pytest
import torch
from flair2_files import write_flair2

# Small tensors on few cores: more threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples and reference numbers beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real samples beside the repository (../shared)")
    return folder


@pytest.fixture(scope="session")
def flair2_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLAIR #2 that tests read only."""
    return write_flair2(tmp_path_factory.mktemp("flair2"))


@pytest.fixture
def flair2_copy(flair2_root: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(flair2_root, tmp_path / "flair2")
