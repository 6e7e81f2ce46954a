"""SpatialCrop: one window on the ground, at every resolution."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.data import Chain, RandomD4, SpatialCrop
from fusionlab.data.ground import ground
from fusionlab.data.transforms.spatial_crop import Zoom
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, Modality, Schema, TimeSeries


def coordinates(size, gsd, offset=(0.0, 0.0)):
    """North-south and west-east metres from the centre of the sample, ``(2, size, size)``."""
    axes = [(torch.arange(size) + 0.5 - size / 2 - shift) * gsd for shift in offset]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()


FLAIR = Schema(
    {
        "aerial": Modality(("y", "x"), 0.2),
        "s2": Modality(("y", "x"), 10.0, temporal=True),
        "codes": Modality(("cover",), 0.2),
        "caption": Modality((), kind="text"),
        "weather": Modality(("rain", "wind"), kind="series", temporal=True),
        "site": Modality(("height",), kind="table"),
    },
    ("a", "b"),
    gsd=0.2,
)


def flair(side=512, around=40, offset=(0.3, -0.4)):
    """Coordinates in metres are painted into an aerial image of 0.2 m and a series of 10 m."""
    fine, coarse = coordinates(side, 0.2), coordinates(around, 10.0, offset)
    known = torch.tensor([True, True, False])
    weather = TimeSeries(torch.rand(3, 2), torch.arange(3), known)
    return {
        "inputs": {
            "aerial": fine,
            "s2": TimeSeries(coarse.expand(3, -1, -1, -1).clone(), torch.arange(3), known),
            "codes": (torch.arange(side * side) % 7).reshape(1, side, side),
            "caption": "a field",
            "weather": weather,
            "site": torch.tensor([3.0]),
        },
        "available": {name: torch.tensor(True) for name in FLAIR.modalities},
        "cloud_cover": {"s2": coarse[:1].abs() / 400},
        "offset": {"s2": torch.tensor(offset)},
        "target": (fine[1] > 7).long(),
    }


def metres(image, gsd, scale, offset=(0.0, 0.0)):
    """The coordinates that each pixel must show, if the centre of the image shows `centre`."""
    return coordinates(image.shape[-1], gsd * scale, offset)


@pytest.mark.parametrize("scale", [0.8, (0.5, 0.95), 0.37])
def test_the_same_window_on_the_ground_at_every_resolution(scale):
    torch.manual_seed(0)
    crop, shifts = SpatialCrop(scale).bound(FLAIR), []
    for _ in range(12):
        seen = crop(flair())
        aerial, s2 = seen["inputs"]["aerial"], seen["inputs"]["s2"].values
        side = (aerial[0, -1, 0] - aerial[0, 0, 0]) / 511 / 0.2  # zoom, as painted
        low, high = scale if isinstance(scale, tuple) else (scale - 0.05, scale + 0.05)
        assert low - 1e-4 <= side <= high + 1e-4
        centre = aerial.mean(dim=(1, 2))
        assert centre.abs().max() <= (1 - side) * 51.2 + 1e-3  # inside of the old window
        torch.testing.assert_close(
            aerial, coordinates(512, 0.2 * side) + centre[:, None, None], atol=2e-3, rtol=0
        )
        offset = seen["offset"]["s2"]
        torch.testing.assert_close(offset, torch.tensor([0.3, -0.4]) / side)
        expected = coordinates(40, 10 * side, offset.tolist()) + centre[:, None, None]
        for date in s2:
            torch.testing.assert_close(date, expected, atol=0.02, rtol=0)
        torch.testing.assert_close(
            seen["cloud_cover"]["s2"][:, 2:-2, 2:-2],
            expected[:1, 2:-2, 2:-2].abs() / 400,
            atol=0.01, rtol=0,
        )  # fmt: skip
        assert torch.equal(seen["target"], (aerial[1] > 7).long()) or (
            (seen["target"] != (aerial[1] > 7)).float().mean() < 2e-3  # on the line itself
        )
        shifts.append(tuple(centre.tolist()))
    assert len(set(shifts)) > 3


def test_what_is_not_spatial_stays_and_so_do_types_and_the_argument():
    torch.manual_seed(0)
    given, untouched = flair(64, 8), flair(64, 8)
    untouched["inputs"]["weather"] = given["inputs"]["weather"]
    seen = SpatialCrop(0.7).bound(FLAIR)(given)
    for name in ("caption", "weather", "site"):
        assert seen["inputs"][name] is given["inputs"][name]
    assert seen["inputs"]["codes"].dtype == torch.int64
    for name in ("aerial", "codes"):
        assert torch.equal(given["inputs"][name], untouched["inputs"][name])
        assert seen["inputs"][name].shape == given["inputs"][name].shape
    assert set(seen["inputs"]["codes"].unique().tolist()) <= set(range(7))


def test_whole_pixels_of_the_coarsest_are_taken_where_that_is_possible():
    torch.manual_seed(0)
    laid = ground({"aerial": (300, 300), "s2": (6, 6)}, (300, 300))
    starts = set()
    for _ in range(60):
        zoom = SpatialCrop(0.8).draw(laid)
        assert zoom.scale == 5 / 6  # 4.8 pixels are not whole
        edges = [zoom.positions(6, 1 / 6, axis)[0] - zoom.scale / 2 for axis in range(2)]
        starts.add(tuple(round(edge, 6) for edge in edges))
    assert starts == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert SpatialCrop(0.8).draw(ground({"s2": (3, 3)})).scale == 0.8  # 2/3 or 1 would be far off
    assert SpatialCrop((0.6, 0.9)).draw(ground({"s2": (2, 2)})).scale not in (0.5, 1.0)


def test_whole_pixels_of_the_coarsest_are_those_that_were_there():
    """Enlarged by two, a coarse pixel's neighbours are mixed by quarters of a pixel."""
    torch.manual_seed(2)
    image = torch.rand(1, 4, 4)
    mask = torch.arange(16).reshape(4, 4)
    seen = SpatialCrop(0.5)({"inputs": {"a": image}, "target": mask})
    window = seen["target"][::2, ::2]
    row, column = divmod(int(window[0, 0]), 4)
    assert torch.equal(window, mask[row : row + 2, column : column + 2])
    assert torch.equal(seen["target"], window.repeat_interleave(2, 0).repeat_interleave(2, 1))
    expected = 0.75 * image[0, row] + 0.25 * image[0, row + 1]
    expected = 0.75 * expected[column] + 0.25 * expected[column + 1]
    torch.testing.assert_close(seen["inputs"]["a"][0, 1, 1], expected)


@given(
    st.sampled_from([torch.uint8, torch.uint16, torch.int16, torch.int32, torch.float64]),
    st.integers(0, 999),
)
@settings(max_examples=25, deadline=None)
def test_types_stay_and_nothing_is_overshot(dtype, seed):
    torch.manual_seed(seed)
    image = torch.randint(0, 120, (2, 9, 9)).to(dtype)
    seen = SpatialCrop((0.3, 1.0))({"inputs": {"a": image}})["inputs"]["a"]
    assert seen.dtype == dtype
    for before, after in zip(image.double(), seen.double(), strict=True):
        assert before.min() <= after.min()
        assert after.max() <= before.max()
    same = torch.full((1, 9, 9), 117).to(dtype)
    assert SpatialCrop(0.4)({"inputs": {"a": same}})["inputs"]["a"].double().eq(117).all()


def test_what_is_missing_stays_missing_and_does_not_spread():
    image = torch.full((1, 20, 20), 5.0)
    image[:, :10] = float("nan")
    image[0, 15, 15] = float("nan")
    heights = image.clone()
    seen = SpatialCrop(1.0)({"inputs": {"a": image}, "target": heights})
    assert seen["inputs"]["a"] is image
    torch.manual_seed(0)
    for _ in range(10):
        seen = SpatialCrop(0.83)({"inputs": {"a": image}, "target": heights})
        for values in (seen["inputs"]["a"], seen["target"]):
            known = values.isfinite()
            assert (values[known] - 5).abs().max() < 1e-5
            missing = 1 - known.float().mean()
            assert 0.3 < missing < 0.7


def test_a_mask_keeps_its_classes_and_what_is_unknown():
    mask = torch.randint(0, 3, (16, 16), generator=torch.Generator().manual_seed(0))
    mask[:4] = IGNORE_INDEX
    torch.manual_seed(0)
    for _ in range(10):
        seen = SpatialCrop((0.4, 0.9))({"inputs": {"a": torch.zeros(1, 8, 8)}, "target": mask})
        assert set(seen["target"].unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}


def test_codes_of_a_small_type_are_named():
    cover = torch.randint(0, 2, (1, 30, 30)).to(torch.uint8) * 80
    schema = Schema({"cover": Modality(("c",), 1.0)}, ("a", "b"))
    torch.manual_seed(0)
    blurred = SpatialCrop(0.63)({"inputs": {"cover": cover}})["inputs"]["cover"]
    kept = SpatialCrop(0.63, codes=["cover"]).bound(schema)({"inputs": {"cover": cover}})
    assert len(blurred.unique()) > 2
    assert kept["inputs"]["cover"].unique().tolist() == [0, 80]
    with pytest.raises(InputError, match=r"SpatialCrop.codes: there is no modality 'covers'. Did"):
        SpatialCrop(codes=["covers"]).bound(schema)


def test_images_that_are_not_square_keep_the_shape_of_pixels():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    for _ in range(5):
        seen = SpatialCrop((0.5, 0.9))({"inputs": {"a": torch.stack([y, x])}})["inputs"]["a"]
        assert seen.shape == (2, 30, 40)
        torch.testing.assert_close(seen[0, 15, 0] - seen[0, 14, 0], seen[1, 0, 20] - seen[1, 0, 19])


def test_positions_are_half_pixel_centres():
    zoom = Zoom(0.5, (1.0, 0.0))
    assert zoom.positions(4, 1.0, 0).tolist() == [2.25, 2.75, 3.25, 3.75]
    assert zoom.positions(4, 1.0, 1).tolist() == [1.25, 1.75, 2.25, 2.75]


def test_reproducible_pickled_and_in_a_chain():
    chain = Chain([SpatialCrop(), RandomD4()]).bound(FLAIR)
    torch.manual_seed(5)
    first = pickle.loads(pickle.dumps(chain))(flair(64, 8))
    torch.manual_seed(5)
    crop, turn = SpatialCrop().bound(FLAIR), RandomD4()
    second = turn(crop(flair(64, 8)))
    for name in ("aerial", "codes"):
        assert torch.equal(first["inputs"][name], second["inputs"][name])
    with pytest.raises(InputError, match="at least one transform"):
        Chain([])


@pytest.mark.parametrize("scale", [0.0, 1.2, (0.9, 0.5), (0.0, 0.5), float("nan")])
def test_scales_that_make_no_sense(scale):
    with pytest.raises(InputError, match=r"share in \(0, 1\], or a range"):
        SpatialCrop(scale)
