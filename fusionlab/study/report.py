"""Writes what a study came to: tables, figures, and one page that has all of it."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

import fusionlab
from fusionlab.errors import InputError
from fusionlab.study.figures import comparison_figures
from fusionlab.study.finished import FinishedRun
from fusionlab.study.formats import (
    as_json,
    markdown,
    per_class_csv,
    print_comparison,
    table_csv,
)
from fusionlab.study.html import Page
from fusionlab.study.significance import Significance, paired_tests
from fusionlab.study.table import Comparison, compare

FIGURES = ("ladder", "curves", "per_class", "shares", "trade_off", "seeds")
_FILES = {
    "markdown": "comparison.md",
    "csv": "comparison.csv",
    "per_class_csv": "per_class.csv",
    "json": "comparison.json",
    "html": "report.html",
    **{name: f"{name}.png" for name in FIGURES},
}


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        folder: that it is in.
        files: of it by kind: ``markdown``, ``csv``, ``per_class_csv``, ``json``, ``html``, and the
            figures ``ladder``, ``curves``, ``per_class``, ``shares``, ``trade_off`` and ``seeds``
            that there was something for.
        comparison: what it shows.
        significance: tests of the ranking score; None where no member has one.
        remarks: on how far the terms of the members were the same.
        failed: members or runs that are not there, with the reason.
    """

    folder: Path
    files: Mapping[str, Path]
    comparison: Comparison
    significance: Significance | None
    remarks: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    def print(self) -> None:
        """Prints the tables, what is remarked, and what the tests say."""
        print_comparison(
            self.comparison, self.significance, remarks=self.remarks, failed=self.failed
        )


def write_report(
    runs: Sequence[FinishedRun],
    folder: Path,
    *,
    title: str,
    failed: Mapping[str, str] | None = None,
    remarks: Sequence[str] = (),
    score: str | None = None,
    rungs: Mapping[str, Sequence[str]] | None = None,
    command: str | None = None,
) -> Report:
    """Compares finished runs, and writes the comparison into a folder.

    All files are written elsewhere first and then put in place, each at once, so that an earlier
    report stays whole until the new one is there. Figures of an earlier report for which there is
    nothing any more are removed.

    Args:
        runs: of any number of members and seeds, in the order of the table.
        folder: to write into; made if it is not there.
        title: of the page.
        failed: members or runs that are not there, with the reason.
        remarks: on how far the terms of the members were the same.
        score: what ranks the members, see `compare`; what the trainings monitored if not given.
        rungs: of members that are rungs of a modality ladder, the modalities that they are given.
        command: that makes the report again, to be shown.

    Raises:
        InputError: see `compare`; or if the folder cannot be written into.
    """
    failed = dict(failed or {})
    comparison = compare(runs, score, rungs)
    significance = _tests(comparison)
    text = markdown(comparison, significance, remarks=remarks, failed=failed)
    pictures = {name: _png(figure) for name, figure in comparison_figures(comparison).items()}
    page = Page(
        title=title,
        comparison=comparison,
        significance=significance,
        figures=pictures,
        failed=failed,
        remarks=tuple(remarks),
        command=command,
        version=fusionlab.__version__,
    )
    contents: dict[str, bytes] = {
        "markdown": f"# {title}\n\n{text}".encode(),
        "csv": table_csv(comparison).encode(),
        "per_class_csv": per_class_csv(comparison).encode(),
        "json": as_json(
            comparison, significance, folder=folder, failed=failed, remarks=remarks
        ).encode(),
        **pictures,
        "html": page.html().encode(),
    }
    files = _put(contents, folder)
    return Report(folder, files, comparison, significance, tuple(remarks), failed)


def _tests(comparison: Comparison) -> Significance | None:
    best = comparison.best
    scores = comparison.by_seed()
    if best is None or not scores[best.member]:
        return None
    return paired_tests(scores, comparison.score, best=best.member)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _put(contents: Mapping[str, bytes], folder: Path) -> dict[str, Path]:
    """Writes all files beside their places, then moves each into its place at once."""
    places = {kind: folder / _FILES[kind] for kind in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        try:
            for kind, content in contents.items():
                (draft / _FILES[kind]).write_bytes(content)
            for kind, place in places.items():
                (draft / _FILES[kind]).replace(place)
            for name in FIGURES:
                if name not in contents:
                    (folder / _FILES[name]).unlink(missing_ok=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"The report cannot be written into {folder}: {error.strerror or error}. Choose "
            "another folder (`output:` of the study, or --output)."
        ) from error
    return places
