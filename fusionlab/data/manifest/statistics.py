"""Means and standard deviations of a training split, and where results are kept between runs."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionlab.data.folders.statistics import Moments, Statistics

log = logging.getLogger(__name__)

_VERSION = 1


def finished(total: Moments, names: Sequence[str], *, where: str) -> Statistics:
    """Mean and standard deviation of what was summed up.

    A column that never changes gets a standard deviation of 1, one without any value a mean of 0,
    too; both are warned of by name.

    Args:
        total: the sums, one per name.
        names: of bands, columns or variables.
        where: config key, for the warning.
    """
    deviation = np.sqrt(total.squares / np.maximum(total.count, 1))
    # Rounding leaves a little of a value that is far from zero and never changes.
    constant = deviation <= 1e-9 * np.maximum(np.abs(total.mean), 1e-30)
    for what, which in (
        ("has no value", total.count == 0),
        ("has one and the same value", (total.count > 0) & constant),
    ):
        if which.any():
            listed = [name for name, one in zip(names, which, strict=True) if one]
            log.warning(
                "%s: %s %s in all of the training split; it can tell nothing.", where, listed, what
            )
    deviation[constant | (total.count == 0)] = 1.0
    return Statistics(tuple(total.mean.tolist()), tuple(deviation.tolist()))


def stored(
    folder: Path,
    name: str,
    content: Any,  # noqa: ANN401
    names: Sequence[str],
    compute: Callable[[], Statistics],
) -> Statistics:
    """Statistics that were computed before of the same content, or are now.

    Args:
        folder: the store.
        name: of the modality.
        content: plain values that change when the statistics would.
        names: of bands or variables.
        compute: computes them.
    """
    digest = hashlib.blake2b(json.dumps([_VERSION, content]).encode(), digest_size=12).hexdigest()
    path = folder / f"{name}-{digest}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        found = Statistics(tuple(known["mean"]), tuple(known["std"]))
        if len(found.mean) == len(found.std) == len(names):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = compute()
    known = {"bands": list(names), "mean": list(found.mean), "std": list(found.std)}
    keep(path, json.dumps(known, indent=1))
    return found


def file_facts(paths: Sequence[str]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of files: what changes when their content does."""
    stats = ((path, Path(path).stat()) for path in paths)
    return [(Path(path).name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def keep(path: Path, text: str) -> None:
    """Puts a text into the store, whole or not at all; other processes may do the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:  # the next run makes it again
        log.warning("Cannot keep %s (%s).", path, error)
