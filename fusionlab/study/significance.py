"""Whether the best member leads by more than training again would change: paired tests over seeds.

Members are compared by the differences of their scores seed by seed: runs of one seed share what
it decides. The test is Student's paired t-test ("The Probable Error of a Mean", Biometrika 6(1),
1908). As the best is compared with all others, p-values are corrected as in Holm, "A Simple
Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6(2), 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fusionlab.errors import InputError
from fusionlab.study.scores import better, direction, is_fraction, label, quantity, significant

LEVEL = 0.05
"""P-value below which a lead counts as more than chance; intervals cover 1 minus it."""

_ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Scores are computed in single precision: differences that vary by less are all the same."""


@dataclass(frozen=True)
class PairedTest:
    """The best member and another over the seeds that they share.

    Attributes:
        member: the other.
        seeds: that both have a score of.
        difference: how much better the best is on average, above 0 where it is; None without seeds.
            Below 0 the other is ahead: the best has its rank by seeds that the other lacks.
        low: lower end of the 95 % confidence interval of the difference; None without a test.
        high: upper end.
        t: Student's t with one degree of freedom less than there are seeds; None without a test.
        p: two-sided p-value before correction; None without a test.
        corrected: p-value after Holm's correction over all tests made; None without a test.
        reason: why there is no test; empty if there is one.
    """

    member: str
    seeds: tuple[int, ...]
    difference: float | None
    low: float | None = None
    high: float | None = None
    t: float | None = None
    p: float | None = None
    corrected: float | None = None
    reason: str = ""

    @property
    def significant(self) -> bool:
        """Whether the lead is more than chance, at `LEVEL` after correction."""
        return self.ahead and self.corrected is not None and self.corrected < LEVEL

    @property
    def ahead(self) -> bool:
        """Whether the best is not behind over the seeds that both have."""
        return self.difference is not None and self.difference >= 0


@dataclass(frozen=True)
class Significance:
    """The best member against every other.

    Attributes:
        score: what was compared, without stage.
        best: the member whose mean is best.
        tests: one per other member, in their order.
    """

    score: str
    best: str
    tests: tuple[PairedTest, ...]

    def sentences(self) -> list[str]:
        """What the tests say, in plain language."""
        clear = [test for test in self.tests if test.significant]
        open_ = [t for t in self.tests if t.corrected is not None and t.ahead and t not in clear]
        behind = [t for t in self.tests if t.difference is not None and not t.ahead]
        untested = [test for test in self.tests if test.reason]
        lines = []
        if clear:
            lines.append(
                f"In {_plain(self.score)}, {self.best} is better than {self._listed(clear)}: by "
                "more than training again with other seeds would change."
            )
        if open_:
            lines.append(
                f"Whether {self.best} is better in {_plain(self.score)} than "
                f"{self._listed(open_)}, these seeds do not decide: it may be chance."
            )
        if behind:
            lines.append(
                f"{self.best} has the best mean in {_plain(self.score)} over its own seeds; over "
                f"the seeds both have, {self._listed_ahead(behind)}."
            )
        for reason in dict.fromkeys(test.reason for test in untested):
            members = _enumerated([test.member for test in untested if test.reason == reason])
            lines.append(f"There is no test of {self.best} against {members}: {reason}.")
        return lines

    def _listed(self, tests: Sequence[PairedTest]) -> str:
        """Members with the mean lead over them and the corrected p-value."""
        return _enumerated([f"{t.member} (by {self._lead(t)}, {_p(t.corrected)})" for t in tests])

    def _listed_ahead(self, tests: Sequence[PairedTest]) -> str:
        """Members with their own mean lead and the corrected p-value, if there is one."""
        named = [
            f"{test.member} is ahead by {self._lead(test)}"
            + (f" ({_p(test.corrected)})" if test.corrected is not None else "")
            for test in tests
        ]
        return _enumerated(named)

    def _lead(self, test: PairedTest) -> str:
        assert test.difference is not None
        unit = " points" if is_fraction(self.score) else ""
        return f"{difference_text(abs(test.difference), self.score, sign=False)}{unit}"

    def limits(self) -> list[str]:
        """What the tests cannot say; nothing where there are none."""
        made = [test for test in self.tests if test.corrected is not None]
        if not made:
            return []
        least, most = (f(len(test.seeds) for test in made) for f in (min, max))
        seeds = f"{least}" if least == most else f"{least} to {most}"
        lines = [
            "Seeds change what a training draws at random. The tests tell what training again "
            "would give on the same data, not what other data would give.",
            f"{self.best} was chosen by the same scores that it is tested with, which favours it.",
        ]
        if least < 6:
            lines.insert(
                0,
                f"{seeds} seeds are few: only differences that are large beside the spread of the "
                "seeds can be told from chance, and whether differences are normally distributed, "
                "as the test takes them to be, cannot be checked.",
            )
        return lines


def paired_tests(
    scores: Mapping[str, Mapping[int, float]], score: str, *, best: str | None = None
) -> Significance:
    """Compares the best member with every other over the seeds that they share.

    Args:
        scores: per member its score by seed; seeds without a score are left out.
        score: its name, which says whether more or less is better.
        best: the member to compare with; if not given, that with the best mean over its seeds.

    Raises:
        InputError: if no member has a score, or the named one has none.
    """
    ranked = {
        member: {
            seed: better(score, value) for seed, value in by_seed.items() if math.isfinite(value)
        }
        for member, by_seed in scores.items()
    }
    scored = {member: by_seed for member, by_seed in ranked.items() if by_seed}
    if not scored or (best is not None and best not in scored):
        raise InputError(
            f"There is no {score} of {best or 'any member'} to test: the members with one are "
            f"{list(scored)}."
        )
    best = best or max(scored, key=lambda member: float(np.mean(list(scored[member].values()))))
    tests = [
        _test(member, ranked[best], ranked[member], score) for member in scores if member != best
    ]
    made = [test.p for test in tests if test.p is not None]
    corrected = iter(holm(made))
    return Significance(
        quantity(score),
        best,
        tuple(
            test if test.p is None else PairedTest(**{**vars(test), "corrected": next(corrected)})
            for test in tests
        ),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, by Holm's step-down method, in the order given.

    Args:
        p_values: in [0, 1], one per test.
    """
    corrected, running = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(running, 1.0)
    return corrected


def _test(
    member: str, best: Mapping[int, float], other: Mapping[int, float], score: str
) -> PairedTest:
    seeds = tuple(sorted(set(best) & set(other)))
    name = label(score).removesuffix(", %")
    if not seeds:
        # Not the same as no common seed: it may have diverged, or was never tested.
        reason = f"no value of {name} in any common seed"
        return PairedTest(member, (), None, reason=reason)
    a, b = (np.array([scores[seed] for seed in seeds]) for scores in (best, other))
    differences = a - b
    mean = float(differences.mean())
    if len(seeds) < 2:
        reason = (
            f"both have a value of {name} in one seed only ({seeds[0]}), and a test needs two or "
            "more"
        )
        return PairedTest(member, seeds, mean, reason=reason)
    noise = _ROUNDING * max(float(np.abs(a).max()), float(np.abs(b).max()))
    if float(np.ptp(differences)) <= noise:
        if abs(mean) <= noise:
            return PairedTest(member, seeds, 0.0, reason="they are equal in every seed")
        reason = "their difference is the same in every seed, which leaves no spread to judge it by"
        return PairedTest(member, seeds, mean, reason=reason)
    result = stats.ttest_1samp(differences, 0.0)
    interval = result.confidence_interval(1 - LEVEL)
    return PairedTest(
        member,
        seeds,
        mean,
        low=float(interval.low),
        high=float(interval.high),
        t=float(result.statistic),
        p=float(result.pvalue),
    )


def difference_text(value: float | None, score: str, *, sign: bool = True) -> str:
    """A difference of scores: percentage points, or in the unit of the score."""
    if value is None:
        return "–"
    plus = "+" if sign else ""
    if is_fraction(score):
        return f"{100 * value:{plus}.2f}"
    return significant(value, f"{plus}.3g")


def p_text(p: float | None) -> str:
    """A p-value to two digits."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _p(p: float | None) -> str:
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _plain(score: str) -> str:
    name = label(score).removesuffix(", %")
    return f"distance of {name} from 0" if direction(score) == "zero" else name


def _enumerated(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
