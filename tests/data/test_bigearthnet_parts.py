"""Parts of BigEarthNet v2 without samples: classes and statistics, grids, names of patches."""

import numpy as np
import pytest
import torch
from bigearthnet_files import AUSTRIA, pixels
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.constants import CLASSES, CLASSES_PAPER, CORINE, STATISTICS
from fusionlab.data.bigearthnet.grid import repeat, stack
from fusionlab.data.bigearthnet.names import parent, parse
from fusionlab.data.bigearthnet.targets import class_table


class TestFacts:
    def test_the_two_orders_are_permutations_of_each_other(self):
        assert sorted(CLASSES) == sorted(CLASSES_PAPER) == list(CLASSES)
        assert len(set(CLASSES)) == 19

    def test_every_class_has_codes_and_a_colour_of_its_own(self):
        assert set(CORINE.values()) == set(CLASSES)
        assert set(constants.COLORS) == set(CLASSES)
        assert len(set(constants.COLORS.values())) == 19
        assert not set(CORINE) & set(constants.UNLABELLED)

    def test_the_43_classes_of_v1_agree_with_the_codes(self):
        assert len(constants.V1_LABELS) == 43
        assert set(constants.V1_LABELS.values()) == {*CLASSES, None}
        assert sum(kept is None for kept in constants.V1_LABELS.values()) == 11

    def test_statistics_cover_all_bands(self):
        for table in STATISTICS.values():
            assert set(table) == set(constants.BANDS)

    @given(st.integers(0, 2**16 - 1), st.sampled_from([CLASSES, CLASSES_PAPER]))
    def test_a_code_means_the_same_class_in_both_orders(self, code, order):
        value = class_table(order)[code]
        name = CORINE.get(code)
        if name is not None:
            assert order[value] == name
        else:
            assert value == (255 if code in (0, *constants.UNLABELLED) else -1)


class TestGrid:
    @given(
        n=st.integers(1, 9),
        factor=st.integers(1, 6),
        dtype=st.sampled_from([np.uint16, np.float32]),
        seed=st.integers(0, 99),
    )
    def test_nearest_is_the_kronecker_product_with_ones(self, n, factor, dtype, seed):
        band = np.random.default_rng(seed).integers(0, 65535, (n, n)).astype(dtype)
        out = np.empty((n * factor, n * factor), dtype)
        repeat(band, out)
        assert np.array_equal(out, np.kron(band, np.ones((factor, factor), dtype)))

    def test_bilinear_is_that_of_pytorch_and_leaves_fine_bands_alone(self):
        bands = [pixels("a", band) for band in ("B02", "B05", "B01", "B11")]
        image = stack(bands, 120, np.dtype(np.float32), upsampling="bilinear")
        for channel, band in zip(image, bands, strict=True):
            expected = functional.interpolate(
                torch.from_numpy(band.astype(np.float32))[None, None],
                size=(120, 120),
                mode="bilinear",
                align_corners=False,
            )
            assert np.array_equal(channel, expected[0, 0].numpy())
        assert np.array_equal(image[0], bands[0])

    def test_bilinear_keeps_the_mean(self):
        (band,) = (pixels("a", "B01"),)
        image = stack([band], 120, np.dtype(np.float32), upsampling="bilinear")
        assert image.mean() == pytest.approx(band.mean(), rel=1e-4)


class TestNames:
    @given(
        tile=st.sampled_from(["33UUP", "29SND", "35VPK", "01ABC"]),
        column=st.integers(0, 99),
        row=st.integers(0, 99),
    )
    def test_padded_and_unpadded_names_mean_one_place(self, tile, column, row):
        s2 = f"S2A_MSIL2A_20170613T101031_N9999_R022_T{tile}_{column:02d}_{row:02d}"
        s1 = f"S1B_IW_GRDH_1SDV_20170612T165809_{tile}_{column}_{row}"
        optical, radar = parse(s2, sensor="S2"), parse(s1, sensor="S1")
        assert optical.place == radar.place == (tile, column, row)
        assert parent(s2, sensor="S2", version="v2") == s2[: -len("_00_00")]
        assert parent(s1, sensor="S1", version="v2") == "S1B_IW_GRDH_1SDV_20170612T165809"

    def test_sloppy_times_of_v1(self):
        def seconds(name):
            return parse(name, sensor="S2", version="v1").seconds % 86400

        assert seconds("S2B_MSIL2A_20170924T93020_69_24") == 9 * 3600 + 30 * 60 + 20
        assert seconds("S2B_MSIL2A_20180204T94161_57_38") == 9 * 3600 + 42 * 60 + 1

    @pytest.mark.parametrize(
        "name",
        [
            "S2A_MSIL2A_20170613T101031_26_57",
            "S2A_MSIL2A_20171313T101031_N9999_R022_T33UUP_26_57",
            f"{AUSTRIA}_26_57_reference_map",
            "notes",
        ],
    )
    def test_other_names_are_no_patches(self, name):
        assert parse(name, sensor="S2", version="v2") is None
