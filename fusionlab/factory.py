"""`build_model`: a network from the names of its parts, or from the parts themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from torch import nn

from fusionlab.backbones import BACKBONES, known_features, known_multiple
from fusionlab.backbones.dates import PooledDates, Pooling
from fusionlab.decoders import DECODERS, Decoder
from fusionlab.encoder_decoder import AuxiliaryDecoder, EncoderDecoderNetwork, smallest_multiple
from fusionlab.errors import InputError, did_you_mean
from fusionlab.features import Feature
from fusionlab.heads import HEADS, Head
from fusionlab.necks import NECKS, Neck
from fusionlab.registry import Registry
from fusionlab.trial import try_out

NetworkTask = Literal["segmentation", "regression", "classification", "scalar_regression"]
"""What a network answers: classes or values, for every pixel or for a whole sample."""

Part = str | Mapping[str, Any] | Callable[..., nn.Module] | nn.Module
"""A part of a network: a name, ``{name: …, **options}``, a class, or a ready module."""

_DEFAULT_HEADS = {
    "segmentation": "SegmentationHead",
    "regression": "RegressionHead",
    "classification": "ClassificationHead",
    "scalar_regression": "ClassificationHead",
}
_PREFIXES = ("backbone", "decoder", "head")
_AUXILIARY = ("decoder", "head", "weight")


def build_model(
    task: NetworkTask,
    backbone: Part,
    decoder: Part | None = None,
    num_classes: int | None = None,
    *,
    bands: int | Sequence[str] = 3,
    names: Sequence[str] | None = None,
    necks: Part | Sequence[Part] | None = None,
    head: Part | None = None,
    aux_decoders: Mapping[str, Mapping[str, Any]] | None = None,
    dates: Pooling | None = None,
    rescale: bool = True,
    **options: Any,  # noqa: ANN401
) -> EncoderDecoderNetwork:
    """Puts a network together, and refuses parts that do not fit each other.

    Every part may be a name that a registry knows (``timm/convnext_tiny``, ``UperNet``,
    ``smp/Unet``, ``mypkg.nets.MyBackbone``), a mapping ``{name: …, **options}``, a class, or a
    module that is ready. Options may also stand beside the parts, with their prefix:
    ``backbone_pretrained=True``, ``decoder_channels=256``, ``head_dropout=0.1``.

    Args:
        task: what it answers: ``segmentation`` and ``regression`` for every pixel,
            ``classification`` and ``scalar_regression`` for a whole sample.
        backbone: built as ``cls(bands, **options)``.
        decoder: built as ``cls(channels, **options)``, with ``strides=`` if it takes them and
            ``num_classes=`` if it includes the head. None leaves the last feature to the head.
        num_classes: number of classes, or of variables that are regressed (1 if not given).
        bands: number of input channels, or their names.
        names: their names, instead of their number; an empty list builds a network without head,
            for its features.
        necks: built as ``cls(features, **options)``, one after another; one needs no list.
        head: built as ``cls(channels, names, **options)``; the one of the task if not given.
        aux_decoders: by name, ``{decoder: part, head: part or options, weight: float}``, all of
            which may be left out, over the features that the decoder gets.
        dates: for series of images: how the features of the dates are pooled (``mean``, ``max``,
            ``attention``); the backbone then sees each date by itself.
        rescale: whether an answer for pixels is resized (bilinear) to the image.
        options: of backbone, decoder and head, with their prefix.

    Returns:
        Takes normalised images ``(B, bands, H, W)`` of any size; with `dates`, series
        ``(B, T, bands, H, W)``, their dates and which are valid, as `PooledDates` does.

    Raises:
        InputError: a ValueError: for an unknown task, part or option, for options that nothing
            uses, and for parts that do not fit each other, with what would.
    """
    if task not in get_args(NetworkTask):
        raise InputError(
            f"There is no task {task!r}.{did_you_mean(task, get_args(NetworkTask))} Networks are "
            f"built for {list(get_args(NetworkTask))}."
        )
    routed = _routed(options)
    answers = _names(task, num_classes, names)
    width = bands if isinstance(bands, int) else len(bands)
    encoder = _build(BACKBONES, backbone, width, options=routed["backbone"])
    encoded = features = known_features(encoder, width)
    multiple = known_multiple(encoder, features)
    if dates is not None:
        encoder = PooledDates(encoder, dates, features)
    built: list[Neck] = []
    for neck in _listed(necks):
        made = _build(NECKS, neck, features)
        if not isinstance(made, Neck):
            raise InputError(f"{type(made).__name__} is no neck: necks derive from Neck.")
        built.append(made)
        features = made.features
    pixelwise = task in ("segmentation", "regression")
    main, top = _decision(
        task, features, answers, decoder, head,
        decoder_options=routed["decoder"], head_options=routed["head"],
    )  # fmt: skip
    auxiliary = {}
    if aux_decoders is not None and not isinstance(aux_decoders, Mapping):
        raise InputError(
            "aux_decoders are named, {name: {decoder: …, head: …, weight: …}}; got a "
            f"{type(aux_decoders).__name__}."
        )
    for name, spec in (aux_decoders or {}).items():
        auxiliary[name] = _auxiliary(task, features, answers, name, spec)
    if pixelwise and not rescale and getattr(encoder, "size", None) is not None:
        raise InputError(
            f"`rescale: false` keeps the answer's pixels at one size, but {encoder} takes images "
            "of one size only, to which all others are resized. Leave `rescale` out."
        )
    network = EncoderDecoderNetwork(
        encoder, built, main, top, auxiliary,
        encoded=encoded,
        features=features,
        multiple=smallest_multiple(multiple, features),
        pixelwise=pixelwise,
        rescale=rescale,
    )  # fmt: skip
    try_out(network, width, len(answers))
    return network


def _listed(necks: Part | Sequence[Part] | None) -> Sequence[Part]:
    if necks is None:
        return ()
    alone = isinstance(necks, str | Mapping | nn.Module) or callable(necks)
    return (necks,) if alone else necks  # type: ignore[return-value]


def _routed(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by the part that their prefix names."""
    routed: dict[str, dict[str, Any]] = {prefix: {} for prefix in _PREFIXES}
    left = []
    for name, value in options.items():
        prefix, _, rest = name.partition("_")
        if prefix in routed and rest:
            routed[prefix][rest] = value
        else:
            left.append(name)
    if left:
        known = [
            name
            for name, parameter in inspect.signature(build_model).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        raise InputError(
            f"build_model does not use {left}.{did_you_mean(left, known)} Options of a part have "
            f"its prefix: {', '.join(f'{prefix}_…' for prefix in _PREFIXES)}; necks and auxiliary "
            "decoders have theirs inside."
        )
    return routed


def _names(
    task: NetworkTask, num_classes: int | None, names: Sequence[str] | None
) -> tuple[str, ...]:
    if names is not None:
        if num_classes is not None and num_classes != len(names):
            raise InputError(
                f"num_classes is {num_classes}, but there are {len(names)} names: {list(names)}. "
                "Say one of the two."
            )
        return tuple(names)
    if num_classes is None:
        if "regression" in task:
            return ("value",)
        raise InputError(f"A network for {task} needs the number of classes: `num_classes=`.")
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, got {num_classes}.")
    return tuple(str(i) for i in range(num_classes))


def _decision(
    task: NetworkTask,
    features: Sequence[Feature],
    names: tuple[str, ...],
    decoder: Part | None,
    head: Part | None,
    *,
    decoder_options: Mapping[str, Any],
    head_options: Mapping[str, Any],
) -> tuple[nn.Module | None, nn.Module | None]:
    """A decoder and the head behind it; either may be missing."""
    if decoder is None:
        if decoder_options:
            raise InputError(
                f"Options of a decoder are given ({sorted(decoder_options)}), but no decoder. Name "
                "one, or leave them out."
            )
        return None, _head(task, features[-1], names, head, head_options)
    constructor, ready, spec = _resolved(DECODERS, decoder, decoder_options)
    channels = [feature.channels for feature in features]
    if ready is not None:
        _require_out_channels(ready)
        main = ready
    else:
        if inspect.isclass(constructor) and issubclass(constructor, Decoder):
            constructor.check(features)
        else:
            _require_maps(constructor, features)
        surroundings = _surroundings(constructor, features, names)
        if twice := sorted(spec.keys() & surroundings.keys()):
            raise InputError(
                f"{twice} of the decoder {getattr(constructor, '__name__', constructor)} follow "
                "from the network. Leave them out."
            )
        main = DECODERS.build(constructor, channels, **spec, **surroundings)
    if getattr(main, "includes_head", False):
        if head is not None or head_options:
            raise InputError(
                f"The decoder {type(main).__name__} includes the head, so no other can follow. "
                "Leave out `head`, or choose another decoder."
            )
        return main, None
    return main, _head(task, Feature(_require_out_channels(main)), names, head, head_options)


def _auxiliary(
    task: NetworkTask,
    features: Sequence[Feature],
    names: tuple[str, ...],
    name: str,
    spec: Mapping[str, Any],
) -> AuxiliaryDecoder:
    if not isinstance(spec, Mapping):
        raise InputError(f"aux_decoders.{name} is a mapping of {list(_AUXILIARY)}, got {spec!r}.")
    unknown = [key for key in spec if key not in _AUXILIARY]
    if unknown:
        raise InputError(
            f"aux_decoders.{name} has {unknown}.{did_you_mean(unknown, _AUXILIARY)} An auxiliary "
            f"decoder has {list(_AUXILIARY)}; options of its parts stand inside these."
        )
    if not name or "." in name or hasattr(nn.ModuleDict, name):
        raise InputError(
            f"An auxiliary decoder cannot be called {name!r}: it is named without dots, and not "
            "as PyTorch names something of its own. Choose another name."
        )
    weight = spec.get("weight")
    if weight is not None and not (isinstance(weight, int | float) and weight >= 0):
        raise InputError(f"aux_decoders.{name}: weight is a number of 0 or more, got {weight!r}.")
    default = "FCN" if task in ("segmentation", "regression") else None
    decoder: Part | None = spec.get("decoder", default)
    try:
        main, top = _decision(
            task, features, names, decoder, spec.get("head"), decoder_options={}, head_options={}
        )
    except InputError as error:
        raise InputError(f"aux_decoders.{name}: {error}") from error
    return AuxiliaryDecoder(main, top, weight=weight)


def _head(
    task: NetworkTask,
    feature: Feature,
    names: tuple[str, ...],
    head: Part | None,
    options: Mapping[str, Any],
) -> nn.Module | None:
    if not names:
        return None
    kind = "pixel" if task in ("segmentation", "regression") else "sample"
    if isinstance(head, Mapping) and "name" not in head:
        head = {"name": _DEFAULT_HEADS[task], **head}
    constructor, ready, spec = _resolved(HEADS, head or _DEFAULT_HEADS[task], options)
    answers = "values" if "regression" in task else "classes"
    found = ready if ready is not None else constructor
    fits = (getattr(found, "kind", kind), getattr(found, "answers", None) or answers)
    if fits != (kind, answers):
        raise InputError(
            f"The task {task} answers {answers} for every {kind}, but "
            f"{getattr(constructor, '__name__', type(ready).__name__)} is a head for {fits[1]} of "
            f"every {fits[0]}: use {_DEFAULT_HEADS[task]}."
        )
    if kind == "pixel" and feature.layout != "NCHW":
        raise InputError(
            f"The task {task} answers for every pixel, but the head would get a feature laid out "
            f"as {feature.layout!r} instead of a map. Add the neck ReshapeTokensToImage (tokens), "
            "and a decoder."
        )
    if ready is not None:
        if isinstance(ready, Head) and len(ready.names) != len(names):
            raise InputError(
                f"The head answers {len(ready.names)} values, but {len(names)} are wanted: "
                f"{list(names)}."
            )
        return ready
    return HEADS.build(constructor, feature.channels, names, **spec)


def _build(
    registry: Registry,
    part: Part,
    *args: Any,  # noqa: ANN401
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    constructor, ready, spec = _resolved(registry, part, options or {})
    return ready if ready is not None else registry.build(constructor, *args, **spec)


def _resolved(
    registry: Registry, part: Part, options: Mapping[str, Any]
) -> tuple[Any, nn.Module | None, dict[str, Any]]:
    """What builds a part, or the part itself, and all options for it."""
    kind = registry.kind
    if isinstance(part, Mapping):
        inside = dict(part)
        if "name" not in inside:
            raise InputError(f"A {kind} is a name or {{name: …, **options}}, got {dict(part)}.")
        part = inside.pop("name")
        twice = sorted(inside.keys() & options.keys())
        if twice:
            raise InputError(
                f"{kind}: {twice} is given twice, in its mapping and as {kind}_{twice[0]}. Say it "
                "once."
            )
        options = {**inside, **options}
    if isinstance(part, nn.Module):
        registry.build(part, **options)  # refuses options
        return type(part), part, {}
    if isinstance(part, str):
        return registry.find(part), None, dict(options)
    if not callable(part):
        raise InputError(
            f"A {kind} is a name, {{name: …, **options}}, a class or a module; got "
            f"{type(part).__name__}: {part!r}."
        )
    return part, None, dict(options)


def _surroundings(
    constructor: Any,  # noqa: ANN401
    features: Sequence[Feature],
    names: tuple[str, ...],
) -> dict[str, Any]:
    """What a decoder is told beside the widths, if it takes it."""
    supplied: dict[str, Any] = {}
    try:
        parameters = inspect.signature(constructor).parameters
    except ValueError:
        return supplied
    strides = [feature.stride for feature in features]
    if "strides" in parameters and None not in strides:
        supplied["strides"] = strides
    if getattr(constructor, "includes_head", False):
        supplied["num_classes"] = len(names)
    return supplied


def _require_out_channels(decoder: nn.Module) -> int:
    width = getattr(decoder, "out_channels", None)
    if not isinstance(width, int):
        raise InputError(
            f"The decoder {type(decoder).__name__} does not say how wide its map is: give it an "
            f"int `out_channels` (found {width!r})."
        )
    return width


def _require_maps(constructor: Any, features: Sequence[Feature]) -> None:  # noqa: ANN401
    layouts = [feature.layout for feature in features]
    if any(layout != "NCHW" for layout in layouts):
        raise InputError(
            f"The decoder {getattr(constructor, '__name__', constructor)} would get features laid "
            f"out as {layouts}. Turn tokens (NLC) into maps with the neck ReshapeTokensToImage."
        )
