"""Fixtures for all tests."""

import shutil
from pathlib import Path

import pytest
import torch
from flair2_files import write_flair2

from fusionlab.data.synthetic.bigearthnet import BigEarthNetConfig, write_bigearthnet

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


@pytest.fixture(scope="session")
def runs(flair2_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained experts and their fusion, of `cli_runs.train_all`, that tests read only."""
    from cli_runs import train_all  # imports tests, which pytest must rewrite first

    return train_all(flair2_root, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def bigearthnet_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny synthetic BigEarthNet, as GeoTIFFs and as LMDB, that tests read only."""
    config = BigEarthNetConfig(train=12, validation=6, test=6, snow_cloud=2, tiles=2)
    folder = tmp_path_factory.mktemp("bigearthnet") / "data"
    return write_bigearthnet(folder, config, lmdb=True).root


@pytest.fixture
def bigearthnet_copy(bigearthnet_root: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(bigearthnet_root, tmp_path / "bigearthnet")


@pytest.fixture(scope="session")
def bigearthnet_runs(bigearthnet_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained experts and fusions of `bigearthnet_runs.train_all`, that tests read only."""
    from bigearthnet_runs import train_all  # imports tests, which pytest must rewrite first

    return train_all(bigearthnet_root, tmp_path_factory.mktemp("bigearthnet_runs"))
