"""Losses that bring embeddings of one sample together and keep those of different samples apart.

`InfoNCE`: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(CLIP), 2021, arXiv 2103.00020, section 2.3. `SigmoidContrastive`: Zhai et al., "Sigmoid Loss for
Language Image Pre-Training" (SigLIP), ICCV 2023, arXiv 2303.15343, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.errors import InputError

Pair = tuple[str, str]
"""Two of the experts whose embeddings are compared."""

_LARGEST_LOG_SCALE = math.log(100)


class Embedded(NamedTuple):
    """Embeddings of samples, of every expert.

    Attributes:
        embeddings: ``(B, M, D)`` float32, of length 1; zeros where an expert is missing.
        available: ``(B, M)`` bool: which of them to compare.
        place: ``(B,)`` int64; samples of one number show the same place. None if nobody knows.
    """

    embeddings: Tensor
    available: Tensor
    place: Tensor | None = None

    def rows(self, start: int, stop: int) -> Embedded:
        """Some of the samples."""
        place = None if self.place is None else self.place[start:stop]
        return Embedded(self.embeddings[start:stop], self.available[start:stop], place)


class ContrastiveLoss(nn.Module):
    """Compares every sample's embedding by one expert with those of all samples by another.

    Two embeddings of one sample belong together, those of different samples do not. Samples of the
    same place are left out of each other's comparison, being no examples of either. A sample that
    one expert of a pair has no data of takes no part in that pair; a pair without samples is 0, and
    no part of the mean over pairs.

    In a distributed run every process compares its samples with those of all, and what their
    embeddings are to learn from that is sent back to where they are from. Averaged over processes,
    as DDP does, loss and gradients are those of one process with all samples. All must have the
    same number of samples.

    Subclasses implement `compare` and set `log_scale`, ``(P,)``: per pair the logarithm of the
    factor on cosines. It learns, best without weight decay, and is to be kept in bounds by `clamp`
    after each step.

    Args:
        experts: names, in the order of the embeddings.
        pairs: which of them to compare.

    Raises:
        InputError: for no pairs, one that is no two of the experts, or one that is there twice.
    """

    log_scale: nn.Parameter
    directions: ClassVar[int] = 2
    """1 where comparing the second with the first says the same as the first with the second."""

    def __init__(self, experts: Sequence[str], pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.experts = tuple(experts)
        self.pairs = tuple(pairs)
        if not self.pairs:
            raise InputError(f"{type(self).__name__} compares pairs of {list(experts)}: name some.")
        for pair in self.pairs:
            if len(set(pair)) != 2 or not set(pair) <= set(self.experts):
                raise InputError(
                    f"A pair is two of the experts {list(self.experts)}, got {list(pair)}."
                )
        if len({frozenset(pair) for pair in self.pairs}) != len(self.pairs):
            raise InputError(
                f"Every pair is named once, in either order: {[list(p) for p in self.pairs]}."
            )

    def compare(self, cosines: Tensor, right: Tensor, compared: Tensor, pair: int) -> Tensor:
        """The loss of each row.

        Args:
            cosines: ``(R, N)`` float32 in [-1, 1].
            right: ``(R,)`` int64, the column of the same sample.
            compared: ``(R, N)`` bool: which columns count; the right one does.
            pair: index of the pair.

        Returns:
            ``(R,)``, finite.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare().")

    @torch.no_grad()
    def clamp(self) -> None:
        """Keeps scales between 1 and 100, so that none grows beyond what is stable (CLIP)."""
        self.log_scale.clamp_(0.0, _LARGEST_LOG_SCALE)

    def forward(self, local: Embedded, *, gather: bool = True) -> Tensor:
        """The mean loss of all pairs, scalar; see `per_pair`."""
        losses, samples = self.per_pair(local, gather=gather)
        return mean_over_pairs(losses, samples)

    def per_pair(self, local: Embedded, *, gather: bool = True) -> tuple[Tensor, Tensor]:
        """The loss of each pair.

        Args:
            local: the samples of this process.
            gather: compare with those of all processes, where there are several.

        Returns:
            Losses ``(P,)``, whose mean over processes is that of all samples, and the number of
            samples ``(P,)`` int64 that each is of, over all processes.
        """
        every, first, processes = local, 0, 1
        if gather and dist.is_available() and dist.is_initialized():
            processes = dist.get_world_size()
        if processes > 1:
            every = _gathered(local)
            first = dist.get_rank() * len(local.embeddings)
        totals, samples = self.totals(local, every, first)
        return totals / samples.clamp(min=1) * processes, samples

    def over_all(self, every: Embedded, *, rows: int = 1024) -> tuple[Tensor, Tensor]:
        """As `per_pair`, of a whole set that fits in memory as embeddings, but not as cosines.

        Args:
            every: all samples.
            rows: how many are compared with all at a time.
        """
        totals = self.log_scale.new_zeros(len(self.pairs))
        for first in range(0, len(every.embeddings), rows):
            part = every.rows(first, first + rows)
            totals = totals + self.totals(part, every, first)[0]
        samples = self._samples(every)
        return totals / samples.clamp(min=1), samples

    def totals(self, part: Embedded, every: Embedded, first: int) -> tuple[Tensor, Tensor]:
        """Sums of the losses of some samples compared with all, ``(P,)``, and `_samples` of all.

        Args:
            part: the samples that are compared.
            every: those that they are compared with, themselves among them.
            first: where among them the part begins.
        """
        right = torch.arange(len(part.embeddings), device=part.embeddings.device) + first
        columns = torch.arange(len(every.embeddings), device=right.device)
        others = torch.ones(len(right), len(columns), dtype=torch.bool, device=right.device)
        if part.place is not None and every.place is not None:
            same = part.place[:, None] == every.place
            others = ~same | (right[:, None] == columns)
        sums = []
        with torch.autocast(right.device.type, enabled=False):
            for i, (a, b) in enumerate(self._indices()):
                both, all_both = (x.available[:, a] & x.available[:, b] for x in (part, every))
                # What is not there has no part; a row that is not there itself must stay finite.
                compared = (others & all_both) | ~both[:, None]
                total = part.embeddings.new_zeros(())
                for x, y in ((a, b), (b, a))[: self.directions]:
                    cosines = part.embeddings[:, x].float() @ every.embeddings[:, y].float().T
                    rows = self.compare(cosines, right, compared, i)
                    total = total + torch.where(both, rows, 0).sum()
                sums.append(total / self.directions)
        return torch.stack(sums), self._samples(every)

    def _indices(self) -> list[tuple[int, int]]:
        order = self.experts.index
        return [(order(first), order(second)) for first, second in self.pairs]

    def _samples(self, every: Embedded) -> Tensor:
        """Samples of each pair that both experts have data of, ``(P,)`` int64."""
        there = every.available
        return torch.stack([(there[:, a] & there[:, b]).sum() for a, b in self._indices()])


class InfoNCE(ContrastiveLoss):
    """Cross-entropy of telling which of all embeddings is the same sample's, asked both ways.

    Args:
        experts: names, in the order of the embeddings.
        pairs: which of them to compare.
        temperature: what cosines are divided by to begin with, in [0.01, 1].

    Raises:
        InputError: for a temperature outside that range, or as `ContrastiveLoss`.
    """

    def __init__(
        self, experts: Sequence[str], pairs: Sequence[Pair], *, temperature: float = 0.07
    ) -> None:
        super().__init__(experts, pairs)
        self.log_scale = _log_scale(temperature, len(self.pairs), where="InfoNCE")

    def compare(self, cosines: Tensor, right: Tensor, compared: Tensor, pair: int) -> Tensor:
        """See `ContrastiveLoss.compare`."""
        logits = cosines * self.log_scale[pair].exp()
        return F.cross_entropy(logits.masked_fill(~compared, -torch.inf), right, reduction="none")


class SigmoidContrastive(ContrastiveLoss):
    """Whether two embeddings are of one sample, asked of each two alone, by a logistic loss.

    Unlike `InfoNCE` it does not make samples compete, and can do with small batches. Summed over
    all comparisons and divided by the number of samples, as published.

    Args:
        experts: names, in the order of the embeddings.
        pairs: which of them to compare.
        temperature: what cosines are divided by to begin with, in [0.01, 1].
        bias: what is added to begin with: most are not of one sample.

    Attributes:
        bias: ``(P,)``, learned as well.

    Raises:
        InputError: for a temperature outside that range, or as `ContrastiveLoss`.
    """

    directions = 1

    def __init__(
        self,
        experts: Sequence[str],
        pairs: Sequence[Pair],
        *,
        temperature: float = 0.1,
        bias: float = -10.0,
    ) -> None:
        super().__init__(experts, pairs)
        self.log_scale = _log_scale(temperature, len(self.pairs), where="SigmoidContrastive")
        self.bias = nn.Parameter(torch.full((len(self.pairs),), float(bias)))

    def compare(self, cosines: Tensor, right: Tensor, compared: Tensor, pair: int) -> Tensor:
        """See `ContrastiveLoss.compare`."""
        logits = cosines * self.log_scale[pair].exp() + self.bias[pair]
        columns = torch.arange(cosines.shape[1], device=right.device)
        signs = torch.where(right[:, None] == columns, 1.0, -1.0)
        return torch.where(compared, -F.logsigmoid(signs * logits), 0).sum(dim=1)


ContrastiveLossFactory = Callable[[Sequence[str], Sequence[Pair]], ContrastiveLoss]
"""In YAML: ``class_path`` and ``init_args``; experts and pairs are supplied when built."""


def mean_over_pairs(losses: Tensor, samples: Tensor) -> Tensor:
    """The mean of the losses ``(P,)`` of those pairs that have samples; 0 if none has."""
    there = samples > 0
    return torch.where(there, losses, 0).sum() / there.sum().clamp(min=1)


def all_pairs(experts: Sequence[str]) -> list[Pair]:
    """Every two of the experts, in their order."""
    return [(a, b) for i, a in enumerate(experts) for b in experts[i + 1 :]]


def stacked(
    experts: Sequence[str],
    embeddings: Mapping[str, Tensor],
    available: Mapping[str, Tensor],
    place: Tensor | None = None,
) -> Embedded:
    """Embeddings per expert as one tensor.

    Args:
        experts: names, in the order wanted.
        embeddings: per expert ``(B, D)``.
        available: per expert ``(B,)`` bool.
        place: see `Embedded`.
    """
    return Embedded(
        torch.stack([embeddings[name] for name in experts], dim=1),
        torch.stack([available[name] for name in experts], dim=1),
        place,
    )


def _log_scale(temperature: float, pairs: int, *, where: str) -> nn.Parameter:
    if not 0.01 <= temperature <= 1:
        raise InputError(f"{where} temperature lies in [0.01, 1], got {temperature}.")
    return nn.Parameter(torch.full((pairs,), math.log(1 / temperature)))


class _Gather(torch.autograd.Function):
    """Rows of all processes in their order; each gets back what all of them learn of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def _gathered(local: Embedded) -> Embedded:
    """The samples of all processes, in their order; gradients go back to where they are from."""
    # One exchange of embeddings, so that processes cannot meet in different ones while they train.
    embeddings: Tensor = _Gather.apply(local.embeddings.float())
    known = local.available.long()
    if local.place is not None:
        known = torch.cat([known, local.place[:, None]], dim=1)
    parts = [torch.empty_like(known) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, known.contiguous())
    together = torch.cat(parts)
    m = local.available.shape[1]
    return Embedded(
        embeddings, together[:, :m].bool(), None if local.place is None else together[:, m]
    )
