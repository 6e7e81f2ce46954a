"""Fixtures for tests of data modules."""

import shutil
from pathlib import Path

import pytest
from flair2_files import write_flair2


@pytest.fixture(scope="session")
def flair2_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLAIR #2 that tests read only."""
    return write_flair2(tmp_path_factory.mktemp("flair2"))


@pytest.fixture
def flair2_copy(flair2_root: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(flair2_root, tmp_path / "flair2")
