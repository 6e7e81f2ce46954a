"""Where pretrained weights come from: the Hugging Face hub, its local cache, or timm's mirrors.

Weights are fetched at run time and never part of this package, whose licence is not theirs.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import adapt_input_conv
from timm.models._hub import download_cached_file
from torch import Tensor

from fusionlab.errors import InputError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which timm's repositories keep weights, the better one first."""

_HUB_TIMEOUT = 10.0  # seconds


def model_config(name: str, *, advice: str) -> Any:  # noqa: ANN401  # timm is untyped
    """What timm says of a model and its weights; None for models without any.

    Args:
        name: a timm model, with or without a suffix for particular weights.
        advice: what to choose instead, for the message.

    Raises:
        InputError: if timm has no such model (names similar ones) or no such weights (names those
            it has).
    """
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=5)
        raise InputError(
            f"timm has no model {name!r}"
            + (f"; similar names: {similar}" if similar else "")
            + f". {advice} (`timm.list_models()` lists all)."
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(name.split(".")[0] + ".*")
        raise InputError(f"timm has no weights named {name!r}. It has {known}.") from error


def timm_weights(name: str, config: Any) -> str:  # noqa: ANN401
    """Path of the weights that timm publishes for a model, fetched if they are not in the cache.

    Args:
        name: the model.
        config: what `model_config` says of it.

    Raises:
        InputError: if there are none, or they cannot be had.
    """
    if config is None or not config.has_weights:
        raise InputError(
            f"timm publishes no weights for {name!r}. Say `pretrained: false`, or give the path of "
            "a weights file."
        )
    warn_of_licence(name, config.license)
    if config.hf_hub_id:
        files = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
        return hub_file(config.hf_hub_id, files, what=f"The weights of {name!r}")
    with _explaining(f"The weights of {name!r}", config.url, remedy=f"get {config.url}"):
        path: str = download_cached_file(config.url)
    return path


def hub_file(
    repository: str, files: Sequence[str], *, what: str, without: str = "pretrained: false"
) -> str:
    """Path of a file of a hub repository in the local cache, fetched if it is not there.

    Args:
        repository: ``owner/name``, ``owner/name@revision``.
        files: names of the file, the first that exists counts.
        what: what it holds, for the message.
        without: the configuration that asks for no weights, for the message.

    Raises:
        InputError: if it is neither in the cache nor to be had; says so within seconds.
    """
    name, _, revision = repository.partition("@")
    for file in files:
        # Asked first, because the hub would be asked whether there is a newer one.
        path = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(path, str):
            return path
    with _explaining(what, name, remedy=f"`hf download {name}`", without=without):
        # huggingface_hub repeats every request for most of a minute before it gives up.
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
        for file in files[:-1]:
            try:
                return hf_hub_download(name, file, revision=revision or None)
            except EntryNotFoundError:
                continue
        return hf_hub_download(name, files[-1], revision=revision or None)


@contextmanager
def _explaining(
    what: str, source: str, *, remedy: str, without: str = "pretrained: false"
) -> Iterator[None]:
    option = without.partition(":")[0]
    try:
        yield
    except Exception as error:  # the HTTP libraries involved share no class of errors
        raise InputError(
            f"{what} are not in the local cache ({constants.HF_HUB_CACHE}), and "
            f"getting {source} from {constants.ENDPOINT} failed: the hub could not be reached "
            f"({type(error).__name__}: {error}). Say `{without}` to start from random "
            f"weights, give the path of a local file (`{option}: /path/weights.safetensors`), or "
            f"fill the cache on a machine with a connection ({remedy}) and copy it here."
        ) from error


def warn_of_licence(name: str, licence: str | None) -> None:
    """Says what a licence forbids, where it forbids what people often do with weights.

    Weights under the DINOv3 License, and what is derived from them, may be passed on under that
    licence only, with a copy of it; a checkpoint holds them unless they are stripped from it.
    """
    terms = (licence or "").lower().split("-")
    if "nc" in terms or "noncommercial" in terms:
        warnings.warn(
            f"The weights of {name!r} are licensed {licence}: no commercial use, and what "
            "is trained from them inherits that.",
            stacklevel=5,
        )
    elif terms[0] == "dinov3":
        warnings.warn(
            f"The weights of {name!r} are licensed {licence}: they, and what is trained from them, "
            "may be passed on under that licence only, with a copy of it. A frozen backbone can be "
            "left out of checkpoints (`strip_frozen: true` in the task).",
            stacklevel=5,
        )


def first_convolutions(config: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Names of the layers that see the bands, according to timm."""
    first = (config.first_conv if config is not None else None) or ()
    return (first,) if isinstance(first, str) else tuple(first)


def widen(weight: Tensor, own: Tensor, bands: int) -> Tensor:
    """Weights of a first convolution for three bands made to fit another number of them.

    By repetition, scaled so that activations keep their size, as timm does. Others are left alone.

    Args:
        weight: ``(O, 3, H, W)``.
        own: the model's, ``(O, bands, H, W)``.
        bands: number of input channels.
    """
    if weight.ndim == 4 and weight.shape[1] == 3 and own.shape[1] != 3:
        return adapt_input_conv(bands, weight)
    return weight
