"""Calendar arithmetic on tensors of dates, without leaving the device."""

from __future__ import annotations

import torch
from torch import Tensor

# Years are counted from 1 March, so that the leap day is the last one; 1970-01-01 is this many
# days after 0000-03-01. The Gregorian calendar repeats after an era of 400 years.
_DAYS_TO_EPOCH = 719_468
_DAYS_PER_ERA = 146_097
_DAYS_MARCH_TO_DECEMBER = 306


def day_of_year(days: Tensor) -> Tensor:
    """Day of the year, 1 for 1 January to 365 or (leap years) 366 for 31 December.

    Integer arithmetic of the proleptic Gregorian calendar (the "civil from days" method), exact for
    dates before 1970 too.

    Args:
        days: days since 1970-01-01, any integer type and shape.

    Returns:
        int64 of the same shape.
    """
    shifted = days.long() + _DAYS_TO_EPOCH
    day_of_era = shifted % _DAYS_PER_ERA
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    since_march = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    leap = (year_of_era % 4 == 0) & ((year_of_era % 100 != 0) | (year_of_era == 0))
    return torch.where(
        since_march < _DAYS_MARCH_TO_DECEMBER,
        since_march + 60 + leap.long(),  # 1 March is day 60, or 61
        since_march - _DAYS_MARCH_TO_DECEMBER + 1,
    )
