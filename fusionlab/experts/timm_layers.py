"""How deep each parameter of a network of timm lies, as timm counts it."""

from __future__ import annotations

from typing import Any

from timm.models._manipulate import group_with_matcher
from timm.optim._param_groups import auto_group_layers


def parameter_layers(network: Any) -> dict[str, int]:  # noqa: ANN401
    """Per parameter name, the number of its layer, 0 next to the input.

    What follows the last block (its normalisation) counts as part of it.

    Args:
        network: a model of timm without its classifier.
    """
    if not hasattr(network, "group_matcher"):
        return dict(auto_group_layers(network))  # type: ignore[no-untyped-call]
    behind = "behind the last layer"  # a name that no pattern knows
    named = [*((name, None) for name, _ in network.named_parameters()), (behind, None)]
    layers = group_with_matcher(iter(named), network.group_matcher(coarse=False), reverse=True)
    last = layers.pop(behind) - 1
    return {name: min(layer, last) for name, layer in layers.items()}
