"""A neck that gives maps of all scales the same width and meaning: a feature pyramid.

Several scales: Lin et al., "Feature Pyramid Networks for Object Detection", 2017, arXiv:1612.03144.
One scale: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022,
arXiv:2203.16527.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.base import Neck, at_least
from fusionlab.necks.to_pyramid import max_pool, resampled


class FeaturePyramid(Neck):
    """Maps of equal width at several scales, each informed by the coarser ones.

    What it is told decides how:

    - several maps, each coarser than the one before, or of unknown strides: the feature pyramid of
      Lin et al., from the coarsest map down (`TopDown`), as many maps as it gets;
    - a single map, or several of one known stride, of which it takes the last (the deepest) one:
      the simple feature pyramid of ViTDet (`SimplePyramid`), four maps of a quarter, a half, once
      and twice the stride.

    Args:
        features: descriptions of the maps, finest first.
        channels: width of every map of the result.

    Attributes:
        top_down: whether it is the first of the two.

    Raises:
        InputError: for features that are no maps, strides that neither increase nor are all the
            same, or too few channels; when applied, for maps that do not get coarser although
            strides were unknown, or images too small to be pooled.
    """

    layouts: ClassVar[tuple[str, ...]] = ("NCHW",)

    def __init__(self, features: Sequence[Feature], *, channels: int = 256) -> None:
        super().__init__(features)
        width = at_least(channels, 1, where="FeaturePyramid channels")
        strides = [feature.stride for feature in self.received]
        known = [stride for stride in strides if stride is not None]
        one_scale = len(known) == len(strides) and len(set(known)) == 1
        self.top_down = len(strides) > 1 and not one_scale
        self.pyramid: TopDown | SimplePyramid
        if self.top_down:
            if any(fine >= coarse for fine, coarse in pairwise(known)):
                found = ", ".join("unknown" if s is None else f"{s:g}" for s in strides)
                raise InputError(
                    "FeaturePyramid takes maps that get coarser from one to the next, finest "
                    f"first, or maps of one scale, but gets the strides [{found}]. Choose and "
                    "order them with the neck SelectIndices."
                )
            self.pyramid = TopDown([feature.channels for feature in self.received], width)
            self.features = tuple(Feature(width, stride) for stride in strides)
        else:
            last = self.received[-1]
            if last.channels < 4:
                raise InputError(
                    "FeaturePyramid gives a map of one scale a quarter of its channels at the "
                    f"finest scale, but it has only {last.channels}. Use InterpolateToPyramidal, "
                    "which keeps channels."
                )
            self.pyramid = SimplePyramid(last.channels, width)
            self.features = (
                resampled(last, width, finer=4),
                resampled(last, width, finer=2),
                resampled(last, width),
                resampled(last, width, coarser=2),
            )

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Maps ``(B, C_i, h_i, w_i)`` to maps ``(B, channels, h_i, w_i)``.

        Raises:
            InputError: if maps do not get coarser, or one would vanish.
        """
        if isinstance(self.pyramid, TopDown):
            sizes = [tuple(maps.shape[-2:]) for maps in features]
            for fine, coarse in pairwise(sizes):
                if fine[0] < coarse[0] or fine[1] < coarse[1] or fine == coarse != (1, 1):
                    raise InputError(
                        "FeaturePyramid takes several maps of unknown strides for maps that get "
                        f"coarser from one to the next, but their sizes are {sizes}. If they are "
                        "all of one scale, keep one with the neck SelectIndices(indices=[-1])."
                    )
            levels: list[Tensor] = self.pyramid(features)
            return levels
        stride = self.received[-1].stride
        pooled = max_pool(
            features[-1], 2, where="FeaturePyramid", stride=stride, image_size=image_size
        )
        levels = self.pyramid(features[-1], pooled)
        return levels


class TopDown(nn.Module):
    """The pyramid of Lin et al.: 1 x 1 convolutions, sums from the coarsest down, 3 x 3 smoothing.

    Args:
        inputs: widths of the maps, finest first.
        width: of every map of the result.
    """

    def __init__(self, inputs: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in inputs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps ``(B, C_i, h_i, w_i)``, finest first, to ``(B, width, h_i, w_i)``."""
        *finer, state = (lateral(m) for lateral, m in zip(self.laterals, maps, strict=True))
        merged = [state]
        for lateral in reversed(finer):
            state = lateral + F.interpolate(state, size=lateral.shape[-2:], mode="nearest")
            merged.insert(0, state)
        return [smooth(m) for smooth, m in zip(self.smooth, merged, strict=True)]


class SimplePyramid(nn.Module):
    """The pyramid of ViTDet: one map resampled to four scales, each convolved by itself.

    Args:
        inputs: width of the map.
        width: of every map of the result.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        half, quarter = inputs // 2, inputs // 4
        self.enlarge_by_4 = nn.Sequential(
            nn.ConvTranspose2d(inputs, half, 2, stride=2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.enlarge_by_2 = nn.ConvTranspose2d(inputs, half, 2, stride=2)
        self.project = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False),
                LayerNorm2d(width),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                LayerNorm2d(width),
            )
            for channels in (quarter, half, inputs, inputs)
        )

    def forward(self, maps: Tensor, pooled: Tensor) -> list[Tensor]:
        """Four maps, finest first.

        Args:
            maps: ``(B, inputs, h, w)``.
            pooled: the same, max-pooled to half the resolution.
        """
        scales = (self.enlarge_by_4(maps), self.enlarge_by_2(maps), maps, pooled)
        return [project(scale) for project, scale in zip(self.project, scales, strict=True)]
