"""Digests of weights, by which stored answers of a network are found again."""

from __future__ import annotations

from typing import Any

from torch import nn

from fusionlab.checkpoints import fingerprint


class WeightsFingerprint:
    """Fingerprint of a module's weights, computed once, and again after weights were loaded.

    To be kept as an attribute of an expert whose weights change in no other way.

    Args:
        module: the network.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._known: str | None = None
        module.register_load_state_dict_post_hook(self._forget)  # type: ignore[no-untyped-call]

    def _forget(self, *_: Any) -> None:  # noqa: ANN401
        self._known = None

    def __call__(self) -> str:
        """The digest."""
        if self._known is None:
            self._known = fingerprint(self.module.state_dict())
        return self._known
