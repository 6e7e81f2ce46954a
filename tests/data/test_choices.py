import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.data.choices import fractions, limits, subset, with_statistics
from fusionlab.errors import InputError
from fusionlab.types import Modality

MODALITIES = {"s1": Modality(("VV", "VH"), 10.0, mean=(1, 2)), "dem": Modality(("h",), 30.0)}


@given(
    total=st.integers(1, 300),
    small=st.floats(0.01, 1),
    large=st.floats(0.01, 1),
    seed=st.integers(0, 5),
)
def test_smaller_draws_are_part_of_larger_ones(total, small, large, seed):
    small, large = sorted((small, large))
    few = subset(total, fraction=small, seed=seed)
    many = subset(total, fraction=large, seed=seed)
    assert set(few) <= set(many) <= set(range(total))
    assert len(few) == max(1, round(small * total))
    assert (np.diff(few) > 0).all()
    limited = subset(total, fraction=large, limit=len(few), seed=seed)
    assert np.array_equal(limited, few)


def test_a_draw_depends_on_the_seed_alone():
    draws = [subset(1000, fraction=0.05, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_nothing_to_draw_from():
    assert len(subset(0, fraction=0.5)) == 0
    assert subset(3, limit=9).tolist() == [0, 1, 2]


def test_a_plain_number_is_of_training_or_of_every_split():
    assert fractions(0.1) == {"train": 0.1}
    assert fractions({"test": 0.5}) == {"test": 0.5}
    assert limits(7) == {"train": 7, "val": 7, "test": 7}
    assert limits({"val": 2}) == {"val": 2}
    assert limits(None) == {}


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (fractions, 0, r"fraction must lie in \(0, 1\], got 0 for 'train'"),
        (fractions, {"validation": 0.1}, "fraction: there is no split 'validation'.*Known: train,"),
        (limits, 0, "max_samples must be at least 1, got 0"),
        (limits, {"dev": 2}, "max_samples: there is no split 'dev'"),
    ],
)
def test_numbers_that_make_no_sense(read, given, message):
    with pytest.raises(InputError, match=message):
        read(given)


def test_own_statistics_replace_the_published_ones():
    chosen = with_statistics(MODALITIES, mean={"dem": [7]}, std={"s1": [3, 4]})
    assert (chosen["s1"].mean, chosen["s1"].std) == ((1, 2), (3, 4))
    assert (chosen["dem"].mean, chosen["dem"].std) == ((7,), (1,))
    assert MODALITIES["dem"].mean == (0,)
    with pytest.raises(InputError, match=r"std: there is no modality 'S1'. Did you mean s1"):
        with_statistics(MODALITIES, mean=None, std={"S1": [1, 1]})
    with pytest.raises(InputError, match=r"2 bands .* but 3 values of mean"):
        with_statistics(MODALITIES, mean={"s1": [1, 2, 3]}, std=None)
