"""The contract of necks: from what a backbone gives to what a decoder or a head takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from fusionlab.component import Component
from fusionlab.errors import InputError
from fusionlab.features import Feature

_NAMES = {"NCHW": "maps", "NLC": "tokens", "NC": "embeddings"}


class Neck(Component):
    """Several tensors of an image in, several tensors out, both described before any image is seen.

    A neck is built from the description of what it gets and describes what it gives in turn, so
    that necks follow each other and a decoder can refuse, before training, what does not fit.
    Subclasses set `features` in their constructor and implement `convert`.

    Args:
        features: descriptions of the tensors it gets, in order.

    Attributes:
        layouts: the layouts it takes; any if empty.
        received: the descriptions as given.
        features: descriptions of the tensors it gives.

    Raises:
        InputError: if there is no feature, one without channels, or one in a layout that it does
            not take; names the neck that would help.
    """

    supplied: ClassVar[tuple[str, ...]] = ("features",)
    layouts: ClassVar[tuple[str, ...]] = ()
    features: tuple[Feature, ...]

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self.received = tuple(Feature(*feature) for feature in features)
        self.features = self.received
        name = type(self).__name__
        if not self.received:
            raise InputError(
                f"{name} gets no features: let the backbone or the neck before it give one or more."
            )
        for i, feature in enumerate(self.received):
            if feature.channels < 1:
                raise InputError(
                    f"{name} takes features of one or more channels, but feature {i} has "
                    f"{feature.channels}."
                )
            if self.layouts and feature.layout not in self.layouts:
                wanted = " or ".join(_titled(layout) for layout in self.layouts)
                raise InputError(
                    f"{name} takes {wanted}, but feature {i} of {len(self.received)} is laid out "
                    f"as {_titled(feature.layout)}. {_remedy(name, feature.layout, self.layouts)}"
                )

    def process_channel_list(self, channel_list: list[int]) -> list[int]:
        """Widths of what it gives.

        Args:
            channel_list: widths of what it gets: those it was built for.

        Raises:
            InputError: for other widths.
        """
        built_for = [feature.channels for feature in self.received]
        if list(channel_list) != built_for:
            raise InputError(
                f"{type(self).__name__} was built for features of the widths {built_for}, got "
                f"{list(channel_list)}. Build another one for these."
            )
        return [feature.channels for feature in self.features]

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Converts the features of a batch; the list given stays as it is.

        Args:
            features: tensors as `received` describes them.
            image_size: rows and columns, in pixels, of the images that the backbone saw, padding
                included.

        Returns:
            Tensors as `features` describes them.

        Raises:
            InputError: if the tensors are not as described.
        """
        fitting = len(features) == len(self.received) and all(
            tensor.ndim == len(feature.layout)
            and tensor.shape[feature.layout.index("C")] == feature.channels
            for tensor, feature in zip(features, self.received, strict=True)
        )
        if not fitting:
            described = [f"{feature.layout} with C={feature.channels}" for feature in self.received]
            raise InputError(
                f"{type(self).__name__} was built for the features {described}, but gets tensors "
                f"of the shapes {[tuple(tensor.shape) for tensor in features]}. What comes before "
                "it must describe what it gives: channels, and layout where it is not NCHW."
            )
        return self.convert(list(features), image_size)

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """What `forward` does, for tensors that are as described."""
        raise NotImplementedError(f"{type(self).__name__} does not define convert().")


def at_least(value: Any, least: int, *, where: str) -> int:  # noqa: ANN401
    """An integer option that has a lower bound.

    Raises:
        InputError: unless it is an integer of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{where} must be an integer of {least} or more, got {value!r}.")
    return value


def checked_indices(indices: Any, number: int, *, where: str) -> tuple[int, ...]:  # noqa: ANN401
    """Positions among `number` features, counted from the front.

    Args:
        indices: positions from 0, or from -1 backwards.
        number: of features there are.
        where: what is asking, for error messages.

    Raises:
        InputError: unless it is a list of one or more positions that exist.
    """
    found = list(indices) if isinstance(indices, Sequence) and not isinstance(indices, str) else []
    whole = all(isinstance(i, int) and not isinstance(i, bool) for i in found)
    if not found or not whole or not all(-number <= i < number for i in found):
        raise InputError(
            f"{where} is a list of positions among the {number} feature(s) it gets: 0 to "
            f"{number - 1}, or -1 to {-number} from the end. Got {indices!r}."
        )
    return tuple(i % number for i in found)


def _titled(layout: str) -> str:
    return f"{_NAMES[layout]} ({layout})" if layout in _NAMES else layout


def _remedy(name: str, found: str, layouts: tuple[str, ...]) -> str:
    for wanted in layouts:
        if sorted(found) == sorted(wanted):
            order = [found.index(axis) for axis in wanted]
            return f"Add the neck PermuteDims(new_order={order}) before it."
    if found == "NLC":
        return "Add the neck ReshapeTokensToImage before it, which turns tokens into maps."
    if found == "NC":
        return "An embedding has lost its positions: leave out the neck that pooled it."
    if found == "NCHW":
        return f"They are maps already: leave {name} out."
    return "Add necks before it that bring the axes into this order."


NeckFactory = Callable[[Sequence[Feature]], Neck]
"""In YAML: ``class_path`` and ``init_args``; the features are supplied when built."""
