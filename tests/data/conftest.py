"""Fixtures for the tests of data."""

from pathlib import Path

import pytest
from raster_scenes import smooth_image, write


@pytest.fixture
def aerial(tmp_path: Path) -> str:
    """An aerial raster of 60 by 84 m that no window divides."""
    return write(tmp_path / "zone.tif", smooth_image(300, 420), gsd=0.2)
