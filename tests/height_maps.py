"""Height maps that two sensors tell about, made as they are asked for."""

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from fusionlab.data.base import DataModule
from fusionlab.types import Modality, Schema

MODALITIES = {"rgb": Modality(("r", "g", "b"), 1.0), "sar": Modality(("vv",), 2.0)}
NAMES, UNITS = ("height", "moisture"), ("m", "%")


def schema(target="regression", names=NAMES, units=None, **options) -> Schema:
    """Of one variable, or of both in any order."""
    own = dict(zip(NAMES, UNITS, strict=True))
    units = tuple(own.get(n, "") for n in names) if units is None else units
    return Schema(MODALITIES, target=target, variables=names, units=units, gsd=1.0, **options)


class Heights(Dataset):
    """Hills of 5 to 25 m, red where they are high; moisture is what the radar sees."""

    def __init__(self, schema: Schema, n: int = 8, side: int = 32) -> None:
        self.schema, self.n, self.side = schema, n, side

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        random = torch.Generator().manual_seed(i)
        size = (self.side, self.side)
        level = torch.rand(1, 2, 1, 1, generator=random)  # some places are higher than others
        hills = (torch.rand(1, 2, 5, 5, generator=random) + level) / 2
        hills = F.interpolate(hills, size, mode="bilinear", align_corners=True)[0]
        height, moisture = 5 + 20 * hills[0], 100 * hills[1]
        noise = 0.02 * torch.randn(4, *size, generator=random)
        rgb = torch.stack([hills[0], 1 - hills[0], hills[0].square()]) + noise[:3]
        sar = F.avg_pool2d(hills[None, 1:] + noise[None, 3:], 2)[0]
        own = {"height": height, "moisture": moisture}
        target = torch.stack([own[name] for name in self.schema.variables])
        target[:, :2, :3] = torch.nan
        if not self.schema.pixelwise:
            target = target.nanmean(dim=(-2, -1))
            target[:, ...] = torch.where(torch.tensor(i == 3), torch.nan, target)
        return {
            "inputs": {"rgb": rgb, "sar": sar},
            "available": {"rgb": torch.tensor(True), "sar": torch.tensor(i % 4 != 1)},
            "target": target,
            "sample_id": str(i),
        }


class HeightMaps(DataModule):
    """All splits are the same samples."""

    def __init__(self, schema: Schema, *, n: int = 8, side: int = 32, **options) -> None:
        super().__init__(**{"batch_size": 4, **options})
        self.schema, self.n, self.side = schema, n, side

    def dataset(self, split: str) -> Dataset:
        return Heights(self.schema, self.n, self.side)
