"""One page that has all of a comparison in it: no other file, no network, readable in years."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from fusionlab.study.figures import class_statistics, drawn_class_score
from fusionlab.study.formats import (
    all_columns,
    column_groups,
    difference_label,
    paired_cells,
    seeds_text,
)
from fusionlab.study.gains import gains_table
from fusionlab.study.scores import label
from fusionlab.study.settings import config_text, differences, terms
from fusionlab.study.significance import Significance
from fusionlab.study.table import Column, Comparison, MemberRow, Statistic

Cell = tuple[str, float | None]
"""What a cell shows, and the number it is sorted by; None where it is sorted as text."""

_FIRST_RUNS_ONLY = "the run of its first seed; other seeds differ in seed and folder only"


@dataclass(frozen=True)
class Page:
    """What a page is made of.

    Attributes:
        title: its heading.
        comparison: the members.
        significance: tests of the ranking score, None if no member has one.
        figures: PNG files by name, see `comparison_figures`.
        failed: members or runs that are not there, with the reason.
        remarks: on how far the terms were the same.
        command: that makes the report again; None if it is unknown.
        version: of the software that wrote the page.
    """

    title: str
    comparison: Comparison
    significance: Significance | None
    figures: Mapping[str, bytes]
    failed: Mapping[str, str]
    remarks: Sequence[str]
    command: str | None
    version: str

    def html(self) -> str:
        """The page as one self-contained document."""
        sections = {
            "terms": ("What was compared", self._terms()),
            "table": ("Comparison", self._table()),
            "ladder": ("What each modality adds", self._ladder()),
            "significance": ("Is the best really better?", self._significance()),
            "seeds": ("Spread over seeds", self._figure("seeds")),
            "curves": ("Training", self._figure("curves")),
            "per-class": ("By class", self._by_class()),
            "confusion": ("Confusion", self._confusion()),
            "shares": ("What each modality decides", self._figure("shares")),
            "trade-off": ("Score and cost", self._figure("trade_off")),
            "failed": ("Not compared", self._failed()),
            "repeat": ("How to repeat it", self._repeat()),
        }
        there = {key: section for key, section in sections.items() if section[1]}
        links = " ".join(f'<a href="#{key}">{escape(name)}</a>' for key, (name, _) in there.items())
        content = "\n".join(
            f'<section id="{key}">\n<h2>{escape(name)}</h2>\n{text}\n</section>'
            for key, (name, text) in there.items()
        )
        parts = files("fusionlab.study")
        style, script = (parts.joinpath(f"page.{kind}").read_text() for kind in ("css", "js"))
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            f"<header>\n<h1>{escape(self.title)}</h1>\n{self._lead()}\n<nav>{links}</nav>\n"
            f"</header>\n<main>\n{content}\n</main>\n<footer>\n"
            f'<p class="soft">Written by fusionlab {escape(self.version)}.</p>\n</footer>\n'
            f"<script>\n{script}</script>\n</body>\n</html>\n"
        )

    def _lead(self) -> str:
        """What came out, in a sentence."""
        comparison, best = self.comparison, self.comparison.best
        if best is None:
            return ""
        ranking = comparison.columns[0]
        seeds = "one seed" if len(best.seeds) == 1 else f"mean ± std of {len(best.seeds)} seeds"
        stage = "in the test" if comparison.stage == "test" else "in the validation"
        first = [row for row in comparison.rows if row.rank == 1]
        names = " and ".join(row.member for row in first)
        text = (
            f"<strong>{escape(names)}</strong> {'is' if len(first) == 1 else 'are'} best of "
            f"{len(comparison.rows)} {stage}: {escape(_named(ranking, best.values[ranking.key]))} "
            f"({seeds})."
        )
        if self.failed:
            text += f' <a href="#failed">{len(self.failed)} not compared.</a>'
        return f'<p class="lead">{text}</p>'

    def _terms(self) -> str:
        runs = self.comparison.runs
        rows = [[(name, None), (value, None)] for name, value in terms(runs)]
        parts = [_table(("", ""), rows, kind="text", caption="")]
        remarks = [*self.remarks, *self.comparison.remarks]
        if remarks:
            items = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
            parts.append(f"<ul>{items}</ul>")
        other = differences(runs)
        if other:
            lines = [[(key, None), ("\n".join(values), None)] for key, values in other]
            table = _table(("setting", "values"), lines, kind="text", caption="")
            number = "1 setting" if len(other) == 1 else f"{len(other)} settings"
            parts.append(
                f"<details><summary>{number} besides the model {'is' if len(other) == 1 else 'are'}"
                f" not the same for all members</summary>{table}</details>"
            )
        return "\n".join(parts)

    def _table(self) -> str:
        comparison = self.comparison
        caption = "Mean ± standard deviation over seeds; the best is bold."
        parts = []
        for title, columns in column_groups(comparison).items():
            told = [caption] if title == "Scores" else []
            told += [f"{_unit_free(c.label)}: {c.note}." for c in columns if c.note]
            parts.append(self._members(columns, " ".join(told)))
        shown = {column.key for column in comparison.columns}
        if any(column.key not in shown for column in all_columns(comparison)):
            table = self._members(comparison.score_columns, "")
            parts.append(f"<details><summary>All scores</summary>{table}</details>")
        return "\n".join(parts)

    def _members(self, columns: Sequence[Column], caption: str) -> str:
        head = ("member", "seeds", *(column.label for column in columns))
        rows = [
            [(row.member, None), (seeds_text(row), float(len(row.seeds))), *_cells(row, columns)]
            for row in self.comparison.rows
        ]
        bold = (0, 2) if columns[0].key == self.comparison.score else (0,)
        best = {i: bold for i, row in enumerate(self.comparison.rows) if row.rank == 1}
        return _table(head, rows, kind="sortable", caption=caption, best=best)

    def _ladder(self) -> str:
        lines = gains_table(self.comparison)
        if not lines:
            return self._figure("ladder")
        head, *rows = lines
        cells = [[(text, None) for text in row] for row in rows]
        caption = "How much the score rises when a modality joins: means over seeds."
        return f"{self._figure('ladder')}\n{_table(head, cells, kind='text', caption=caption)}"

    def _confusion(self) -> str:
        """What is taken for what, by the first run of each member that was drawn."""
        parts = []
        for member, runs in self.comparison.runs.items():
            path = runs[0].folder / f"{runs[0].stage}_confusion.png"
            if path.is_file():
                text = f"{member}: samples or pixels by true and predicted class."
                parts.append(
                    f"<details><summary>{escape(member)}</summary>"
                    f"{_picture(path.read_bytes(), f'confusion-{member}', text)}</details>"
                )
        return "\n".join(parts)

    def _by_class(self) -> str:
        """The chart, and its numbers."""
        score = drawn_class_score(self.comparison)
        if score is None:
            return ""
        column = Column(score, label(score), "score")
        values = {m: of for m, of in class_statistics(self.comparison, score).items() if of}
        classes = dict.fromkeys(name for of in values.values() for name in of)
        rows = [
            [(name, None), *(_cell(column, of.get(name)) for of in values.values())]
            for name in classes
        ]
        caption = f"{column.label}: mean ± standard deviation over seeds."
        table = _table(("class", *values), rows, kind="sortable", caption=caption)
        return (
            f"{self._figure('per_class')}\n"
            f"<details><summary>{escape(column.label)} of every class</summary>{table}</details>"
        )

    def _significance(self) -> str:
        tests = self.significance
        if tests is None or not tests.tests:
            return ""
        parts = [f"<p>{escape(line)}</p>" for line in tests.sentences()]
        if any(test.p is not None for test in tests.tests):
            head = (
                f"{tests.best} against",
                "common seeds",
                difference_label(tests.score),
                "95 % confidence interval",
                "p, corrected",
            )
            rows = []
            for test in tests.tests:
                numbers = (None, float(len(test.seeds)), test.difference, test.low, test.corrected)
                rows.append(list(zip(paired_cells(test, tests.score), numbers, strict=True)))
            caption = (
                "Paired t-test over common seeds, two-sided; p-values corrected for their number "
                "by Holm's method, intervals each for itself."
            )
            parts.append(_table(head, rows, kind="sortable", caption=caption))
        parts += [f'<p class="soft">{escape(line)}</p>' for line in tests.limits()]
        return "\n".join(parts)

    def _figure(self, name: str) -> str:
        data = self.figures.get(name)
        if data is None:
            return ""
        score = label(self.comparison.score)
        of_class = label(drawn_class_score(self.comparison) or "")
        good = "down" if self.comparison.direction == "min" else "up"
        captions = {
            "ladder": f"{score} with the modalities marked on the left: a bar is the mean, a point "
            "a seed. Below the ladder, other members with all modalities.",
            "seeds": f"{score}: a point is a seed, a line the mean.",
            "curves": "Means over seeds; the bands go from the least to the most of them.",
            "per_class": f"{of_class} by class: means over seeds, with their standard deviation.",
            "shares": "Mean share of each modality in the decisions, of members that weight them.",
            "trade_off": f"{score} by cost: {good} and to the left is better. Members of nearly "
            "the same cost are drawn a little apart.",
        }
        return _picture(data, f"figure-{name}", captions[name])

    def _failed(self) -> str:
        items = "".join(
            f"<li><strong>{escape(name)}</strong>: {escape(reason)}</li>"
            for name, reason in self.failed.items()
        )
        return f'<ul class="failed">{items}</ul>' if items else ""

    def _repeat(self) -> str:
        runs = self.comparison.runs
        parts = []
        if self.command:
            parts.append(f"<pre>$ {escape(self.command)}</pre>")
        versions = {
            " ".join(f"{name} {number}," for name, number in found.items()).rstrip(","): None
            for group in runs.values()
            for run in group
            if (found := run.measures.get("versions"))
        }
        parts += [f"<p>Made with {escape(text)}.</p>" for text in versions]
        parts.append(
            "<p>A member alone: save its configuration as <code>config.yaml</code>, then</p>"
            "<pre>$ fusionlab fit --config config.yaml --output again\n"
            "$ fusionlab test --config config.yaml --ckpt_path again/best.ckpt --output again</pre>"
        )
        for member, group in runs.items():
            note = f" ({_FIRST_RUNS_ONLY})" if len(group) > 1 else ""
            parts.append(
                f"<details><summary>{escape(member)}{note}</summary>"
                f"<pre>{escape(config_text(group[0]))}</pre></details>"
            )
        return "\n".join(parts)


def _picture(data: bytes, name: str, caption: str) -> str:
    """A PNG file in the page."""
    text = escape(caption)
    width, height = (int.from_bytes(data[i : i + 4]) for i in (16, 20))  # of the PNG's header
    narrow = ' class="narrow"' if width < 1400 else ""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure><div tabindex="0"><img id="{escape(name)}"{narrow} alt="{text}" '
        f'width="{width}" height="{height}" src="{source}"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _cells(row: MemberRow, columns: Sequence[Column]) -> list[Cell]:
    return [_cell(column, row.values.get(column.key)) for column in columns]


def _cell(column: Column, value: Statistic | None) -> Cell:
    return column.text(value), float("nan") if value is None else value.mean


def _unit_free(heading: str) -> str:
    """A heading with its unit in brackets, for it stands in a sentence."""
    name, comma, unit = heading.partition(", ")
    return f"{name} ({unit})" if comma else name


def _named(column: Column, value: Statistic | None) -> str:
    percent = " %" if column.label.endswith(", %") else ""
    return f"{column.label.removesuffix(', %')} {column.text(value)}{percent}"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    kind: str,
    caption: str,
    best: Mapping[int, Collection[int]] | None = None,
) -> str:
    """A table whose first column names the rows; the best cells by the number of their row."""
    lines = []
    for i, cells in enumerate(rows):
        (first, _), *others = cells
        marks = [' class="best"' if j in (best or {}).get(i, ()) else "" for j in range(len(cells))]
        inner = "".join(
            f"<td{mark}{_value(number)}>{escape(text).replace(chr(10), '<br>')}</td>"
            for mark, (text, number) in zip(marks[1:], others, strict=True)
        )
        lines.append(f'<tr><th scope="row"{marks[0]}>{escape(first)}</th>{inner}</tr>')
    heading = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    top = f"<thead><tr>{heading}</tr></thead>" if any(head) else ""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}">{title}{top}'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _value(number: float | None) -> str:
    """What a cell is sorted by; empty where there is no number."""
    if number is None:
        return ""
    return ' data-value=""' if number != number else f' data-value="{number!r}"'
