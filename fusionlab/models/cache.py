"""A store of what frozen experts answered, so that they need not be asked again.

A frozen expert gives the same answer to the same input in every epoch and in every run that uses
it. The store is addressed by content: the expert's weights and options, and the bytes of the input.
Other data options, augmentation or a retrained expert therefore never meet a wrong answer.
"""

from __future__ import annotations

import json
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fusionlab.component import Component
from fusionlab.errors import InputError
from fusionlab.experts import Expert
from fusionlab.types import Batch, Raw, TimeSeries

Question = Literal["logits", "embedding", "map"]
"""What an expert is asked for: its decision, its embedding, or its feature map."""


class AnswerCache:
    """Keeps logits and embeddings of frozen experts in a folder, one file per sample.

    Maps of logits are kept as float16 (``2 * K * H * W`` bytes): they are large and need few
    digits. Regressed values, of which there may be maps too, logits of whole samples, embeddings
    and feature maps are kept as float32 (``4 * K * H * W``, ``4 * K``, ``4 * D`` and
    ``4 * D * h * w`` bytes) and come back as they were.

    Worth it where asking an expert is slower than reading that: on a CPU, for deep experts, or when
    many fusions are compared over the same experts. Samples should come without augmentation, or
    every view of them is stored.

    Args:
        folder: where to keep them; may be shared by runs and processes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def keeps(self, expert: Expert) -> bool:
        """Whether answers of this expert are kept: those that no longer change are."""
        return expert.fingerprint() is not None

    def ask(self, expert: Expert, batch: Batch, question: Question) -> Tensor:
        """The answer of an expert, from the store where it is known.

        Args:
            expert: one of those that `keeps` accepts.
            batch: what it is asked about.
            question: ``logits`` ``(B, K, ...)``, ``embedding`` ``(B, D)`` or ``map``
                ``(B, D, h, w)``.

        Returns:
            The answer as float32, on the device of the batch.

        Raises:
            InputError: if the expert's answers may still change.
        """
        values = batch["inputs"][expert.modality]
        device = batch["available"][expert.modality].device
        keys = _keys(_identity(expert, question, device), values)
        paths = [self.folder / key[:2] / f"{key}.npy" for key in keys]
        known = [path.is_file() for path in paths]
        answers: list[Tensor | None] = [
            torch.from_numpy(np.load(path)) if there else None
            for path, there in zip(paths, known, strict=True)
        ]
        if not all(known):
            new = [i for i, there in enumerate(known) if not there]
            fresh = _answer(expert, _pick(values, new), question)
            scores = question == "logits" and not expert.schema.regresses
            kept = torch.float16 if scores and fresh.ndim > 2 else torch.float32
            fresh = fresh.to("cpu", kept)
            for i, answer in zip(new, fresh, strict=True):
                answers[i] = answer
                _save(paths[i], answer)
        stacked = torch.stack([answer for answer in answers if answer is not None])
        return stacked.to(device).float()


@torch.no_grad()
def _answer(expert: Expert, values: Raw, question: Question) -> Tensor:
    if question != "logits":
        return expert.features(values, pooled=question == "embedding")
    answer = expert.logits(values)
    return answer[0] if isinstance(answer, tuple) else answer


def _identity(expert: Expert, question: Question, device: torch.device) -> bytes:
    """Everything but the input that an answer depends on."""
    fingerprint = expert.fingerprint()
    if fingerprint is None:
        raise InputError(
            f"The answers of {type(expert).__name__} may still change, so they cannot be kept. "
            "Freeze the expert, or leave out `cache:`."
        )
    statistics = dict(expert.inputs.named_buffers())
    # One tensor, which is brought from the device at once.
    values = torch.cat([statistic.flatten() for statistic in statistics.values()]).tolist()
    autocast = torch.is_autocast_enabled(device.type)
    parts = [
        question,
        fingerprint,
        _description(expert),
        expert.names,
        expert.schema.to_dict(),
        # Which names stand behind the codes that follow those of the training rows.
        {name: modality.others for name, modality in expert.schema.modalities.items()},
        # What the data publish, or what a checkpoint brought along: the schema does not say which.
        [(name, tuple(statistic.shape)) for name, statistic in statistics.items()],
        values,
        str(torch.get_autocast_dtype(device.type)) if autocast else "",
    ]
    return blake2b(json.dumps(parts, sort_keys=True).encode()).digest()


def _description(expert: Expert) -> dict[str, Any]:
    """What the expert is, whatever its checkpoints leave out."""
    parts = [part for part in expert.modules() if isinstance(part, Component)]
    stripped = [part.stripped for part in parts]
    for part in parts:
        part.stripped = False
    description = expert.describe()
    for part, value in zip(parts, stripped, strict=True):
        part.stripped = value
    return description


def _keys(identity: bytes, values: Raw) -> list[str]:
    """One key per sample; padded dates do not count."""
    if isinstance(values, list):
        texts = [text.encode("utf-8", "surrogatepass") for text in values]
        return [blake2b(text, key=identity, digest_size=16).hexdigest() for text in texts]
    samples: list[tuple[Tensor, ...]]
    # Brought from the device as a whole: every copy of its own would wait for it.
    if isinstance(values, TimeSeries):
        series = zip(*(part.cpu() for part in values), strict=True)
        samples = [(images[valid], dates[valid]) for images, dates, valid in series]
    else:
        samples = [(image,) for image in values.cpu()]
    keys = []
    for parts in samples:
        digest = blake2b(identity, digest_size=16)
        for part in parts:
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(np.ascontiguousarray(part.numpy()).tobytes())
        keys.append(digest.hexdigest())
    return keys


def _pick(values: Raw, samples: list[int]) -> Raw:
    if isinstance(values, list):
        return [values[i] for i in samples]
    if isinstance(values, TimeSeries):
        return TimeSeries(*(torch.stack([part[i] for i in samples]) for part in values))
    return torch.stack([values[i] for i in samples])


def _save(path: Path, answer: Tensor) -> None:
    """Writes under a temporary name first, so that other processes never read half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, answer.numpy())
    Path(file.name).replace(path)
