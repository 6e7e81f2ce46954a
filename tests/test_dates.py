"""Day of the year by integer arithmetic."""

from datetime import date, timedelta

import torch

from fusionlab.dates import day_of_year

EPOCH = date(1970, 1, 1)


def test_every_day_from_1970_to_2100():
    last = (date(2100, 12, 31) - EPOCH).days
    days = torch.arange(last + 1)
    expected = [(EPOCH + timedelta(days=i)).timetuple().tm_yday for i in range(last + 1)]
    assert day_of_year(days).tolist() == expected


def test_dates_before_1970_and_century_years():
    dates = [date(1969, 12, 31), date(1900, 12, 31), date(2000, 12, 31), date(1600, 3, 1)]
    days = torch.tensor([(d - EPOCH).days for d in dates], dtype=torch.int32)
    assert day_of_year(days).tolist() == [365, 365, 366, 61]


def test_keeps_shape_and_gives_int64():
    days = day_of_year(torch.zeros(2, 3, dtype=torch.int32))
    assert days.shape == (2, 3)
    assert days.dtype == torch.int64
