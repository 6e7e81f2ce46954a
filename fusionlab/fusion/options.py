"""Reading options that are given per modality or per class, as a configuration writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TypeVar

from fusionlab.errors import InputError
from fusionlab.types import class_indices

T = TypeVar("T")


def modality_shares(
    values: Sequence[float] | Mapping[str, float],
    modalities: Sequence[str],
    *,
    where: str,
    option: str = "weights",
) -> list[float]:
    """Shares in the order of the modalities, normalised to sum 1.

    Args:
        values: one non-negative number per modality, in their order or by name.
        modalities: names.
        where: what is asking, for the error message.
        option: the argument that takes them, for the error message.

    Raises:
        InputError: if there is not exactly one number per modality, or one is negative or not
            finite, or their sum is 0.
    """
    expected = f"one non-negative number per modality {list(modalities)}"
    if isinstance(values, Mapping):
        if set(values) != set(modalities):
            example = ", ".join(f"{name}: {1 / len(modalities):.2g}" for name in modalities)
            raise InputError(
                f"{where} takes {expected}, got {dict(values)}. Name these, as with "
                f"--model.model.fusion.{option} '{{{example}}}'."
            )
        values = [values[name] for name in modalities]
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"{where} takes {expected}, got {values!r}.")
    if len(values) != len(modalities):
        raise InputError(f"{where} takes {expected}, got {len(values)}: {list(values)}.")
    if not all(_is_number(value) and isfinite(value) and value >= 0 for value in values):
        raise InputError(f"{where} takes {expected}, got {list(values)}.")
    total = sum(values)
    if not total > 0:
        raise InputError(f"{where}: the sum of {list(values)} must be positive.")
    return [value / total for value in values]


def by_class(values: Mapping[str, T], classes: Sequence[str], *, where: str) -> dict[int, T]:
    """Values given by class name or index, by index.

    Raises:
        InputError: for an unknown class, or one given twice (by name and by index).
    """
    indices = class_indices(list(values), classes, where=where)
    twice = sorted({classes[index] for index in indices if indices.count(index) > 1})
    if twice:
        raise InputError(f"{where} gives {twice} twice, by name and by index.")
    return dict(zip(indices, values.values(), strict=True))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
