import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.data.transforms import D4, ModalityDropout, RandomD4
from fusionlab.errors import InputError
from fusionlab.types import TimeSeries

symmetries = st.builds(D4, st.integers(0, 3), st.booleans())


def sample(height=12, width=12, ratio=4):
    """All kinds of entries; every pixel has its own value."""
    small = (height // ratio, width // ratio)
    return {
        "inputs": {
            "aerial": torch.arange(2 * height * width).reshape(2, height, width).to(torch.uint8),
            "sentinel2": TimeSeries(
                (torch.arange(3 * 2 * small[0] * small[1]) + 40000)
                .reshape(3, 2, *small)
                .to(torch.uint16),
                torch.tensor([1, 2, 3]),
                torch.tensor([True, True, False]),
            ),
            "weather": torch.arange(4.0),
        },
        "available": {m: torch.tensor(True) for m in ("aerial", "sentinel2", "weather")},
        "cloud_cover": {"sentinel2": torch.rand(1, *small)},
        "offset": {"sentinel2": torch.tensor([0.25, -1.5])},
        "target": torch.arange(height * width).reshape(height, width),
        "sample_id": "IMG_000001",
    }


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, TimeSeries):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        assert a == b


@given(symmetries)
def test_inverse_restores_everything(symmetry):
    original = sample()
    assert_equal(symmetry.inverse(symmetry(original)), original)


@given(symmetries, st.integers(0, 2), st.integers(0, 2))
def test_a_place_on_the_ground_stays_one_place(symmetry, row, col):
    # Paint one Sentinel-2 pixel and the aerial pixels over it; they must still coincide after.
    painted = sample()
    painted["inputs"]["aerial"].zero_()
    painted["inputs"]["sentinel2"].values.zero_()
    painted["cloud_cover"]["sentinel2"].zero_()
    painted["target"].zero_()
    block = (slice(4 * row, 4 * row + 4), slice(4 * col, 4 * col + 4))
    painted["inputs"]["aerial"][:, *block] = 1
    painted["inputs"]["sentinel2"].values[:, :, row, col] = 1
    painted["cloud_cover"]["sentinel2"][:, row, col] = 1
    painted["target"][block] = 1
    # A vector from the array's centre to that pixel.
    painted["offset"]["sentinel2"] = torch.tensor([row - 1.0, col - 1.0])

    moved = symmetry(painted)
    coarse = moved["inputs"]["sentinel2"].values[0, 0].long()
    fine = coarse.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert coarse.sum() == 1
    assert torch.equal(moved["inputs"]["aerial"][0].long(), fine)
    assert torch.equal(moved["target"], fine)
    assert torch.equal(moved["cloud_cover"]["sentinel2"][0].long(), coarse)
    r, c = (moved["offset"]["sentinel2"] + 1).long().tolist()
    assert coarse[r, c] == 1


@given(symmetries)
def test_what_is_not_spatial_stays(symmetry):
    original = sample()
    moved = symmetry(original)
    assert torch.equal(moved["inputs"]["weather"], original["inputs"]["weather"])
    assert torch.equal(moved["inputs"]["sentinel2"].dates, original["inputs"]["sentinel2"].dates)
    assert torch.equal(moved["inputs"]["sentinel2"].valid, original["inputs"]["sentinel2"].valid)
    original["target"] = torch.tensor([1.0, 0.0])
    assert torch.equal(symmetry(original)["target"], torch.tensor([1.0, 0.0]))


def test_the_eight_symmetries_differ_and_all_are_drawn():
    image = torch.arange(9).reshape(3, 3)
    torch.manual_seed(0)
    drawn = {
        tuple(RandomD4()({"inputs": {"a": image}})["inputs"]["a"].flatten().tolist())
        for _ in range(200)
    }
    assert len(drawn) == 8


@pytest.mark.parametrize(
    ("flips", "quarter_turns", "count"), [(True, False, 4), (False, True, 4), (False, False, 1)]
)
def test_arguments_limit_the_choice(flips, quarter_turns, count):
    image = torch.arange(9).reshape(3, 3)
    choices = RandomD4(flips=flips, quarter_turns=quarter_turns).choices(square=True)
    moved = {tuple(choice.image(image).flatten().tolist()) for choice in choices}
    assert len(choices) == len(moved) == count
    assert D4() in choices


def test_shapes_never_change():
    torch.manual_seed(0)
    original = sample(height=8, width=12)
    for _ in range(30):
        moved = RandomD4()(original)
        assert moved["inputs"]["aerial"].shape == original["inputs"]["aerial"].shape
        assert moved["target"].shape == original["target"].shape


def test_reproducible_and_does_not_touch_its_argument():
    original, untouched = sample(), sample()
    untouched["cloud_cover"] = {"sentinel2": original["cloud_cover"]["sentinel2"].clone()}
    torch.manual_seed(3)
    first = [RandomD4()(original) for _ in range(5)]
    torch.manual_seed(3)
    for expected in first:
        assert_equal(RandomD4()(original), expected)
    assert_equal(original, untouched)


class TestModalityDropout:
    def test_something_always_stays(self):
        torch.manual_seed(0)
        dropout = ModalityDropout({"aerial": 1.0, "sentinel2": 1.0, "weather": 1.0})
        kept = set()
        for _ in range(60):
            available = dropout(sample())["available"]
            left = [m for m, there in available.items() if there]
            assert len(left) == 1
            kept.update(left)
        assert kept == {"aerial", "sentinel2", "weather"}

    def test_the_only_one_present_stays(self):
        original = sample()
        original["available"]["aerial"] = torch.tensor(False)
        original["available"]["weather"] = torch.tensor(False)
        dropped = ModalityDropout({"sentinel2": 1.0})(original)
        assert dropped["available"]["sentinel2"]

    def test_dropped_inputs_are_zero_in_the_same_type(self):
        original = sample()
        dropped = ModalityDropout({"aerial": 1.0, "sentinel2": 1.0})(original)
        assert not dropped["available"]["aerial"]
        assert dropped["inputs"]["aerial"].dtype == torch.uint8
        assert dropped["inputs"]["aerial"].shape == original["inputs"]["aerial"].shape
        assert not dropped["inputs"]["aerial"].any()
        series = dropped["inputs"]["sentinel2"]
        assert series.values.shape == (1, 2, 3, 3)
        assert series.values.dtype == torch.uint16
        assert series.valid.tolist() == [False]
        assert original["available"]["aerial"]
        assert original["inputs"]["aerial"].any()

    def test_frequency(self):
        torch.manual_seed(0)
        dropout = ModalityDropout({"aerial": 0.3})
        gone = sum(not dropout(sample())["available"]["aerial"] for _ in range(1000))
        assert 250 < gone < 350

    @pytest.mark.parametrize("probability", [-0.1, 1.5])
    def test_probability_out_of_range(self, probability):
        with pytest.raises(InputError, match="aerial"):
            ModalityDropout({"aerial": probability})
