"""Cells and series files as people write them: gaps, fill values, flags and other encodings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from manifest_files import (
    CLASSES,
    WIDE,
    change,
    manifest_data,
    read_rows,
    write_csv,
    write_manifest,
)

from fusionlab.errors import InputError

ONLY_SITE = {"images": None, "texts": None, "series": None}
ONLY_WEATHER = {"images": None, "texts": None, "tables": None, "augment": False}


@pytest.fixture
def own(tmp_path) -> Path:
    return write_manifest(tmp_path, rows=12)


def first(manifest: Path, **options) -> dict:
    return manifest_data(manifest, augment=False, **options).dataset("train")[0]


@pytest.mark.parametrize("empty", ["NA", "NULL", "nan", " null "])
def test_what_statisticians_write_into_empty_cells_is_empty(own, empty):
    change(own, 0, image=empty, caption=empty, latitude=empty)
    sample = first(own)
    assert not sample["available"]["image"]
    assert sample["inputs"]["caption"] == ""
    assert sample["inputs"]["site"][0].isnan()


def test_a_name_may_be_na(own):
    change(own, 0, season="NA", land_use="NA", place="NA")
    data = manifest_data(own, **ONLY_SITE, place="place")
    assert "NA" in data.schema.classes
    assert "NA" in data.schema.modalities["site"].categories["season"]


def test_flags_may_be_words(own):
    rows = read_rows(own)
    for row in rows:
        for name in CLASSES:
            row[f"is_{name}"] = ("False", "true")[int(row[f"is_{name}"])]
    path = write_csv(own.with_name("words.csv"), rows)
    target = {"columns": [f"is_{c}" for c in CLASSES], "kind": "classes"}
    words, digits = (manifest_data(m, **ONLY_SITE, target=target) for m in (path, own))
    for i in range(9):
        assert torch.equal(
            words.dataset("train")[i]["target"], digits.dataset("train")[i]["target"]
        )


def test_a_flag_that_is_none_is_reported_once(own):
    change(own, 0, is_crops="maybe")
    change(own, 1, is_crops="")
    change(own, 2, is_crops="2")
    target = {"columns": [f"is_{c}" for c in CLASSES], "kind": "classes"}
    with pytest.raises(InputError) as caught:
        manifest_data(own, **ONLY_SITE, target=target)
    lines = str(caught.value).splitlines()
    assert "has 3 problems" in lines[0]
    assert lines[1:4] == [
        "  row 1, is_crops: expected 0 or 1, got 'maybe'.",
        "  row 2, is_crops: expected 0 or 1, got an empty cell.",
        "  row 3, is_crops: expected 0 or 1, got '2'.",
    ]


@pytest.mark.parametrize("fill", [-9999, -3.4028234663852886e38, 1e30])
def test_fill_values_are_gaps_if_said_so_and_warned_of_if_not(own, fill, caplog):
    change(own, 0, elevation=fill, ndvi_02=fill)
    (own.parent / "weather/p000.csv").write_text(
        f"date,ndvi,temperature\n2023-01-02,{fill},5\n2023-01-09,0.5,6\n"
    )
    site = {"columns": ["elevation"]}
    weather = {"column": "weather"}

    def delivered(**more) -> dict:
        series = {"weather": {**weather, **more}, "ndvi": {**WIDE, **more}}
        options = {**ONLY_SITE, "tables": {"site": {**site, **more}}, "series": series}
        return first(own, **options)["inputs"]

    delivered()
    for where, name in (("tables.site", "elevation"), ("series.weather", "ndvi")):
        assert f"{where}: {np.float32(fill)} in '{name}'. Where that means no value" in caplog.text
    assert f"series.ndvi: {np.float32(fill)} in 'ndvi'" in caplog.text
    caplog.clear()
    inputs = delivered(nodata=[fill, 77.0])
    assert "means no value" not in caplog.text
    assert not inputs["site"].any()
    assert inputs["weather"].values[:, 0].isnan().tolist() == [True, False]
    assert inputs["ndvi"].values[1].isnan().all()


def test_numbers_beyond_float32_are_refused_unless_they_are_fill_values(own):
    change(own, 0, elevation="1e300")
    site = {"columns": ["elevation", "latitude"]}
    with pytest.raises(InputError, match=r"row 1, elevation: 1e\+300 is too large"):
        manifest_data(own, **{**ONLY_SITE, "tables": {"site": site}})
    inputs = first(own, **{**ONLY_SITE, "tables": {"site": {**site, "nodata": [1e300]}}})["inputs"]
    assert inputs["site"].isnan().tolist() == [True, False]


def test_series_files_may_be_of_other_countries(own):
    folder = own.parent / "weather"
    (folder / "p000.csv").write_text("date;ndvi;temperature\n2023-01-02;0.5;NA\n")
    (folder / "p001.csv").write_text("date\tndvi\ttemperature\n2023-01-02\tNULL\t4\n")
    for series in ({"column": "weather"}, {"column": "weather", "variables": ["ndvi"]}):
        data = manifest_data(own, **ONLY_WEATHER, series={"weather": series})
        assert data.schema.modalities["weather"].bands[0] == "ndvi"
        values = data.dataset("train")[0]["inputs"]["weather"].values
        assert values[0, 0] == 0.5


@pytest.mark.parametrize("row", [0, 3])
def test_headers_of_other_encodings_are_named(own, row):
    path = own.parent / f"weather/p{row:03d}.csv"
    path.write_bytes("date,ndvi,temperature,été\n2021-01-04,1,1,2\n".encode("latin-1"))
    with pytest.raises(InputError, match=rf"p{row:03d}.csv cannot be read .*CSV \(UTF-8\)"):
        manifest_data(own, **ONLY_WEATHER).setup("fit")


def test_a_missing_series_needs_no_start(own):
    rows = [{**row, "start": "2023-01-02"} for row in read_rows(own)]
    gone = {name: "" for name in rows[0] if name.startswith("ndvi_")}
    rows[2] |= {"start": "", **gone}
    write_csv(own, rows)
    options = {"series": {"ndvi": {**WIDE, "start": "start"}}}
    data = manifest_data(own, **options)
    assert not data.dataset("train")[2]["available"]["ndvi"]
    start = int(np.datetime64("2023-01-02").astype(int))
    assert data.dataset("train")[3]["inputs"]["ndvi"].dates[0] == start
    change(own, 4, start="")
    with pytest.raises(InputError, match=r"row 5, start: expected a date .* got an empty cell"):
        manifest_data(own, **options)


def test_two_columns_of_one_number_are_refused(own):
    write_csv(own, [{**row, "ndvi_1": "7"} for row in read_rows(own)])
    with pytest.raises(InputError, match=r"wide.ndvi: .*'ndvi_01' and 'ndvi_1' both have the num"):
        manifest_data(own, series={"ndvi": WIDE})


def test_flags_of_parquet_are_the_same(own):
    rows = read_rows(own)
    names = [f"is_{c}" for c in CLASSES]
    columns = {n: [row[n] == "1" for row in rows] for n in names}
    rest = {n: [row[n] for row in rows] for n in ("elevation", "split")}
    pq.write_table(pa.table(columns | rest), own.with_suffix(".parquet"))
    data = manifest_data(
        own.with_suffix(".parquet"),
        **{**ONLY_SITE, "tables": {"site": {"columns": ["elevation"]}}},
        target={"columns": names, "kind": "classes"},
    )
    assert data.dataset("train")[1]["target"].tolist() == [1, 1, 0]
