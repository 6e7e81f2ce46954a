"""Reading weights that others wrote: never with pickled code, never silently incomplete.

Understood are Lightning checkpoints (ours describe their model), bare state dicts, state dicts
nested under a usual key, and safetensors files, whatever they are called.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fusionlab.errors import InputError

NESTED_KEYS = ("model_state_dict", "state_dict", "model", "net", "weights")
"""Where training scripts put the state dict inside a checkpoint; the first that is there counts."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers (DataParallel, torch.compile, a task) put before every parameter's name."""

_ZIP = b"PK"
"""How files written by `torch.save` begin."""
_LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header that its readers accept."""

STRIPPED = "stripped"
"""Key of a checkpoint under which it says which weights were left out of it."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        state_dict: tensors by parameter name, wrapper prefixes removed.
        hyper_parameters: what a Lightning checkpoint says of its task; empty for other files.
        stripped: prefixes of the weights that were left out, see `strip_weights`.
        beside_model: what a task of ours holds beside its model, such as parameters of its loss.
    """

    path: Path
    state_dict: dict[str, Tensor]
    hyper_parameters: dict[str, Any]
    stripped: dict[str, str] = field(default_factory=dict)
    beside_model: dict[str, Tensor] = field(default_factory=dict)

    @property
    def describes_model(self) -> bool:
        """Whether the model can be built from this file alone."""
        return "class_path" in (self.hyper_parameters.get("model") or {})


def read_file(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint file as it is, without running code from it.

    Raises:
        InputError: if the file is missing, is no checkpoint, or holds pickled code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"Checkpoint {path} does not exist. Train that model first (fusionlab fit), or correct "
            "the path. If you restore a fused model with --ckpt_path, its checkpoint mostly holds "
            "the experts: leave the model section out. If it was trained with `strip_frozen`, say "
            "where their weights are now, e.g. --model.model.experts.NAME.checkpoint FILE (or "
            ".pretrained FILE)."
        )
    try:
        if _is_safetensors(path):
            return dict(load_file(path))
        with path.open("rb") as file:  # by its name torch would judge what it is
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"Checkpoint {path} holds more than tensors and plain values, so reading it could run "
            f"code; it was not read. ({reason}) Ask its author for a state dict or a safetensors "
            "file, or convert it where you trust it: "
            "torch.save(model.state_dict(), 'weights.pt')."
        ) from error
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a readable checkpoint: as a safetensors file it is damaged, or was not "
            f"copied whole ({error}). Copy or download it again."
        ) from error
    except Exception as error:  # a file that is something else makes the reader fail in any way
        raise InputError(
            f"{path} is not a readable checkpoint ({error}). Expected a Lightning checkpoint, a "
            "state dict written by torch.save, or a .safetensors file."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"Checkpoint {path} holds a {type(content).__name__}. Expected a state dict, or a dict "
            f"with one under any of {list(NESTED_KEYS)}."
        )
    return dict(content)


def _is_safetensors(path: Path) -> bool:
    """Whether a file is one by its content, whatever it is called, or at least by its name."""
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(_ZIP):
        return False
    length = int.from_bytes(head[:8], "little")  # of the header, which is JSON
    return path.suffix == ".safetensors" or (head[8:] == b"{" and length <= _LONGEST_HEADER)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads weights and, where there is one, the description of the model.

    Raises:
        InputError: as `read_file`, or if no state dict is found.
    """
    content = read_file(path)
    state_dict = find_state_dict(content, where=str(path))
    hyper_parameters = dict(content.get("hyper_parameters", {}))
    beside = {}
    if "model" in hyper_parameters:  # a task of ours: its loss and metrics may have buffers too
        beside = {key: v for key, v in state_dict.items() if not key.startswith("model.")}
        state_dict = {key: v for key, v in state_dict.items() if key.startswith("model.")}
    stripped = dict(content.get(STRIPPED) or {})
    if stripped:  # one of ours, whose names all begin with the task's attribute
        state_dict = {key.removeprefix("model."): value for key, value in state_dict.items()}
        stripped = {key.removeprefix("model."): value for key, value in stripped.items()}
        return Checkpoint(Path(path), state_dict, hyper_parameters, stripped, beside)
    return Checkpoint(Path(path), strip_prefixes(state_dict), hyper_parameters, beside_model=beside)


def part_of(source: Checkpoint, part: str | None) -> Checkpoint:
    """What a checkpoint holds of one of its experts; of a checkpoint with one expert, all.

    Args:
        source: the checkpoint.
        part: name of the expert; None where there is just one.

    Raises:
        InputError: if it holds several and none of them is named, or none of that name, or if it
            does not say of which.
    """
    described = source.hyper_parameters.get("model") or {}
    arguments = described.get("init_args") or {}
    experts = arguments.get("experts")
    kind = str(described.get("class_path")).rpartition(".")[-1]
    if not isinstance(experts, Mapping) or not experts:
        if part is None:
            return source
        holds = f"one model, a {kind}" if source.describes_model else "weights of one model"
        raise InputError(
            f"`part: {part}` names one of several experts, but {source.path} holds {holds}. Leave "
            "`part:` out."
        )
    if part not in experts:
        said = "none is named" if part is None else f"{part!r} is none of them"
        raise InputError(
            f"{source.path} holds a {kind} of the experts {list(experts)}, and {said}: say which "
            f"is meant, e.g. `part: {next(iter(experts))}`."
        )
    prefix = f"experts.{part}."

    def own(values: Mapping[str, Any]) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}

    hyper_parameters = {**source.hyper_parameters, "model": dict(experts[part])}
    if (trained_on := hyper_parameters.get("trained_on")) and part in trained_on["modalities"]:
        only = {part: trained_on["modalities"][part]}
        hyper_parameters["trained_on"] = {**trained_on, "modalities": only}
    return Checkpoint(source.path, own(source.state_dict), hyper_parameters, own(source.stripped))


def checked_sha256(path: str | Path, expected: str | None) -> str:
    """The SHA-256 of a checkpoint file.

    Args:
        path: the file.
        expected: what it must be, if that is known.

    Raises:
        InputError: if it is another.
    """
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected not in (None, found):
        raise InputError(
            f"{path} is not the file that this model was trained with: its SHA-256 is {found}, "
            f"expected {expected}. Put the same file there."
        )
    return found


def find_state_dict(content: Mapping[str, Any], *, where: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint: the dict itself, or what lies under a usual key.

    Raises:
        InputError: if there is none; says which keys are there.
    """
    for key in NESTED_KEYS:
        if isinstance(content.get(key), Mapping):
            return find_state_dict(content[key], where=f"{where}[{key!r}]")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    keys = list(content)[:10]
    raise InputError(
        f"No state dict found in {where}: its keys are {keys}. Expected parameter names with "
        f"tensors, or a dict of them under any of {list(NESTED_KEYS)}."
    )


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes wrapper prefixes, each only if every key has it."""
    state_dict = dict(state_dict)
    while state_dict:
        prefix = next((p for p in PREFIXES if all(k.startswith(p) for k in state_dict)), None)
        if prefix is None:
            break
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return state_dict


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and values."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(state_dict.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def strip_weights(state_dict: dict[str, Tensor], fingerprints: Mapping[str, str]) -> None:
    """Removes weights that can be had from elsewhere again (their licence or size may ask for it).

    Args:
        state_dict: loses every tensor whose name begins with one of the prefixes.
        fingerprints: by prefix, of the weights that are left out; to be kept in the checkpoint.
    """
    for name in [name for name in state_dict if name.startswith(tuple(fingerprints))]:
        del state_dict[name]


def fill_stripped(
    state_dict: Mapping[str, Tensor],
    fingerprints: Mapping[str, str],
    module: nn.Module,
    *,
    where: str,
) -> dict[str, Tensor]:
    """Weights of a checkpoint with those that were left out taken from the module itself.

    Args:
        state_dict: what the checkpoint holds.
        fingerprints: what it says of what was left out.
        module: built from the checkpoint's description, which made it get those weights again.
        where: the file, for messages.

    Raises:
        InputError: if what the module got is not what had been left out.
    """
    filled = dict(state_dict)
    own = module.state_dict()
    for prefix, expected in fingerprints.items():
        found = {name: value for name, value in own.items() if name.startswith(prefix)}
        if fingerprint({n.removeprefix(prefix): v for n, v in found.items()}) != expected:
            raise InputError(
                f"The weights of {prefix.rstrip('.')} were left out of {where}, and those found "
                "for it now are others. Give the same pretrained weights or expert file as in "
                "training, or train with `strip_frozen: false` to keep them in the checkpoint."
            )
        filled |= found
    return filled


def load_weights(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    where: str,
    strict: bool = True,
) -> None:
    """Copies weights into a module, and refuses to do so by half.

    Args:
        module: receives the weights.
        state_dict: tensors by name.
        where: the file they come from, for the messages.
        strict: whether every parameter and every tensor must find its partner.

    Raises:
        InputError: as `check_weights`.
    """
    matching = check_weights(module, state_dict, where=where, strict=strict)
    module.load_state_dict({key: state_dict[key] for key in matching}, strict=False)


def check_weights(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    where: str,
    strict: bool = True,
) -> set[str]:
    """Whether weights fit a module, without loading them.

    Args:
        module: would receive the weights.
        state_dict: tensors by name.
        where: the file they come from, for the messages.
        strict: whether every parameter and every tensor must find its partner.

    Returns:
        The names that both have.

    Raises:
        InputError: if shapes differ, if nothing matches, or (strict) if keys are missing or left
            over; lists them.
    """
    own = module.state_dict()
    matching = own.keys() & state_dict.keys()
    wrong_shape = [
        f"{key}: file {tuple(state_dict[key].shape)}, model {tuple(own[key].shape)}"
        for key in sorted(matching)
        if state_dict[key].shape != own[key].shape
    ]
    missing = sorted(own.keys() - matching)
    unexpected = sorted(state_dict.keys() - matching)
    name = type(module).__name__
    advice = (
        "Is it a checkpoint of another architecture, or were its options (bands, classes, widths) "
        "others?"
    )
    if wrong_shape:
        raise InputError(
            f"The weights in {where} do not fit {name}: {_some(wrong_shape)}. {advice}"
        )
    if not matching:
        raise InputError(
            f"Not one of the {len(state_dict)} tensors in {where} belongs to {name}. The file has "
            f"{_some(unexpected)}; the model expects {_some(missing)}. {advice}"
        )
    if missing or unexpected:
        counts = (
            f"{len(matching)} tensors match, {len(missing)} of the model's are missing "
            f"({_some(missing)}), {len(unexpected)} of the file's are left over "
            f"({_some(unexpected)})"
        )
        if strict:
            raise InputError(
                f"The weights in {where} do not fit {name} exactly: {counts}. {advice} "
                "To load what matches all the same, say `strict: false`."
            )
        warnings.warn(f"Loaded {where} into {name} in part: {counts}.", stacklevel=2)
    return matching


def _some(items: list[str], limit: int = 6) -> str:
    if not items:
        return "none"
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
