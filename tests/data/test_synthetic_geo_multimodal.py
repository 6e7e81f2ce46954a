"""Synthetic images with captions, tables and series: by seed, as laid out, and what tells uses."""

import csv
import datetime as dt
import os
import runpy
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform
from synthetic_sets import digests

from fusionlab.data.synthetic.geo_multimodal import (
    CLASSES,
    GeoMultimodalConfig,
    contact_sheet,
    write_geo_multimodal,
)
from fusionlab.data.synthetic.geo_multimodal.geography import draw_country, draw_site
from fusionlab.data.synthetic.geo_multimodal.uses import USES
from fusionlab.data.synthetic.geo_multimodal.write import TABLE, VARIABLES, draw, plan
from fusionlab.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_geo_multimodal"
TINY = GeoMultimodalConfig(samples=15, patch_size=20)
FULL = GeoMultimodalConfig(
    samples=96, patch_size=24, no_caption=0, no_weather=0, empty_cells=0, clouded=0, second_visits=0
)
"""Nothing is missing, and every use has eight sites."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_geo_multimodal(tmp_path_factory.mktemp("set") / "data", TINY)


@pytest.fixture(scope="module")
def samples():
    return [draw(FULL, visit) for visit in plan(FULL)]


def rows_of(made) -> list[dict[str, str]]:
    with made.manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of(samples, use):
    return [sample for sample in samples if sample.site.use == use]


# ---- what is written ----------------------------------------------------------------------------


def test_the_manifest_lists_what_is_there(written):
    rows = rows_of(written)
    assert len(rows) == 15
    assert written.written
    assert sum(written.samples.values()) == 15
    assert Counter(row["split"] for row in rows) == {k: n for k, n in written.samples.items() if n}
    assert {row["land_use"] for row in rows} <= set(CLASSES)
    files = {path.relative_to(written.root).as_posix() for path in written.root.rglob("*.*")}
    listed = {row[name] for row in rows for name in ("image", "weather") if row[name]}
    assert files == listed | {"manifest.csv", "synthetic.json"}


def test_images_lie_where_the_table_says(written):
    for row in rows_of(written):
        with rasterio.open(written.root / row["image"]) as image:
            assert (image.count, image.width, image.height) == (4, 20, 20)
            assert image.dtypes[0] == "uint8"
            assert image.descriptions == ("red", "green", "blue", "nir")
            assert image.res == (2.0, 2.0)
            x, y = image.xy(9.5, 9.5)
            (longitude,), (latitude,) = transform(image.crs, "EPSG:4326", [x], [y])
        for name, value in (("longitude", longitude), ("latitude", latitude)):
            if row[name]:
                assert float(row[name]) == pytest.approx(value, abs=2e-4)


def test_series_are_weeks_of_the_year_of_the_image(written):
    for row in rows_of(written):
        if not row["weather"]:
            continue
        with (written.root / row["weather"]).open() as file:
            weeks = list(csv.DictReader(file))
        assert len(weeks) == 52
        assert list(weeks[0]) == ["date", *VARIABLES]
        dates = [dt.date.fromisoformat(week["date"]) for week in weeks]
        assert {(b - a).days for a, b in pairwise(dates)} == {7}
        assert {date.year for date in dates} == {int(row["date"][:4])}
        assert any(not week["ndvi"] for week in weeks)  # clouds
        assert sum(bool(week["ndvi"]) for week in weeks) > 10


@pytest.mark.slow
def test_a_set_is_the_same_from_any_number_of_processes(written, tmp_path):
    again = write_geo_multimodal(tmp_path / "again", TINY, workers=2)
    assert digests(again.root) == digests(written.root)


def test_a_set_is_its_seed_whatever_the_number_of_samples(written, tmp_path):
    again = write_geo_multimodal(tmp_path / "again", TINY)
    assert digests(again.root) == digests(written.root)
    other = write_geo_multimodal(
        tmp_path / "other", GeoMultimodalConfig(samples=15, patch_size=20, seed=1)
    )
    assert digests(other.root)["images/00000.tif"] != digests(written.root)["images/00000.tif"]
    fewer = write_geo_multimodal(tmp_path / "fewer", GeoMultimodalConfig(samples=4, patch_size=20))
    assert rows_of(fewer) == rows_of(written)[:4]
    assert digests(fewer.root).items() - digests(written.root).items() == {
        (name, digests(fewer.root)[name]) for name in ("manifest.csv", "synthetic.json")
    }


def test_a_folder_that_holds_the_set_is_left_as_it_is(written):
    again = write_geo_multimodal(written.root, TINY)
    assert not again.written
    assert again.samples == written.samples
    with pytest.raises(InputError, match="holds a set of another configuration"):
        write_geo_multimodal(written.root, FULL)


def test_sites_are_in_one_split_and_some_are_photographed_twice():
    config = GeoMultimodalConfig(samples=2000)
    visits = plan(config)
    assert len(visits) == len(set(visits)) == 2000
    sites = [draw_site(0, visit.site) for visit in visits]
    by_use = Counter(site.use for site in sites)
    assert set(by_use) == set(CLASSES)
    assert max(by_use.values()) < 1.35 * min(by_use.values())
    shares = Counter(site.split for site in sites)
    for split, share in (("train", 0.6), ("val", 0.15), ("test", 0.25)):
        assert shares[split] / 2000 == pytest.approx(share, abs=0.03)
        assert {site.use for site in sites if site.split == split} == set(CLASSES)
    twice = [site for site, n in Counter(visit.site for visit in visits).items() if n == 2]
    assert len(twice) / len({visit.site for visit in visits}) == pytest.approx(0.25, abs=0.04)
    first = [visit for visit in visits if visit.site == twice[0]]
    assert first[0].season != first[1].season


def test_what_is_missing_is_missing_as_often_as_asked(tmp_path):
    config = GeoMultimodalConfig(
        samples=120, patch_size=16, no_caption=0.3, no_weather=0.4, empty_cells=0.2
    )
    drawn = [draw(config, visit) for visit in plan(config)]
    assert np.mean([not s.caption for s in drawn]) == pytest.approx(0.3, abs=0.15)
    assert np.mean([s.weeks is None for s in drawn]) == pytest.approx(0.4, abs=0.15)
    cells = [value for s in drawn for value in s.cells.values()]
    assert np.mean([value == "" for value in cells]) == pytest.approx(0.2, abs=0.06)
    assert {tuple(s.cells) for s in drawn} == {TABLE}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"patch_size": 8}, "patch_size must be 16 to 512"),
        ({"pixel_size": 10}, "pixel_size must be 0.5 to 4"),
        ({"no_caption": 1.5}, "no_caption is a share"),
        ({"named": 0.8, "vague": 0.4}, "exclude each other"),
    ],
)
def test_what_cannot_be_drawn(options, says):
    with pytest.raises(InputError, match=says):
        GeoMultimodalConfig(**options)


# ---- who knows what -----------------------------------------------------------------------------


def number(samples, column):
    return np.array([float(sample.cells[column]) for sample in samples])


def ndvi(samples, first, last):
    """Mean over samples of the mean index between two weeks."""
    return float(np.mean([np.nanmean(sample.weeks.ndvi[first:last]) for sample in samples]))


def test_the_table_tells_uses_by_where_they_can_be():
    sites = [draw_site(0, number) for number in range(1200)]

    def mean(use, what):
        return np.mean([getattr(site, what) for site in sites if site.use == use])

    assert mean("alpine pasture", "elevation") > mean("hay meadow", "elevation") + 500
    assert mean("reservoir", "elevation") > mean("fish pond", "elevation") + 400
    assert mean("olive grove", "temperature") > mean("fruit orchard", "temperature") + 1.5
    assert mean("coniferous forest", "temperature") < mean("broad-leaved forest", "temperature") - 1
    # Of these nothing is to be learned where they lie.
    assert abs(mean("industrial estate", "elevation") - mean("retail park", "elevation")) < 40
    assert abs(mean("wheat", "temperature") - mean("maize", "temperature")) < 1
    # It is climate and no code: uses overlap.
    low = [s.elevation for s in sites if s.use == "hay meadow"]
    high = [s.elevation for s in sites if s.use == "alpine pasture"]
    assert max(low) > min(high)


def test_climate_follows_height_and_latitude():
    country = draw_country(0)
    values = country.conditions
    places = np.column_stack(
        [np.ones(len(country.latitude)), country.latitude, values["elevation"] / 1000]
    )
    (_, by_degree, by_kilometre), *_ = np.linalg.lstsq(places, values["temperature"], rcond=None)
    assert by_degree == pytest.approx(-0.55, abs=0.02)
    assert by_kilometre == pytest.approx(-6.0, abs=0.1)
    assert values["elevation"].max() > 1500
    assert values["elevation"].min() < 100


def test_series_tell_what_grows_when(samples):
    wheat, maize = of(samples, "wheat"), of(samples, "maize")
    assert ndvi(wheat, 15, 20) > ndvi(maize, 15, 20) + 0.1  # April and May
    assert ndvi(maize, 29, 34) > ndvi(wheat, 29, 34) + 0.1  # August
    broad, conifers = of(samples, "broad-leaved forest"), of(samples, "coniferous forest")
    assert ndvi(broad, 24, 32) - ndvi(broad, 6, 11) > 0.15
    assert ndvi(conifers, 24, 32) - ndvi(conifers, 8, 11) < ndvi(broad, 24, 32) - ndvi(broad, 8, 11)


def test_weather_is_that_of_a_wide_cell(samples):
    means = np.array([np.nanmean(s.weeks.temperature) for s in samples])
    cell = np.array([s.site.weather_elevation for s in samples])
    own = np.array([s.site.elevation for s in samples])
    assert np.corrcoef(means, cell)[0, 1] < -0.7
    assert np.abs(cell - own).mean() > 40
    warmest = [int(np.nanargmax(s.weeks.temperature)) for s in samples]
    assert 22 < np.median(warmest) < 34


def test_fields_look_as_they_do_on_the_date(samples):
    config = GeoMultimodalConfig(samples=900, patch_size=16)
    green = {}
    for visit in plan(config):
        if draw_site(0, visit.site).use in ("wheat", "maize") and visit.season == "spring":
            image = draw(config, visit).image.astype(float)
            index = (image[3] - image[0]) / (image[3] + image[0])
            green.setdefault(draw_site(0, visit.site).use, []).append(np.median(index))
    assert np.median(green["wheat"]) > np.median(green["maize"]) + 0.1


def test_pairs_that_look_alike_have_the_same_words_for_what_is_seen(samples):
    assert Counter(use.look for use in USES.values()) == {
        "field": 4, "wood": 2, "tree rows": 2, "water": 2, "halls": 2,
    }  # fmt: skip
    unnamed = GeoMultimodalConfig(samples=96, patch_size=16, named=0, vague=0, no_caption=0)
    drawn = [draw(unnamed, visit) for visit in plan(unnamed)]
    for sample in drawn:
        for name in (n for use in USES.values() for n in use.names):
            assert name not in sample.caption.lower(), sample.caption
    named = GeoMultimodalConfig(samples=48, patch_size=16, named=1, vague=0, no_caption=0)
    for sample in (draw(named, visit) for visit in plan(named)):
        assert any(name in sample.caption.lower() for name in USES[sample.site.use].names)


def test_captions_are_varied(samples):
    captions = [sample.caption for sample in samples]
    assert len(set(captions)) > 0.9 * len(captions)
    assert len({caption.split()[0].lower() for caption in captions}) >= 8
    lengths = [len(caption.split()) for caption in captions]
    assert min(lengths) <= 4
    assert max(lengths) >= 14


def test_a_visit_in_another_season_shows_the_same_land(monkeypatch):
    config = GeoMultimodalConfig(samples=60, patch_size=20, second_visits=1)
    visits = [visit for visit in plan(config) if draw_site(0, visit.site).use == "fruit orchard"]
    first, second = (draw(config, visit) for visit in visits[:2])
    assert first.site == second.site
    assert first.date != second.date
    assert {name: first.cells[name] for name in TABLE[:5] if first.cells[name] and
            second.cells[name]}.items() <= second.cells.items()  # fmt: skip
    assert not np.array_equal(first.image, second.image)


# ---- script and sheet ---------------------------------------------------------------------------


def test_the_sheet_shows_every_use():
    figure = contact_sheet(GeoMultimodalConfig(samples=24, patch_size=16, second_visits=0))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == list(CLASSES)


def test_the_script(tmp_path, monkeypatch, capsys):
    assert os.access(SCRIPT, os.X_OK)
    flags = ["--samples", "13", "--patch-size", "16", "--workers", "1"]
    sheet = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["make", str(tmp_path / "set"), *flags, "--sheet", str(sheet)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    assert "manifest.csv" in capsys.readouterr().out
    assert sheet.is_file()
    monkeypatch.setattr(sys, "argv", ["make", str(tmp_path / "set"), "--samples", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert "make_geo_multimodal: samples must be" in capsys.readouterr().err
