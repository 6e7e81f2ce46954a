import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.data import time_series
from fusionlab.errors import InputError


def day(text):
    return int(np.datetime64(text, "D").astype(np.int64))


class TestDates:
    def test_sensing_date_not_processing_date(self):
        name = "S2A_MSIL2A_20210415T105021_N0300_R051_T31UDP_20210416T135921"
        assert time_series.product_date(name) == day("2021-04-15")

    @pytest.mark.parametrize("name", ["", "S2A_MSIL2A_2021", "S2A_MSIL2A_20211315T105021_N0300"])
    def test_names_without_a_date_are_refused(self, name):
        with pytest.raises(InputError, match="No sensing date"):
            time_series.product_date(name)

    def test_file_and_line_are_named(self, tmp_path):
        path = tmp_path / "products.txt"
        path.write_text("S2A_MSIL2A_20210415T105021_N0300\n\nnonsense\n")
        with pytest.raises(InputError, match=r"products\.txt, line 3: .*nonsense"):
            time_series.read_product_dates(path)

    def test_order_of_the_file_is_kept(self, tmp_path):
        path = tmp_path / "products.txt"
        path.write_text("A_20210415T105021\r\nB_19700102T105021\r\n")
        assert time_series.read_product_dates(path).tolist() == [day("2021-04-15"), 1]

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputError, match="gone"):
            time_series.read_product_dates(tmp_path / "gone.txt")


# Four dates of four pixels; the channels are snow and cloud.
MASKS = np.zeros((4, 2, 2, 2), dtype=np.uint8)
MASKS[1, 1] = [[60, 0], [0, 0]]  # a quarter cloudy
MASKS[2, 0] = [[100, 0], [0, 0]]  # snow and cloud in one pixel: counts twice
MASKS[2, 1] = [[60, 59], [0, 0]]
MASKS[3, 1] = 100


class TestClouds:
    def test_published_filter(self):
        assert time_series.clear_dates(MASKS).tolist() == [0, 1]

    def test_thresholds(self):
        assert time_series.clear_dates(MASKS, area_threshold=0.25).tolist() == [0]
        assert time_series.clear_dates(MASKS, area_threshold=0.51).tolist() == [0, 1, 2]
        # From 59 on, two pixels of the third date are cloudy and one snowy: 3 / 4.
        clear = time_series.clear_dates(MASKS, threshold=59, area_threshold=0.75)
        assert clear.tolist() == [0, 1]

    def test_cover_is_the_share_of_dates_with_snow_or_cloud(self):
        cover = time_series.cloud_cover(MASKS, threshold=60)
        assert cover.dtype == np.float32
        np.testing.assert_array_equal(cover, [[[0.75, 0.25], [0.25, 0.25]]])

    def test_without_dates_all_is_hidden(self):
        assert time_series.cloud_cover(MASKS[:0], threshold=60).tolist() == [[[1, 1], [1, 1]]]


class TestEvenlySpaced:
    def test_by_hand(self):
        steps = np.array([2, 3, 5, 8, 9])
        assert time_series.evenly_spaced(steps, 3).tolist() == [2, 5, 9]
        assert time_series.evenly_spaced(steps, 1).tolist() == [5]
        assert time_series.evenly_spaced(steps, None) is steps

    @given(st.integers(0, 60), st.integers(1, 70))
    def test_no_step_twice_and_never_more_than_the_limit(self, count, limit):
        kept = time_series.evenly_spaced(np.arange(count), limit)
        assert len(kept) == min(count, limit)
        assert (np.diff(kept) > 0).all()


class TestMonthlyMeans:
    def test_by_hand(self):
        dates = np.array([day(d) for d in ("2020-03-31", "2020-03-01", "2020-05-10")])
        values = np.array([[[1]], [[4]], [[7]]], dtype=np.uint16)
        means, middle = time_series.monthly_means(values, dates)
        assert means.dtype == np.float32
        assert means.ravel().tolist() == [2.5, 7]
        assert middle.tolist() == [day("2020-03-15"), day("2020-05-15")]

    def test_same_month_of_two_years_stays_apart(self):
        dates = np.array([day("2021-01-03"), day("2020-01-03")])
        means, middle = time_series.monthly_means(np.array([1.0, 2.0]), dates)
        assert means.tolist() == [2, 1]
        assert middle.tolist() == [day("2020-01-15"), day("2021-01-15")]

    def test_only_what_was_observed_is_averaged(self):
        dates = np.array([day(d) for d in ("2020-03-01", "2020-03-31", "2020-05-10")])
        nan = np.nan
        values = np.array([[1, nan, nan], [4, 6, nan], [7, nan, 9]], dtype=np.float32)
        means, _ = time_series.monthly_means(values, dates)
        np.testing.assert_array_equal(means, [[2.5, 6, nan], [7, nan, 9]])
        counts = np.nan_to_num(values, nan=60000).astype(np.uint16)
        means, _ = time_series.monthly_means(counts, dates, observed=np.isfinite(values))
        np.testing.assert_array_equal(means, [[2.5, 6, nan], [7, nan, 9]])

    @given(st.lists(st.integers(0, 400), min_size=1, max_size=9), st.integers(0, 99))
    def test_a_mask_that_is_true_everywhere_changes_nothing(self, days, seed):
        values = np.random.default_rng(seed).integers(0, 9000, (len(days), 2, 3)).astype(np.uint16)
        plain, _ = time_series.monthly_means(values, np.array(days))
        masked, _ = time_series.monthly_means(
            values, np.array(days), observed=np.ones(values.shape, bool)
        )
        np.testing.assert_allclose(masked, plain, rtol=1e-6)


def test_dates_without_any_value_are_not_seen():
    values = np.zeros((5, 2, 3, 3), dtype=np.float32)
    values[1, 1, 2, 2] = -4
    values[2] = np.nan
    values[3] = np.inf
    values[4, 0, 0, 0] = 7
    assert time_series.seen_dates(values).tolist() == [1, 4]
    observed = np.ones(values.shape, bool)
    observed[4, :, 0] = False
    assert time_series.seen_dates(values, observed).tolist() == [1]
    assert time_series.seen_dates(values[:0]).tolist() == []


class TestPaddedCrop:
    array = np.arange(2 * 8 * 6).reshape(2, 8, 6)

    def test_inside_it_is_plain_indexing(self):
        crop = time_series.padded_crop(self.array, (4, 2), 4)
        np.testing.assert_array_equal(crop, self.array[:, 2:6, 0:4])

    def test_past_the_border_the_nearest_pixel_repeats(self):
        crop = time_series.padded_crop(self.array, (1, 5), 4)
        np.testing.assert_array_equal(crop[:, 1:, :3], self.array[:, 0:3, 3:6])
        np.testing.assert_array_equal(crop[:, 0], crop[:, 1])
        np.testing.assert_array_equal(crop[:, :, 3], crop[:, :, 2])

    def test_steps_in_the_order_given(self):
        crop = time_series.padded_crop(self.array, (4, 2), 4, steps=np.array([1, 0]))
        np.testing.assert_array_equal(crop, self.array[[1, 0], 2:6, 0:4])

    @given(st.integers(0, 7), st.integers(0, 5), st.integers(1, 12).map(lambda n: 2 * n))
    def test_equals_indexing_with_clipped_positions(self, row, col, size):
        rows = np.arange(row - size // 2, row + size // 2).clip(0, 7)
        cols = np.arange(col - size // 2, col + size // 2).clip(0, 5)
        np.testing.assert_array_equal(
            time_series.padded_crop(self.array, (row, col), size),
            self.array[:, rows][:, :, cols],
        )
