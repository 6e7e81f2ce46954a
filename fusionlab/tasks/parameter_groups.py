"""Groups of parameters that an optimiser treats differently: by their names, and by their depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, NamedTuple

from torch import nn
from torch.nn import Parameter

from fusionlab.component import Backbone
from fusionlab.errors import InputError


class ParameterGroup(NamedTuple):
    """Trainable parameters that an optimiser treats alike.

    Attributes:
        parameters: the parameters.
        options: of the optimiser (``lr``, ``weight_decay``).
        scale: factor on the learning rate.
    """

    parameters: list[Parameter]
    options: Mapping[str, float]
    scale: float


def parameter_groups(
    module: nn.Module, options: Mapping[str, Mapping[str, float]], *, layer_decay: float | None
) -> list[ParameterGroup]:
    """The trainable parameters of a module in groups.

    Args:
        module: whose parameters.
        options: of the optimiser, by glob over parameter names; the first that fits counts, the
            rest of the parameters form a group of their own.
        layer_decay: factor on the learning rate of a backbone from each layer to the one below it,
            counted from its output; None for one rate.

    Raises:
        InputError: if a glob matches no parameter, if nothing is trainable, or if there is a decay
            but no backbone that tells its layers.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise InputError(
            f"{_name(module)} has nothing to train: every part is frozen or has no parameters. It "
            "can be tested as it is."
        )
    scales = {} if layer_decay is None else _layer_scales(module, layer_decay)
    order = [*options, ""]
    groups: dict[tuple[int, float], list[Parameter]] = {}
    for name, parameter in trainable.items():
        pattern = next((p for p in options if fnmatch(name, p)), "")
        groups.setdefault((order.index(pattern), scales.get(name, 1.0)), []).append(parameter)
    used = {order[position] for position, _ in groups}
    for pattern in options:
        if pattern not in used:
            raise _unused(pattern, options, list(trainable))
    return [
        ParameterGroup(groups[key], options.get(order[key[0]], {}), key[1])
        for key in sorted(groups)
    ]


def _unused(pattern: str, patterns: Mapping[str, Any], trainable: Sequence[str]) -> InputError:
    shadowed = next((name for name in trainable if fnmatch(name, pattern)), None)
    if shadowed is not None:
        first = next(p for p in patterns if fnmatch(shadowed, p))
        return InputError(
            f"parameter_groups: {pattern!r} is never reached, because {first!r} comes first and "
            "takes its parameters. Put the narrower pattern first."
        )
    return InputError(
        f"parameter_groups: {pattern!r} matches no trainable parameter. Their names begin "
        f"{list(trainable[:5])}."
    )


def _layer_scales(module: nn.Module, decay: float) -> dict[str, float]:
    """Per parameter of a backbone, the factor of its layer on the learning rate."""
    scales: dict[str, float] = {}
    for prefix, backbone in module.named_modules():
        if isinstance(backbone, Backbone):
            layers = backbone.parameter_layers()
            above = max(layers.values(), default=0) + 1
            for name, layer in layers.items():
                scales[f"{prefix}.{name}"] = decay ** (above - layer)
    if not scales:
        raise InputError(
            f"layer_decay is {decay}, but {_name(module)} has no backbone that tells its layers. "
            "Leave layer_decay out, or use TimmExpert, EncoderDecoder or UNetFormer."
        )
    return scales


def _name(module: nn.Module) -> str:
    """What the user calls it: the model of a task."""
    return type(getattr(module, "model", module)).__name__


def check_same_groups(
    checkpoint: Mapping[str, Any],
    groups: Sequence[ParameterGroup],
    settings: Mapping[str, Any],
) -> None:
    """Refuses to go on with an optimiser whose groups are not those of a checkpoint.

    Args:
        checkpoint: what is to be restored.
        groups: today's.
        settings: those of today that decide on groups, by name.

    Raises:
        InputError: if the numbers of groups or of parameters in them differ; says which settings
            do.
    """
    states = checkpoint.get("optimizer_states")
    if not states:
        return
    then = [len(group["params"]) for group in states[0]["param_groups"]]
    now = [len(group.parameters) for group in groups]
    if then == now:
        return
    stored = checkpoint.get("hyper_parameters", {})
    changed = [
        f"{name} was {stored.get(name)} and is {value}"
        for name, value in settings.items()
        if (stored.get(name) or None) != (value or None)
    ]
    raise InputError(
        f"The run to go on with trained {_counted(then)}, but with today's settings there are "
        f"{_counted(now)}: "
        + ("; ".join(changed) if changed else "other parts of the model are frozen")
        + ". Set this as it was, or start a new fit without --ckpt_path; an expert takes the "
        "trained weights along as a PretrainedExpert with `checkpoint:`."
    )


def _counted(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"{sizes[0]} parameters in one group"
    return f"{sum(sizes)} parameters in {len(sizes)} groups"
