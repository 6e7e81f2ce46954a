"""Paired tests are those of the textbook, and say what they cannot say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fusionlab.errors import InputError
from fusionlab.study.significance import difference_text, holm, p_text, paired_tests


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_by_hand():
    # Differences 0.10, 0.12, 0.14: mean 0.12, standard deviation 0.02, t = 0.12 / (0.02 / √3).
    scores = {"early": by_seed(0.5, 0.6, 0.7), "late": by_seed(0.6, 0.72, 0.84)}
    result = paired_tests(scores, "test/miou")
    (test,) = result.tests
    assert (result.best, test.member, test.seeds) == ("late", "early", (0, 1, 2))
    assert test.difference == pytest.approx(0.12)
    assert test.t == pytest.approx(6 * math.sqrt(3))
    # With two degrees of freedom P(|T| > t) = 1 - t / √(t² + 2), and the 97.5 % quantile is 4.3027.
    assert test.p == pytest.approx(1 - 6 * math.sqrt(3) / math.sqrt(110), abs=1e-12)
    half = 4.302652729911275 * 0.02 / math.sqrt(3)
    assert (test.low, test.high) == pytest.approx((0.12 - half, 0.12 + half))
    assert test.corrected == test.p
    assert test.significant


def test_as_scipy_does_it():
    rng = np.random.default_rng(1)
    scores = {name: by_seed(*rng.normal(i, 1, 7)) for i, name in enumerate("abcd")}
    result = paired_tests(scores, "own")
    best = list(scores[result.best].values())
    for test in result.tests:
        expected = stats.ttest_rel(best, list(scores[test.member].values()))
        interval = expected.confidence_interval(0.95)
        assert (test.t, test.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert (test.low, test.high) == pytest.approx((interval.low, interval.high))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.6 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.6; never falling.
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_none_and_bonferroni_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-15
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


def test_less_is_better_and_nearest_to_zero_is_better():
    scores = {"a": by_seed(3.0, 3.1, 3.3), "b": by_seed(1.0, 1.2, 1.1)}
    errors = paired_tests(scores, "rmse")
    assert errors.best == "b"
    assert errors.tests[0].difference == pytest.approx(np.mean([2.0, 1.9, 2.2]))
    biases = {"a": by_seed(-0.3, -0.5), "b": by_seed(0.1, -0.1)}
    result = paired_tests(biases, "bias")
    assert result.best == "b"
    assert result.tests[0].difference == pytest.approx(0.3)
    assert "distance of bias from 0" in result.sentences()[0]


def test_only_common_seeds_count():
    scores = {"a": {0: 1.0, 1: 1.1, 2: 1.3, 9: 50.0}, "b": {0: 0.9, 1: 0.8, 2: 1.1, 7: 0.0}}
    (test,) = paired_tests(scores, "own").tests
    assert test.seeds == (0, 1, 2)
    assert test.difference == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("other", "reason", "difference"),
    [
        ({5: 0.1}, "no value of mIoU in any common seed", None),
        ({0: 0.5}, "both have a value of mIoU in one seed only (0)", 0.4),
        ({0: 0.9, 1: 0.8}, "equal in every seed", 0.0),
        # The same but for the rounding of single precision.
        ({0: float(np.float32(0.7)), 1: float(np.float32(0.6))}, "the same in every seed", 0.2),
        ({0: math.nan, 1: 0.2}, "both have a value of mIoU in one seed only (1)", 0.6),
        ({0: math.nan, 1: math.nan}, "no value of mIoU in any common seed", None),
        ({}, "no value of mIoU in any common seed", None),
    ],
)
def test_where_there_is_no_test_it_says_why(other, reason, difference):
    result = paired_tests({"best": by_seed(0.9, 0.8), "other": other}, "miou", best="best")
    (test,) = result.tests
    assert reason in test.reason
    assert (test.p, test.corrected, test.low, test.significant) == (None, None, None, False)
    assert test.difference == (None if difference is None else pytest.approx(difference, abs=1e-6))
    assert any(reason in line and "no test of best against other" in line
               for line in result.sentences())  # fmt: skip
    assert result.limits() == []


@pytest.mark.filterwarnings("error")
def test_members_without_a_test_do_not_count_in_the_correction():
    scores = {
        "best": by_seed(0.9, 0.95, 0.91),
        "same": by_seed(0.9, 0.95, 0.91),
        "near": by_seed(0.5, 0.56, 0.53),
        "alone": {7: 0.1},
    }
    same, near, alone = paired_tests(scores, "miou", best="best").tests
    assert near.corrected == near.p  # the only one
    assert same.reason
    assert alone.reason


def test_the_best_may_be_behind_over_the_seeds_that_both_have():
    scores = {"a": {0: 0.99, 1: 0.80, 2: 0.801}, "c": {1: 0.85, 2: 0.8511}}
    result = paired_tests(scores, "accuracy")
    (test,) = result.tests
    assert (result.best, test.difference) == ("a", pytest.approx(-0.05005))
    assert test.corrected < 0.05
    assert not test.significant
    assert result.sentences() == [
        "a has the best mean in accuracy over its own seeds; over the seeds both have, c is ahead "
        "by 5.00 points (p < 0.001)."
    ]


def test_one_that_is_behind_in_a_single_common_seed():
    scores = {"a": {0: 0.99, 1: 0.80}, "c": {1: 0.85}, "d": {1: 0.8}}
    ahead, *untested = paired_tests(scores, "accuracy").sentences()
    assert ahead.endswith("over the seeds both have, c is ahead by 5.00 points.")
    assert untested == [
        "There is no test of a against c and d: both have a value of accuracy in one seed only "
        "(1), and a test needs two or more."
    ]


def test_large_differences_are_written_in_full():
    assert difference_text(1234.5, "rmse") == "+1,234"
    assert difference_text(-1234.5, "rmse") == "-1,234"


def test_sentences_and_limits():
    scores = {
        "late": by_seed(0.90, 0.91, 0.93),
        "early": by_seed(0.70, 0.71, 0.735),
        "add": by_seed(0.95, 0.80, 0.90),
    }
    result = paired_tests(scores, "test/miou")
    clear, open_ = result.sentences()
    assert clear.startswith("In mIoU, late is better than early (by 19.83 points, p < 0.001)")
    assert open_.startswith("Whether late is better in mIoU than add (by 3.00 points, p = 0.")
    assert "3 seeds are few" in result.limits()[0]
    assert any("not what other data would give" in line for line in result.limits())
    many = {m: by_seed(*np.random.default_rng(i).normal(size=8)) for i, m in enumerate("ab")}
    assert not any("few" in line for line in paired_tests(many, "miou").limits())


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (1e-9, "< 0.001"), (0.04321, "0.043")])
def test_p_values(p, text):
    assert p_text(p) == text


def test_differences_are_in_points_or_in_the_unit():
    assert difference_text(0.0123, "miou") == "+1.23"
    assert difference_text(-1.234, "rmse") == "-1.23"
    assert difference_text(None, "rmse") == "–"


@pytest.mark.parametrize(
    ("scores", "best"), [({}, None), ({"a": {}}, None), ({"a": {0: 1.0}}, "b")]
)
def test_nothing_to_test(scores, best):
    with pytest.raises(InputError, match="There is no miou of"):
        paired_tests(scores, "miou", best=best)
