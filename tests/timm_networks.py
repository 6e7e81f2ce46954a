"""Small image networks of timm, and data for them."""

import timm
import torch

from fusionlab.experts import TimmExpert
from fusionlab.types import Modality, Schema

BANDS = ("B02", "B03", "B04", "B08", "B11")
S2 = Modality(
    BANDS,
    gsd=10.0,
    mean=(438.0, 614.0, 588.0, 2193.0, 1568.0),
    std=(607.0, 603.0, 684.0, 1369.0, 1070.0),
)
CLASSES = ["forest", "water", "urban", "meadow"]
SCHEMA = Schema({"s2": S2}, CLASSES, target="multilabel")
BARE = SCHEMA.without_outputs()
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"
WITH_TOKEN = ["test_vit", "small_dinov3"]
NETWORKS = ["test_resnet", "test_convnext", "test_vit2", *WITH_TOKEN]


@timm.models.register_model
def small_dinov3(pretrained=False, **options):
    """DINOv3 as timm has it, but narrow and shallow."""
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(name, None)
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    return timm.create_model("vit_small_patch16_dinov3", **small, **options)


def raw(height=48, width=64, *, batch=2, bands=5):
    generator = torch.Generator().manual_seed(height * width)
    values = torch.randint(0, 4000, (batch, bands, height, width), generator=generator)
    return values.to(torch.uint16)


def normalised(values, modality=S2):
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (modality.mean, modality.std))
    return (values.float() - mean) / std


def awake(module):
    """Networks start with branches that do nothing yet (zeros, tiny layer scales): wakes them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter) * 0.05)
    return module


def expert(backbone="test_resnet", schema=SCHEMA, **options):
    torch.manual_seed(0)
    return awake(TimmExpert(schema, backbone=backbone, **options)).eval()
