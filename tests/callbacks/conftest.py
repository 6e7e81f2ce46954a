"""Fixtures for the tests of callbacks."""

from pathlib import Path

import pytest
from patch_scenes import write_optical
from raster_scenes import smooth_image, write
from table_predictions import HEIGHT, WIDTH


@pytest.fixture
def zone(tmp_path: Path) -> str:
    """A raster of Sentinel-2 whose last patches lie partly beyond its edge."""
    return write_optical(tmp_path / "zone.tif", HEIGHT, WIDTH)


@pytest.fixture
def aerial(tmp_path: Path) -> str:
    """An aerial raster that no window divides."""
    return write(tmp_path / "zone.tif", smooth_image(301, 423), gsd=0.2)
