"""Decoders of segmentation-models-pytorch behind this project's contract.

The library's decoders expect the lists of its own encoders: the image first, then maps at strides
2, 4, 8, …, where a map of no channels stands for a stride that an encoder lacks. They look at the
size of the image at most, so that a map of no channels can stand for it too. The classes of this
package make those lists from ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from math import log2
from types import MappingProxyType
from typing import Any, ClassVar

from segmentation_models_pytorch.base.initialization import initialize_decoder
from torch import Tensor, nn

from fusionlab.decoders.base import Decoder
from fusionlab.errors import InputError, did_you_mean
from fusionlab.features import Feature
from fusionlab.norms import accept_single_values

_SUPPLIED = frozenset(
    {
        "self",
        "encoder_channels",
        "encoder_depth",
        "encoder_out_channels",
        "encoder_output_strides",
        "encoder_has_prefix_tokens",
        "in_channels",
        "n_blocks",
        "output_stride",
    }
)
"""Arguments of the library's decoders that follow from the maps."""

_INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
_NORMS = ("batchnorm", "identity", "instancenorm", "inplace")


class SmpDecoder(Decoder):
    """A decoder of segmentation-models-pytorch, with the options of the library's own class.

    Layers are initialised as the library's whole models do. Batch size 1 can be trained on
    (`fusionlab.norms`). Parameter names are the library's, after ``decoder.``.

    Args:
        in_channels: widths of the maps.
        strides: of the maps, in pixels of the image; by default 4, 8, 16, …
        options: the keywords of the library's decoder class, apart from those about the encoder.

    Raises:
        InputError: for maps that do not fit, an unknown option, or a value that the library
            refuses.
    """

    wrapped: ClassVar[type[nn.Module]]
    """The library's class."""
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Options that the class itself has no default for, as the library's models set them."""
    initialised: ClassVar[bool] = True
    """Whether the library's model initialises it other than PyTorch does."""

    def __init__(
        self,
        in_channels: Sequence[int],
        /,
        *,
        strides: Sequence[float] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(in_channels)
        number = len(self.in_channels)
        if strides is None:
            strides = [2.0 ** (i + 2) for i in range(number)]
        if len(strides) != number:
            raise InputError(
                f"{self.title()} needs the stride of each map: {number} maps, but {len(strides)} "
                f"strides {list(strides)}."
            )
        self.strides = tuple(strides)
        self.check([Feature(c, s) for c, s in zip(self.in_channels, strides, strict=True)])
        self.decoder = self._construct(**self._checked(dict(self.defaults) | options))
        accept_single_values(self.decoder)
        if self.initialised:
            initialize_decoder(self.decoder)

    @classmethod
    def title(cls) -> str:
        """Its name in error messages."""
        return "smp/" + cls.__name__.removeprefix("Smp")

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the keywords that configure it: the library's, and those of this class."""
        theirs = inspect.signature(cls.wrapped.__init__).parameters
        return *super().options(), *(name for name in theirs if name not in _SUPPLIED)

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        """The library's decoder; sets `out_channels`."""
        raise NotImplementedError(f"{type(self).__name__} does not define _construct().")

    def _wrap(self, **arguments: Any) -> nn.Module:  # noqa: ANN401
        ours = {name: value for name, value in arguments.items() if name not in _SUPPLIED}
        failure = (
            f"The decoder {self.title()} cannot be built for maps of {list(self.in_channels)} "
            f"channels with the options {ours}: "
        )
        try:
            decoder = self.wrapped(**arguments)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise InputError(f"{failure}{error}") from error
        for name, parameter in decoder.named_parameters():
            if not parameter.numel():
                raise InputError(
                    f"{failure}its layer {name!r} would have no channels. Use more channels; the "
                    "attention 'scse' takes 16 or more of every map."
                )
        return decoder

    def _levels(self) -> list[int]:
        """Per map, how often the image is halved to reach it: 2 for stride 4, also for 3.5."""
        return [round(log2(stride)) for stride in self.strides]

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        known = self.options()
        for name in options:
            if name not in known:
                raise InputError(
                    f"The decoder {self.title()} has no option {name!r}."
                    f"{did_you_mean(name, known)} Its options are {sorted(known)}."
                )
        mode = options.get("interpolation_mode", "nearest")
        if mode not in _INTERPOLATIONS:
            raise InputError(
                f"{self.title()} interpolation_mode is one of {list(_INTERPOLATIONS)}, got "
                f"{mode!r}."
            )
        if "use_norm" in options:
            options["use_norm"] = self._norm(options["use_norm"])
        return options

    def _norm(self, norm: Any) -> Any:  # noqa: ANN401
        if isinstance(norm, bool):
            return norm
        settings = {"type": norm.lower()} if isinstance(norm, str) else norm
        kind = settings.get("type") if isinstance(settings, Mapping) else None
        if kind not in _NORMS:
            raise InputError(
                f"{self.title()} use_norm is true, false, one of {list(_NORMS)}, or a mapping "
                f"{{type: …}} with further arguments of the layer, got {norm!r}. (The library's "
                "'layernorm' would normalise over the columns of a map, and fails.)"
            )
        if kind == "instancenorm":
            # Without, the library cannot initialise it.
            return {**settings, "affine": True}
        return norm if isinstance(norm, str) else dict(settings)


def hollow(maps: Tensor, rows: int, columns: int) -> Tensor:
    """A map of this size without channels, ``(B, 0, rows, columns)``: a shape and no data."""
    return maps.new_empty((maps.shape[0], 0, rows, columns))
