"""Bringing images onto a common grid, and series to one image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.models import CentreCrop, Footprint
from fusionlab.models.stacking import on_grid, over_dates, stacked_modality
from fusionlab.types import Grid, Modality, TimeSeries


def placed(images, grid, gsd, *, offset=None, alignment=None):
    return on_grid(
        images, grid, gsd=gsd, name="s2", offset=offset, alignment=alignment or Footprint()
    )


def ramp(rows, columns, gsd, centre=(0.0, 0.0)):
    """Two bands that say where they are: metres below and right of a place."""
    y = (torch.arange(rows) + 0.5 - rows / 2) * gsd - centre[0]
    x = (torch.arange(columns) + 0.5 - columns / 2) * gsd - centre[1]
    return torch.stack([y[:, None].expand(rows, columns), x.expand(rows, columns)])[None]


def series(values, valid, dtype=torch.float32):
    values = torch.tensor(values, dtype=dtype)[None, :, None, None, None]
    valid = torch.tensor(valid)[None]
    return TimeSeries(values, torch.zeros(valid.shape, dtype=torch.long), valid)


# ---- series ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mean", "median"])
@given(data=st.data())
def test_valid_dates_alone_count(how, data):
    numbers = data.draw(st.lists(st.integers(0, 9000), min_size=1, max_size=6))
    valid = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)))
    kept = [n for n, there in zip(numbers, valid, strict=True) if there]
    found = over_dates(series(numbers, valid, torch.int32), how).item()
    if not kept:
        assert found != found
        return
    ordered = sorted(kept)
    median = (ordered[(len(kept) - 1) // 2] + ordered[len(kept) // 2]) / 2
    expected = sum(kept) / len(kept) if how == "mean" else median
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("how", "expected"), [("mean", 4.0), ("median", 2.0)])
def test_what_is_not_known_of_a_valid_date_does_not_count(how, expected):
    nan, inf = float("nan"), float("inf")
    found = over_dates(series([1.0, nan, 9.0, inf, 2.0, 77.0], [True] * 5 + [False]), how)
    assert found.item() == expected
    assert over_dates(series([nan, 1.0], [True, False]), how).isnan().all()


def test_every_pixel_and_sample_has_dates_of_its_own():
    values = torch.rand(2, 4, 3, 5, 6)
    values[0, 1, :, 2, 3] = torch.nan
    valid = torch.tensor([[True, True, False, True], [False, True, True, False]])
    found = over_dates(TimeSeries(values, torch.zeros(2, 4), valid), "mean")
    torch.testing.assert_close(found[1], values[1, 1:3].mean(0))
    torch.testing.assert_close(found[0, :, 2, 3], values[0, [0, 3], :, 2, 3].mean(0))
    torch.testing.assert_close(found[0, :, 0, 0], values[0, [0, 1, 3], :, 0, 0].mean(0))


# ---- resolutions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "gsd"),
    [((10, 14), 10.0), ((80, 112), 1.0), ((79, 111), 1.0), ((33, 47), 2.5), ((250, 351), 0.4)],
)
def test_every_pixel_is_put_where_it_belongs(shape, gsd):
    grid = Grid(12, 18, 3.0)
    found = placed(ramp(*shape, gsd), grid, gsd)
    torch.testing.assert_close(found, ramp(*grid), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("shape", "gsd"), [((40, 40), 2.0), ((161, 160), 0.5), ((30, 30), 3.0)])
def test_offsets_are_heeded(shape, gsd):
    # The grid's centre lies 4.5 m below and 1.5 m left of the image's.
    offset = torch.tensor([[4.5, -1.5]]) / gsd
    grid = Grid(8, 8, 3.1)
    found = placed(ramp(*shape, gsd, centre=(4.5, -1.5)), grid, gsd, offset=offset)
    torch.testing.assert_close(found, ramp(*grid), atol=1e-3, rtol=0)


def test_on_the_grid_images_stay_as_they_are():
    images = torch.randn(2, 3, 6, 8)
    images[0, 0, 0, 0] = torch.nan
    found = placed(images, Grid(6, 8, 1.0), 1.0)
    assert found is images


def test_finer_images_are_averaged_not_skipped():
    images = torch.rand(1, 1, 40, 60)
    found = placed(images, Grid(4, 6, 10.0), 1.0)
    expected = images.unfold(2, 10, 10).unfold(3, 10, 10).mean((-1, -2))
    torch.testing.assert_close(found, expected)
    cropped = placed(images, Grid(2, 2, 10.0), 1.0, alignment=CentreCrop())
    torch.testing.assert_close(cropped, expected[:, :, 1:3, 2:4])


@pytest.mark.parametrize(("shape", "gsd"), [((12, 12), 2.0), ((96, 96), 0.25), ((95, 97), 0.25)])
def test_unknown_pixels_do_not_spread(shape, gsd):
    images = torch.full((1, 2, *shape), 7.0)
    half = shape[1] // 2
    images[:, 0, :, :half] = torch.nan
    found = placed(images, Grid(24, 24, 1.0), gsd)
    unknown = found[0].isnan()
    torch.testing.assert_close(found[0][~unknown], torch.full_like(found[0][~unknown], 7.0))
    assert unknown[0, :, :11].all()
    assert not unknown[0, :, 13:].any()
    assert not unknown[1].any()


# ---- what it is called -----------------------------------------------------------------------


def test_bands_keep_their_statistics_under_new_names():
    parts = {
        "aerial": Modality(("red", "height"), 0.2, mean=(100, 5), std=(50, 2)),
        "s2": Modality(("B02",), 10.0, scale=(1e-4,), temporal=True, preparation={"crop_size": 40}),
    }
    plain = stacked_modality(parts, gsd=0.2, mask_channels=False)
    assert plain == Modality(
        ("aerial.red", "aerial.height", "s2.B02"), 0.2, scale=(1, 1, 1e-4), mean=(100, 5, 0),
        std=(50, 2, 1), preparation={"s2.crop_size": 40},
    )  # fmt: skip
    masked = stacked_modality(parts, gsd=0.2, mask_channels=True)
    assert masked.bands == (*plain.bands, "aerial.available", "s2.available")
    assert (masked.mean[3:], masked.std[3:], masked.scale[3:]) == ((0, 0), (1, 1), (1, 1))
