import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import PixelExpert
from torch.nn import functional

from fusionlab.errors import InputError
from fusionlab.models import CentreCrop, Footprint, LateFusion
from fusionlab.types import Grid, Modality, Schema


def test_centre_crop_is_the_published_one():
    maps = torch.randn(2, 3, 40, 40)
    crop = maps[..., 15:25, 15:25]
    expected = functional.interpolate(crop, (512, 512), mode="bilinear", align_corners=False)
    grid = Grid(512, 512, 0.2)
    assert torch.equal(CentreCrop()(maps, grid, gsd=10.0, name="s2"), expected)
    assert torch.equal(CentreCrop(size={"s2": 10})(maps, grid, gsd=10.0, name="s2"), expected)


def test_maps_on_the_grid_are_left_alone():
    maps = torch.randn(1, 2, 8, 8)
    for alignment in (CentreCrop(), Footprint()):
        assert alignment(maps, Grid(8, 8, 0.2), gsd=0.2, name="a") is maps


def test_a_crop_larger_than_the_map_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"s2 maps have 8 x 8 pixels.*10 x 10.*size: \{s2: 8\}"):
        CentreCrop()(torch.zeros(1, 1, 8, 8), Grid(512, 512, 0.2), gsd=10.0, name="s2")


def ramp(rows: int, columns: int, gsd: float, centre=(0.0, 0.0)) -> torch.Tensor:
    """Metres east and south of the common centre, at the centre of each pixel."""
    south = (torch.arange(rows) + 0.5 - rows / 2) * gsd - centre[0]
    east = (torch.arange(columns) + 0.5 - columns / 2) * gsd - centre[1]
    return torch.stack([south[:, None].expand(rows, columns), east.expand(rows, columns)])[None]


@given(
    rows=st.integers(8, 60),
    columns=st.integers(8, 60),
    gsd=st.floats(0.1, 1.5),
    offset=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
@settings(max_examples=30, deadline=None)
def test_footprint_puts_every_pixel_at_its_true_place(rows, columns, gsd, offset):
    # A ramp of coordinates, resampled, must give the coordinates of the reference grid, whatever
    # the sizes and wherever the centre of the coarse array lies.
    coarse = ramp(40, 40, 10.0, centre=(10 * offset[0], 10 * offset[1]))
    aligned = Footprint()(
        coarse, Grid(rows, columns, gsd), gsd=10.0, name="s2", offset=torch.tensor([offset])
    )
    torch.testing.assert_close(aligned, ramp(rows, columns, gsd), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("fine_offset", [None, (4.0, -3.0)])
def test_a_coarse_reference_whose_centre_lies_elsewhere_moves_what_is_brought_onto_it(fine_offset):
    schema = Schema({"fine": Modality(("x",), 1.0), "coarse": Modality(("y",), 10.0)}, ("s", "e"))
    experts = dict.fromkeys(schema.modalities, PixelExpert)
    model = LateFusion(schema, experts=experts, reference="coarse", alignment=Footprint)
    there = torch.ones(1, dtype=torch.bool)
    offset = {"coarse": torch.tensor([[0.0, 0.5]])}  # the sample's centre is 5 m further east
    if fine_offset:
        offset["fine"] = torch.tensor([fine_offset])
    batch = {"available": {"fine": there, "coarse": there}, "offset": offset}
    fine = ramp(80, 80, 1.0, centre=fine_offset or (0.0, 0.0))
    fused = model.fuse({"fine": fine, "coarse": torch.zeros(1, 2, 6, 6)}, batch)
    torch.testing.assert_close(fused.logits, ramp(6, 6, 10.0, centre=(0.0, 5.0)) / 2)


def test_centre_crop_shifts_the_edges_by_just_over_a_metre_and_footprint_does_not():
    truth = ramp(512, 512, 0.2)
    maps, grid = ramp(40, 40, 10.0), Grid(512, 512, 0.2)
    inner = (slice(None), slice(None), slice(30, -30), slice(30, -30))  # beyond: flat by bilinear
    cropped = CentreCrop()(maps, grid, gsd=10.0, name="s2")
    assert 0.9 < (cropped - truth)[inner].abs().max() < 1.2
    placed = Footprint()(maps, grid, gsd=10.0, name="s2")
    assert (placed - truth).abs().max() < 1e-3


def test_footprint_keeps_half_precision():
    maps = torch.randn(1, 2, 10, 10, dtype=torch.bfloat16)
    assert Footprint()(maps, Grid(20, 20, 5.0), gsd=10.0, name="s2").dtype == torch.bfloat16
