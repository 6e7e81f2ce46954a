"""Dates of manifests: what is taken for one, and what is refused."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_files import STACK, WIDE, manifest_data, read_rows, write_csv, write_manifest

from fusionlab.data.manifest.days import days_of
from fusionlab.errors import InputError

DAY = 18_731  # 2021-04-14
ONLY_WEATHER = {"images": None, "texts": None, "tables": None, "augment": False}


@pytest.fixture
def own(tmp_path) -> Path:
    return write_manifest(tmp_path, rows=12)


@pytest.mark.parametrize(
    "given",
    [
        ["2021-04-14", "2021-04-14T23:59:00-05:00"],
        ["20210414", " 2021-04-14 00:10:00+09:00 "],
        ["18731", b"2021-04-14"],
        ["S2A_MSIL2A_20210414T102421_N0213_R065_T32UNC"],
        np.array([20210414, DAY]),
        np.array([20210414.0]),
        np.array(["2021-04-14T12:00"], "datetime64[s]"),
        pa.array([DAY], pa.date32()),
        pa.array([DAY * 86_400 + 3 * 3600], pa.timestamp("s", "Europe/Berlin")),
        pa.array([(DAY + 1) * 86_400 + 3600], pa.timestamp("s", "America/New_York")),
    ],
    ids=str,
)
def test_the_calendar_date_counts(given):
    assert set(days_of(given).tolist()) == {DAY}


@pytest.mark.parametrize(
    "number", [202104, 2019, 44_200, 1_609_718_400, 0, -5, 20211399, 3000, 10**17]
)
def test_numbers_that_count_something_else_are_named(number):
    for given in ([DAY, number], [str(number)], np.array([20210414, number])):
        with pytest.raises(ValueError, match=str(number)):
            days_of(given)


def test_days_reach_a_year_ahead():
    ahead = (date.today() + timedelta(days=360) - date(1970, 1, 1)).days
    assert days_of([ahead]).tolist() == [ahead]
    with pytest.raises(ValueError, match=str(ahead + 30)):
        days_of([ahead + 30])


@pytest.mark.parametrize("written", ["202101", "44200", "2021-13-04", "04/01/2021"])
def test_files_with_other_dates_are_listed(own, written):
    (own.parent / "weather/p000.csv").write_text(f"date,ndvi,temperature\n{written},1,2\n")
    said = rf"none: '?{written}'?\. Expected 2021-04-15, 20210415, or days since 1970-01-01\."
    with pytest.raises(InputError, match=rf"row 1, weather: .*p000.csv has a date that is {said}"):
        manifest_data(own, **ONLY_WEATHER).setup("fit")


def test_stacks_with_other_dates_are_listed(own):
    held = dict(np.load(own.parent / "stacks/p002.npz"))
    np.savez(own.parent / "stacks/p002.npz", **{**held, "dates": np.arange(5)})
    with pytest.raises(InputError, match=r"row 3, stack: .*has a date in 'dates' that is none: 0"):
        manifest_data(own, images={"s": STACK}).setup("fit")


def test_times_with_a_zone_keep_their_day(own):
    lines = "date,ndvi,temperature\n2021-04-14T23:30:00-05:00,1,2\n2021-04-15T00:30:00+09:00,3,4\n"
    (own.parent / "weather/p000.csv").write_text(lines)
    table = {"date": pa.array([(DAY + 1) * 86_400 + 3600], pa.timestamp("s", "America/New_York"))}
    pq.write_table(
        pa.table({**table, "ndvi": [1.0], "temperature": [2.0]}), own.parent / "weather/p.parquet"
    )
    rows = read_rows(own)
    rows[1]["weather"] = "weather/p.parquet"
    write_csv(own, rows)
    dataset = manifest_data(own, **ONLY_WEATHER).dataset("train")
    dates = [dataset[i]["inputs"]["weather"].dates.tolist() for i in range(2)]
    assert dates == [[DAY, DAY + 1], [DAY]]


def test_starts_of_columns_are_days_too(own):
    rows = [
        {**row, "start": "44200" if i == 3 else "18731"} for i, row in enumerate(read_rows(own))
    ]
    write_csv(own, rows)
    with pytest.raises(InputError, match=r"row 4, start: expected a date \(2021-04-15.*'44200'"):
        manifest_data(own, series={"ndvi": {**WIDE, "start": "start"}})
