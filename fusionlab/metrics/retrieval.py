"""How well samples are found again by their embeddings: recall among the first k, median rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

RANKS = (1, 5, 10)
"""Among how many of the best matches the right one is looked for."""
_TIE = 1e-6
"""Cosines that differ by no more are the same: float32 does not tell them apart."""
_ROWS = 1024
"""Samples that are compared with all others at a time."""


class RetrievalMetrics(Metric):
    """Recall at 1, 5 and 10 and the median rank, over a whole evaluation and all processes.

    For each pair of experts and either direction, every sample's embedding by one expert is
    compared with those of all samples by the other. Right is the sample itself, and any of the same
    place. The rank of a sample is that of the best right match.

    Matches that are equally good, such as those of texts that are the same, stand in no order:
    recall is the share of all orders in which a right one is among the first k, and the rank is its
    mean over them. So a network that gives everything the same embedding scores no better than
    chance.

    `compute` gives, as scalars: ``mean_recall``, the mean of all recalls; ``recall_at_1``,
    ``recall_at_5`` and ``recall_at_10``, means over pairs and directions, in [0, 1], and
    ``median_rank`` likewise, from 1; then each of the latter four as
    ``<score>/<expert>_to_<expert>``; ``candidates/<expert>_to_<expert>``, among how many samples
    was looked. A pair without samples has none (NaN), and no part in means.

    All embeddings of an evaluation are kept, ``4 M D`` bytes per sample, and compared in parts, on
    the device they are on.

    Args:
        experts: names, in the order of the embeddings.
        pairs: which of them are compared.

    Attributes:
        embeddings: float32 ``(B, M, D)`` per batch.
        known: int64 ``(B, M + 2)`` per batch: which experts have data of a sample (0 or 1), its
            place, and whether that is known.
        found: all of both over all processes; set by `compute`, gone after `reset`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    embeddings: list[Tensor]
    known: list[Tensor]
    found: tuple[Tensor, Tensor] | None

    def __init__(self, experts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.experts = tuple(experts)
        self.pairs = tuple(pairs)
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("known", [], dist_reduce_fx="cat")
        self.found = None

    def update(
        self,
        embeddings: Tensor,
        available: Tensor,
        place: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> None:
        """Adds a batch, on its device and without waiting for it.

        Args:
            embeddings: ``(B, M, D)``, of length 1.
            available: ``(B, M)`` bool.
            place: ``(B,)`` int64; samples of one number show the same place.
            counted: ``(B,)`` bool: False for a sample that another process counts already.
        """
        if counted is not None:
            available = available & counted[:, None]
        number = torch.zeros_like(available[:, 0], dtype=torch.int64) if place is None else place
        is_known = torch.full_like(number, place is not None)
        self.embeddings.append(embeddings.detach().float())
        self.known.append(torch.cat([available.long(), torch.stack([number, is_known], 1)], 1))

    def compute(self) -> dict[str, Tensor]:
        """All scores by name."""
        if not len(self.embeddings):  # a list of batches, or of all processes one tensor
            self.found = None
            return {}
        self.found = dim_zero_cat(self.embeddings), dim_zero_cat(self.known)
        scores: dict[str, dict[str, Tensor]] = {}
        for first, second in self.pairs:
            for asking, asked in ((first, second), (second, first)):
                scores[f"{asking}_to_{asked}"] = self._direction(asking, asked)
        results: dict[str, Tensor] = {}
        recalls = [f"recall_at_{k}" for k in RANKS]
        for name in (*recalls, "median_rank"):
            results[name] = torch.stack([found[name] for found in scores.values()]).nanmean()
        mean = torch.stack([results[name] for name in recalls]).mean()
        each = {
            f"{name}/{direction}": value
            for name in (*recalls, "median_rank", "candidates")
            for direction, found in scores.items()
            for value in (found[name],)
        }
        return {"mean_recall": mean, **results, **each}

    def reset(self) -> None:
        """Begins a new evaluation."""
        super().reset()
        self.found = None

    def _direction(self, asking: str, asked: str) -> dict[str, Tensor]:
        assert self.found is not None
        embeddings, known = self.found
        a, b = self.experts.index(asking), self.experts.index(asked)
        there = (known[:, a] * known[:, b]).bool()
        queries, keys = embeddings[there, a], embeddings[there, b]
        place, is_known = known[there, -2], known[there, -1].bool()
        hits, ranks = [], []
        for start in range(0, len(queries), _ROWS):
            rows = slice(start, start + _ROWS)
            right = (place[rows, None] == place) & is_known[rows, None] & is_known
            right |= _diagonal(right, start)
            better, wrong, tied = _places(queries[rows] @ keys.T, right)
            hits.append(torch.stack([_hit(k, better, wrong, tied) for k in RANKS], dim=1))
            ranks.append(1 + better + wrong / (tied + 1))
        nothing = torch.tensor(torch.nan, device=embeddings.device)
        recall = torch.cat(hits).mean(dim=0) if hits else nothing.expand(len(RANKS))
        return {
            **{f"recall_at_{k}": value for k, value in zip(RANKS, recall, strict=True)},
            "median_rank": torch.cat(ranks).quantile(0.5) if ranks else nothing,
            "candidates": torch.tensor(float(len(queries)), device=embeddings.device),
        }


def _diagonal(cells: Tensor, start: int) -> Tensor:
    """Which cells ``(R, N)`` compare a sample with itself."""
    rows = torch.arange(start, start + len(cells), device=cells.device)
    columns = torch.arange(cells.shape[1], device=cells.device)
    return rows[:, None] == columns


def _places(cosines: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per row, wrong ones that match better than the best right one, and as well, and right ones.

    The right ones are those that match as well as the best of them, itself included.
    """
    best = cosines.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    tied = (cosines - best).abs() <= _TIE
    better = (cosines > best) & ~tied & ~right
    return better.sum(dim=1), (tied & ~right).sum(dim=1), (tied & right).sum(dim=1)


def _hit(k: int, better: Tensor, wrong: Tensor, right: Tensor) -> Tensor:
    """The share of the orders of tied matches in which a right one is among the first k of all."""
    places = k - better
    missed = torch.ones_like(better, dtype=torch.float32)
    for drawn in range(k):  # one after the other, without putting back
        left = (wrong - drawn).clamp(min=0)
        miss = left / (left + right)
        missed = torch.where(drawn < places, missed * miss, missed)
    return torch.where(places > 0, 1 - missed, 0)
