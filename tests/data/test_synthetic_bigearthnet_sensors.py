"""What each sensor can tell of synthetic BigEarthNet."""

from itertools import combinations

import numpy as np

from fusionlab.data.bigearthnet.constants import CLASSES, CORINE, UNLABELLED
from fusionlab.data.synthetic.bigearthnet import (
    DEFAULT_CLASSES,
    BigEarthNetConfig,
    radar_alike,
    reflectance_alike,
)
from fusionlab.data.synthetic.bigearthnet.covers import COVERS, OUTSIDE
from fusionlab.data.synthetic.bigearthnet.land import draw_patch
from fusionlab.data.synthetic.bigearthnet.look import draw_look
from fusionlab.data.synthetic.bigearthnet.places import TILES
from fusionlab.data.synthetic.bigearthnet.sensors import render_sentinel1, render_sentinel2
from fusionlab.data.synthetic.landscape.config import generator


def means(classes: tuple[str, ...], tiles: int, patches: int) -> tuple[np.ndarray, ...]:
    """Class (N,), mean reflectance (N, 12) and mean decibel (N, 2) of pieces of land."""
    config = BigEarthNetConfig(classes=classes, unlabelled=0.0)
    found, s2, s1 = [], [], []
    for number in range(patches):
        tile = TILES[number % tiles]
        look = draw_look(0, tile.name, "train", tile.date)
        rng = generator(7, number)
        land = draw_patch(rng, config, 120)
        optical, radar = render_sentinel2(land, look, rng), render_sentinel1(land, look, rng)
        area = np.bincount(land.segment.ravel(), minlength=len(land.cover))
        bands = [values.repeat(120 // len(values), 0).repeat(120 // len(values), 1)
                 for values in (*optical.values(), *radar.values())]  # fmt: skip
        total = np.stack([np.bincount(land.segment.ravel(), b.ravel(), len(area)) for b in bands])
        large = area > 500
        mean = (total[:, large] / area[large]).T
        found.append(land.cover[large])
        s2.append(mean[:, :12])
        s1.append(mean[:, 12:])
    return np.concatenate(found), np.concatenate(s2), np.concatenate(s1)


def test_alike_to_one_sensor_is_not_alike_to_the_other():
    found, s2, s1 = means(CLASSES, tiles=1, patches=260)
    s2 = np.log(s2)
    s2 = np.concatenate([s2, s2 - s2.mean(1, keepdims=True)], axis=1)  # level, and shape

    def contrast(values: np.ndarray, pair: tuple[str, str]) -> float:
        """Largest difference of the means over bands, in standard deviations within a class."""
        a, b = (values[found == CLASSES.index(name)] for name in pair)
        spread = np.sqrt((a.var(0) + b.var(0)) / 2)
        return float((np.abs(a.mean(0) - b.mean(0)) / spread).max())

    assert not set(reflectance_alike()) & set(radar_alike())
    for pair in reflectance_alike():
        assert contrast(s2, pair) < 1, pair
        assert contrast(s1, pair) > 1.5, pair
    for pair in radar_alike():
        assert contrast(s1, pair) < 1, pair
        assert contrast(s2, pair) > 1.5, pair
    alike = {name for pair in (*reflectance_alike(), *radar_alike()) for name in pair}
    assert alike == set(CLASSES)


def test_neither_sensor_suffices_over_seasons_and_places():
    found, s2, s1 = means(DEFAULT_CLASSES, tiles=8, patches=160)

    def accuracy(values: np.ndarray) -> float:
        """Of Bayes with a normal distribution of each class, learned on even and tried on odd."""
        score = []
        for index in np.unique(found):
            known = values[::2][found[::2] == index]
            cov = np.cov(known.T) + 0.02 * np.eye(values.shape[1])
            off = values[1::2] - known.mean(0)
            distance = np.einsum("nd,de,ne->n", off, np.linalg.inv(cov), off)
            score.append(distance + np.linalg.slogdet(cov)[1])
        return float((np.unique(found)[np.argmin(score, 0)] == found[1::2]).mean())

    few = np.log(s2[:, [1, 3, 5, 7, 10, 11]])  # blue, red, red edge, near and short-wave infrared
    few, s1 = ((v - v.mean(0)) / v.std(0) for v in (few, s1))
    alone = max(accuracy(few), accuracy(s1))
    assert alone > 0.35
    assert accuracy(np.concatenate([few, s1], axis=1)) > alone + 0.1


def test_covers_name_their_codes():
    for name, cover in zip(CLASSES, COVERS, strict=False):
        assert {CORINE[code] for code in cover.codes} == {name}
    for index in OUTSIDE:
        assert set(COVERS[index].codes) <= set(UNLABELLED)
    looks = [(cover.optical, cover.radar) for cover in COVERS[: len(CLASSES)]]
    assert not any(a == b for a, b in combinations(looks, 2))
