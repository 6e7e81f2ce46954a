"""A store of what frozen experts answered, so that they need not be asked again.

A frozen expert gives the same logits for the same input in every epoch and in every run that uses
it. The store is addressed by content: the expert's weights and options, and the bytes of the input.
Other data options, augmentation or a retrained expert therefore never meet a wrong answer.
"""

from __future__ import annotations

import json
import tempfile
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusionlab.experts import Expert, FrozenExpert
from fusionlab.types import Batch, Output, TimeSeries


class AnswerCache:
    """Keeps logits of frozen experts in a folder, one float16 file per sample.

    Worth it where asking an expert is slower than reading ``2 * K * H * W`` bytes: on a CPU, for
    deep experts, or when many fusions are compared over the same experts. Samples should come
    without augmentation, or every view of them is stored.

    Args:
        folder: where to keep them; may be shared by runs and processes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._identities: dict[int, bytes] = {}

    def ask(self, expert: Expert, batch: Batch) -> Output:
        """The answer of an expert, from the store where it is known."""
        if not isinstance(expert, FrozenExpert) or expert.sha256 is None or not expert.evaluate:
            answer: Output = expert(batch)
            return answer
        values = batch["inputs"][expert.modality]
        keys = _keys(self._identity(expert), values)
        paths = [self.folder / key[:2] / f"{key}.npy" for key in keys]
        known = [path.is_file() for path in paths]
        answers: list[Tensor | None] = [
            torch.from_numpy(np.load(path)) if there else None
            for path, there in zip(paths, known, strict=True)
        ]
        device = batch["available"][expert.modality].device
        if not all(known):
            new = [i for i, there in enumerate(known) if not there]
            fresh = expert.logits(_pick(values, new)).half()
            for i, logits in zip(new, fresh, strict=True):
                answers[i] = logits
                _save(paths[i], logits)
        stacked = torch.stack([answer.to(device) for answer in answers if answer is not None])
        return Output(stacked.float())

    def _identity(self, expert: FrozenExpert) -> bytes:
        if id(expert) not in self._identities:
            description = json.dumps(
                [expert.describe(), expert.classes, expert.expert.schema.to_dict()], sort_keys=True
            )
            self._identities[id(expert)] = blake2b(description.encode()).digest()
        return self._identities[id(expert)]


def _keys(identity: bytes, values: Tensor | TimeSeries) -> list[str]:
    """One key per sample; padded dates do not count."""
    keys = []
    for i in range(len(values.dates if isinstance(values, TimeSeries) else values)):
        digest = blake2b(identity, digest_size=16)
        if isinstance(values, TimeSeries):
            valid = values.valid[i].cpu()
            parts = [values.values[i].cpu()[valid], values.dates[i].cpu()[valid]]
        else:
            parts = [values[i].cpu()]
        for part in parts:
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(np.ascontiguousarray(part.numpy()).tobytes())
        keys.append(digest.hexdigest())
    return keys


def _pick(values: Tensor | TimeSeries, samples: list[int]) -> Tensor | TimeSeries:
    if isinstance(values, TimeSeries):
        return TimeSeries(*(torch.stack([part[i] for i in samples]) for part in values))
    return torch.stack([values[i] for i in samples])


def _save(path: Path, answer: Tensor) -> None:
    """Writes under a temporary name first, so that other processes never read half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, answer.cpu().numpy())
    Path(file.name).replace(path)
