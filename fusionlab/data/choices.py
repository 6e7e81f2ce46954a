"""What a user may choose of any data set: names that must exist, and how many samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fusionlab.errors import InputError
from fusionlab.types import Modality

Part = Literal["train", "val", "test"]
"""A split that has targets."""
PathLike = str | Path


def path_or_none(given: PathLike | None) -> Path | None:
    """A path of the user's, in which ``~`` is the home folder."""
    return Path(given).expanduser() if given is not None else None


def require_known(given: Sequence[str], known: Collection[str], *, option: str, what: str) -> None:
    """Refuses names that do not exist.

    Args:
        given: what the user says.
        known: all that there is.
        option: what the names were given as, for the error message.
        what: what they are names of, likewise.

    Raises:
        InputError: names them, the names most like them, and all there are.
    """
    by_lower = {entry.lower(): entry for entry in known}
    for name in given:
        if name in known:
            continue
        given_lower = str(name).lower()
        near = get_close_matches(given_lower, by_lower, n=3, cutoff=0.5)
        near += [k for k in by_lower if len(k) > 2 and given_lower.startswith(k) and k not in near]
        hint = f" Did you mean {' or '.join(by_lower[n] for n in near)}?" if near else ""
        raise InputError(f"{option}: there is no {what} {name!r}.{hint} Known: {', '.join(known)}.")


def require_modalities(
    values: Mapping[str, object], known: Collection[str], *, option: str
) -> None:
    """Refuses an option for a modality that is not delivered.

    Raises:
        InputError: names it and the modalities.
    """
    require_known(list(values), known, option=option, what="modality")


def with_statistics(
    modalities: Mapping[str, Modality],
    *,
    mean: Mapping[str, Sequence[float]] | None,
    std: Mapping[str, Sequence[float]] | None,
) -> dict[str, Modality]:
    """Modalities with a user's statistics in the place of the published ones.

    Args:
        modalities: by name.
        mean: per modality, the mean of each of its bands in physical units; others keep theirs.
        std: likewise, standard deviations.

    Raises:
        InputError: for an unknown modality, or a list that has not one number per band.
    """
    chosen = dict(modalities)
    for option, values in (("mean", mean or {}), ("std", std or {})):
        require_modalities(values, modalities, option=option)
        for name, numbers in values.items():
            chosen[name] = replace(chosen[name], **{option: tuple(numbers)})  # type: ignore[arg-type]
    return chosen


def fractions(given: float | Mapping[str, float]) -> dict[str, float]:
    """The share of each split to keep; a plain number is that of the training split.

    Raises:
        InputError: for an unknown split, or a share outside (0, 1].
    """
    values = dict(given) if isinstance(given, Mapping) else {"train": given}
    require_known(list(values), get_args(Part), option="fraction", what="split")
    for name, value in values.items():
        if not 0 < value <= 1:
            raise InputError(f"fraction must lie in (0, 1], got {value} for {name!r}.")
    return values


def limits(given: int | Mapping[str, int] | None) -> dict[str, int]:
    """How many samples of each split to keep at most; a plain number holds for every split.

    Raises:
        InputError: for an unknown split, or a number below 1.
    """
    parts = get_args(Part)
    if given is None:
        return {}
    values = dict(given) if isinstance(given, Mapping) else dict.fromkeys(parts, given)
    require_known(list(values), parts, option="max_samples", what="split")
    for name, value in values.items():
        if value < 1:
            raise InputError(f"max_samples must be at least 1, got {value} for {name!r}.")
    return values


def subset(
    total: int, *, fraction: float = 1.0, limit: int | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """Rows drawn at random, in order.

    A smaller subset of the same seed is part of any larger one.

    Args:
        total: how many there are.
        fraction: share to keep, in (0, 1]; at least one row is.
        limit: how many to keep at most; None for all.
        seed: of the draw.
    """
    number = max(1, round(fraction * total)) if total else 0
    number = number if limit is None else min(number, limit)
    if number == total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).permutation(total)[:number])
