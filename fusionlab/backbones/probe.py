"""Finding out what a backbone gives by one pass over an image without content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isqrt

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fusionlab.errors import InputError
from fusionlab.features import Feature

_LAYOUTS = {4: ("NCHW", "NHWC"), 3: ("NLC", "NCL"), 2: ("NC",)}
"""By number of axes, how tensors may be laid out, the usual one first."""

_LEAST_SIDE = 64
"""Pixels. Below, some networks fail that would take any sensible image."""

_USUAL_SIZES = ((64, 96), (224, 224), (256, 256))
"""What a backbone is shown that says nothing of the sizes it takes."""

_MOST_PREFIX_TOKENS = 16
"""Tokens before those of the patches, such as class and register tokens."""


def known_features(backbone: nn.Module, bands: int) -> tuple[Feature, ...]:
    """What a backbone gives: as it says itself, or as `probe` finds.

    Args:
        backbone: any that fulfils the contract; see `probe`.
        bands: number of input channels.

    Raises:
        InputError: as `probe`.
    """
    said = getattr(backbone, "features", None)
    if isinstance(said, tuple) and said and all(isinstance(one, Feature) for one in said):
        return said
    return probe(backbone, bands)


def known_multiple(backbone: nn.Module, features: Sequence[Feature]) -> int:
    """What image sides must be multiples of: as the backbone says, or its largest stride."""
    said = getattr(backbone, "multiple", None)
    if isinstance(said, int):
        return said
    return max([1, *(round(f.stride) for f in features if f.stride is not None)])


def probe(
    backbone: nn.Module, bands: int, *, size: tuple[int, int] | None = None
) -> tuple[Feature, ...]:
    """Shows a backbone two images of zeros and describes what it answers.

    For modules that say no more of themselves than ``out_channels``. Modes of the module and its
    parts are as before afterwards, and nothing in it has learned.

    Args:
        backbone: takes images ``(B, bands, H, W)`` and answers with a list of tensors, the channels
            of which ``backbone.out_channels`` announces.
        bands: number of input channels.
        size: height and width to show; if not given, multiples of ``backbone.multiple`` where it
            has this, or usual sizes, one after another, until it takes one.

    Returns:
        A description of each tensor. Strides are None where rows and columns disagree, or tokens
        fit no grid.

    Raises:
        InputError: if the backbone takes no such image or breaks the contract.
    """
    name = type(backbone).__name__
    channels = _announced(backbone, name)
    shown, answer = _answer(backbone, bands, _sizes(backbone, size), name)
    if not isinstance(answer, list) or not all(isinstance(one, Tensor) for one in answer):
        kinds = f" of {_kinds(answer)}" if isinstance(answer, list | tuple) else ""
        raise InputError(
            f"The backbone {name} answers with a {type(answer).__name__}{kinds}, but a list of "
            "tensors is expected. Wrap it in a module whose forward returns such a list."
        )
    if len(answer) != len(channels):
        raise InputError(
            f"The backbone {name} announces {len(channels)} tensors (out_channels {channels}), but "
            f"answers with {len(answer)}. Make its `out_channels` say what it returns."
        )
    return tuple(
        _describe(
            tuple(tensor.shape), wanted, shown, where=f"Tensor {index} of the backbone {name}"
        )
        for index, (tensor, wanted) in enumerate(zip(answer, channels, strict=True))
    )


def find_shapes(backbone: nn.Module, bands: int, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of what a backbone answers to two images, without computing anything if possible.

    Of a network that answers with a single tensor, the shape for each image.

    Raises:
        Exception: whatever the backbone raises for images of this size.
    """
    with _in_mode(backbone, training=False), torch.no_grad():
        try:
            answer = _without_values(backbone, bands, size, _state(backbone))
        except RuntimeError as error:
            if not _asks_for_values(error):
                raise
            answer = backbone(torch.zeros(2, bands, *size))
    return [tuple(one.shape) for one in answer]


def first_used(backbone: nn.Module, bands: int, size: tuple[int, int]) -> dict[str, int]:
    """Per parameter name, the first of the answers in training that depends on it, from 0 on.

    Parameters on which none depends are left out. Nothing is computed; for networks where that is
    impossible, all parameters count as used at once.
    """
    state = _state(backbone)
    names = [name for name, _ in backbone.named_parameters()]
    for name in names:
        state[name].requires_grad_()
    used: dict[str, int] = {}
    # In evaluation, some networks keep what they made of their parameters.
    with _in_mode(backbone, training=True), torch.enable_grad():
        try:
            answer = _without_values(backbone, bands, size, state)
        except RuntimeError as error:
            if not _asks_for_values(error):
                raise
            return dict.fromkeys(names, 0)
        for index, tensor in enumerate(answer):
            if not tensor.requires_grad:
                continue
            gradients = torch.autograd.grad(
                tensor.sum(), [state[name] for name in names], allow_unused=True, retain_graph=True
            )
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    used.setdefault(name, index)
    return used


def side_of_least(multiple: int) -> int:
    """The smallest odd multiple of a number of pixels that every network should take.

    Odd, so that a network that needs multiples of twice the number is found out.
    """
    times = -(-_LEAST_SIDE // multiple)
    return multiple * (times + 1 - times % 2)


@contextmanager
def _in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation, and for each part the mode it had before afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = training
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _state(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.detach().to("meta") for name, tensor in tensors.items()}


def _without_values(
    backbone: nn.Module, bands: int, size: tuple[int, int], state: dict[str, Tensor]
) -> list[Tensor]:
    images = torch.empty(2, bands, *size, device="meta")
    answer: list[Tensor] = functional_call(backbone, state, (images,))
    return answer


def _asks_for_values(error: RuntimeError) -> bool:
    """Whether a pass without values failed for just that reason."""
    return "meta" in str(error)


def _announced(backbone: nn.Module, name: str) -> list[int]:
    channels = getattr(backbone, "out_channels", None)
    if (
        not isinstance(channels, list | tuple)
        or not channels
        or not all(isinstance(one, int) and one > 0 for one in channels)
    ):
        found = "has none" if channels is None else f"has {channels!r}"
        raise InputError(
            f"A backbone says in its attribute `out_channels` how many channels each tensor has "
            f"that it returns, such as [64, 128, 256, 512]; {name} {found}."
        )
    return list(channels)


def _sizes(backbone: nn.Module, size: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    if size is not None:
        return (size,)
    only = getattr(backbone, "size", None)
    if isinstance(only, tuple) and len(only) == 2:
        return (only,)
    multiple = getattr(backbone, "multiple", None)
    if isinstance(multiple, int):
        side = side_of_least(multiple)
        return ((side, side + multiple),)
    return _USUAL_SIZES


def _answer(
    backbone: nn.Module, bands: int, sizes: Sequence[tuple[int, int]], name: str
) -> tuple[tuple[int, int], object]:
    parameter = next(backbone.parameters(), torch.empty(0))
    failures: list[Exception] = []
    for size in sizes:
        images = torch.zeros(2, bands, *size, device=parameter.device, dtype=parameter.dtype)
        try:
            with _in_mode(backbone, training=False), torch.no_grad():
                return size, backbone(images)
        except Exception as error:  # anything may go wrong in a module of somebody else
            failures.append(error)
    tried = " or ".join(f"{height} x {width}" for height, width in sizes)
    raise InputError(
        f"The backbone {name} takes no images of {bands} bands and {tried} pixels "
        f"({type(failures[0]).__name__}: {failures[0]}). Give it as many input channels as there "
        "are bands, and an attribute `multiple` if image sides must be multiples of something."
    ) from failures[0]


def _kinds(answer: Sequence[object]) -> str:
    return ", ".join(sorted({type(one).__name__ for one in answer})) or "nothing"


def _describe(
    shape: tuple[int, ...], channels: int, size: tuple[int, int], *, where: str
) -> Feature:
    fitting = [
        layout
        for layout in _LAYOUTS.get(len(shape), ())
        if shape[layout.index("C")] == channels and shape[0] == 2
    ]
    if not fitting:
        raise InputError(
            f"{where} has the shape {list(shape)} for 2 images of {size[0]} x {size[1]} pixels, "
            f"but {channels} channels are announced: expected (2, {channels}, rows, columns), "
            f"(2, rows, columns, {channels}) or (2, tokens, {channels})."
        )
    described = [Feature(channels, _stride(shape, one, size), one) for one in fitting]
    return next((one for one in described if one.stride is not None), described[0])


def _stride(shape: tuple[int, ...], layout: str, size: tuple[int, int]) -> float | None:
    height, width = size
    if "H" in layout:
        rows, columns = (shape[layout.index(axis)] for axis in "HW")
        if rows and rows * width == columns * height:
            stride = height / rows
            return int(stride) if stride.is_integer() else stride
    if "L" in layout:
        tokens = shape[layout.index("L")]
        for prefix in range(min(tokens, _MOST_PREFIX_TOKENS + 1)):
            area, rest = divmod(height * width, tokens - prefix)
            stride = isqrt(area)
            if not rest and stride**2 == area and height % stride == 0 == width % stride:
                return stride
    return None
