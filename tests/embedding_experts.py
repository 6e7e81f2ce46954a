"""A small expert that gives embeddings; named in YAML as ``embedding_experts.PooledExpert``."""

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.experts import Expert
from fusionlab.types import Schema, TimeSeries


class PooledExpert(Expert):
    """Averages features of pixels over an image; BatchNorm over them, as real encoders have."""

    def __init__(
        self, schema: Schema, *, width: int = 6, auxiliary: bool = False, **contract
    ) -> None:
        super().__init__(schema, **contract)
        self.auxiliary = auxiliary
        self.body = nn.Sequential(
            nn.Conv2d(len(self.inputs), width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        self.head = nn.Linear(width, self.num_outputs) if self.names else None

    @property
    def embedding_dim(self) -> int:
        return self.body[0].out_channels

    def features(self, values: Tensor | TimeSeries, *, pooled: bool = True) -> Tensor:
        if isinstance(values, TimeSeries):
            weight = values.valid.float()[:, :, None, None, None]
            image = (self.inputs(values.values) * weight).sum(dim=1) / weight.sum(dim=1)
        else:
            image = self.inputs(values)
        maps = self.body(image)
        return maps.mean(dim=(-2, -1)) if pooled else maps

    def logits(self, values: Tensor | TimeSeries) -> Tensor | tuple[Tensor, Tensor]:
        if self.head is None:
            raise InputError("built without classes")
        answer = self.head(self.features(values))
        return (answer, 2 * answer) if self.auxiliary and self.training else answer


def save_expert(expert: Expert, path, schema: Schema) -> str:
    """Saves an expert as a task does."""
    content = {
        "state_dict": {f"model.{k}": v for k, v in expert.state_dict().items()},
        "hyper_parameters": {"model": expert.describe(), "trained_on": schema.to_dict()},
    }
    torch.save(content, path)
    return str(path)
