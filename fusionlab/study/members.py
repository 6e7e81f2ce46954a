"""Members of a study: their configurations, read as ``fusionlab fit`` reads them.

All are read before anything is trained, so that a mistake in the last one is found at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from fusionlab.cli import FusionlabCLI
from fusionlab.errors import InputError
from fusionlab.study.agreement import LOADING, TRAINER_DISPLAY
from fusionlab.study.ladder import RUNGS, experts_of, reduced, rungs
from fusionlab.study.placeholders import (
    RUNS,
    STUDY,
    filled,
    has_placeholders,
    restored,
    tokenised,
    used_members,
)
from fusionlab.study.study_file import Overlay, Study, or_known


@dataclass(frozen=True)
class Member:
    """What a study trains with every seed.

    Attributes:
        name: in the study.
        config: whole, with ``{runs}`` and ``{study}`` where the study file has them.
        needs: members whose runs it uses.
        rung: experts that it keeps of the fusion of the study's ladder; empty if it is no rung.
    """

    name: str
    config: dict[str, Any]
    needs: tuple[str, ...]
    rung: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemberRun:
    """A member trained with one seed.

    Attributes:
        member: its name.
        seed: of the training.
        folder: that it leaves its files in.
        config: whole, as it is run.
        needs: names of members whose runs of the same seed it uses.
        digest: of all settings that change what is learned, those of `needs` included.
        settings: the same settings in the open.
    """

    member: str
    seed: int
    folder: Path
    config: dict[str, Any]
    needs: tuple[str, ...]
    digest: str
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """Member and seed, as reports name a run."""
        return f"{self.member}/{self.seed}"


class _Configurations(FusionlabCLI):
    """The command line of ``fit``, which reads configurations and builds nothing."""

    def __init__(self) -> None:
        super().__init__([])

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        if args:
            super().parse_arguments(parser, args)
        else:
            self.config = Namespace(subcommand="fit")  # type: ignore[no-untyped-call]

    def read(self, overlays: Iterable[str]) -> dict[str, Any]:
        """The whole configuration that files and contents of files come to."""
        args = ["fit", *(arg for overlay in overlays for arg in ("--config", overlay))]
        self.parse_arguments(self.parser, args)
        text = self._parser("fit").dump(self.config["fit"], skip_unset=False)
        config: dict[str, Any] = yaml.safe_load(text)
        return config

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def read_members(study: Study) -> dict[str, Member]:
    """Reads the configurations of all members.

    Returns:
        By name: the rungs of a ladder from few modalities to many, then the others in the order of
        the study file.

    Raises:
        InputError: names the member, and the file where there is one, of the first mistake; of
            members that use runs of an unknown one, of themselves, or of each other in a circle.
    """
    reader = _Configurations()
    configs = {
        name: _whole(reader, overlays, study, where=f"{study.file}: members.{name}")
        for name, overlays in study.members.items()
    }
    kept: dict[str, tuple[str, ...]] = {}
    if study.ladder is not None:
        kept = _add_ladder(configs, reader, study)
    members = {}
    for name, config in configs.items():
        where = f"{study.file}: members.{name}"
        _require_trainable(config, where=where)
        config |= {"output": f"{RUNS}/{name}", "overwrite": False, "ckpt_path": None}
        config["checkpoint"]["dirpath"] = config["output"]
        config["trainer"]["default_root_dir"] = config["output"]
        needs = _needs(name, config, list(configs), where=where)
        members[name] = Member(name, config, needs, kept.get(name, ()))
    _require_an_order(members, study)
    return members


def chosen_members(members: Mapping[str, Member], names: Sequence[str] | None) -> dict[str, Member]:
    """Members by name, with those whose runs they use.

    Args:
        members: all there are.
        names: of those wanted; all if None.

    Raises:
        InputError: for a name that is no member's.
    """
    wanted = set()
    queue = list(members if names is None else names)
    while queue:
        name = queue.pop()
        if name not in members:
            raise InputError(f"--members: no member {name!r}.{or_known(name, members)}")
        if name not in wanted:
            wanted.add(name)
            queue += members[name].needs
    return {name: member for name, member in members.items() if name in wanted}


def runs_of(members: Mapping[str, Member], study: Study, seeds: Sequence[int]) -> list[MemberRun]:
    """The runs of members with each seed, seed by seed, every one after those that it needs.

    Args:
        members: as `chosen_members` gives them.
        study: of the members.
        seeds: for every member.
    """
    planned = []
    for seed in seeds:
        folder = study.output / f"seed_{seed}"
        digests: dict[str, str] = {}
        for name in _ordered(members):
            member = members[name]
            settings = _learned(member.config) | {"seed_everything": seed}
            needed = {need: digests[need] for need in member.needs}
            text = json.dumps([settings, needed], sort_keys=True, default=str)
            digests[name] = hashlib.sha256(text.encode()).hexdigest()
            config = filled(member.config, runs=folder, study=study.output)
            planned.append(
                MemberRun(
                    member=name,
                    seed=seed,
                    folder=folder / name,
                    config=config | {"seed_everything": seed},
                    needs=member.needs,
                    digest=digests[name],
                    settings=settings,
                )
            )
    return planned


def _whole(
    reader: _Configurations, overlays: Sequence[Overlay], study: Study, *, where: str
) -> dict[str, Any]:
    given = [*overlays, *([study.overlay] if study.overlay else [])]
    config: dict[str, Any] = restored(_read(reader, given, where=where))
    return config


def _add_ladder(
    configs: dict[str, dict[str, Any]], reader: _Configurations, study: Study
) -> dict[str, tuple[str, ...]]:
    """Adds the members that are derived from a fusion to those that the study names.

    Returns:
        For every member that is a rung, of either kind, the experts that it keeps.
    """
    assert study.ladder is not None
    where = f"{study.file}: ladder"
    fusion = _whole(reader, study.ladder.fusion, study, where=f"{where}.fusion")
    experts = experts_of(fusion, where=f"{where}.fusion")
    for name, kept in rungs(experts, study.ladder.rungs).items():
        if name not in configs:
            configs[name] = reduced(fusion, kept, where=f"{where}: {name}")
    order = {name: kept for name, kept in rungs(experts, RUNGS).items() if name in configs}
    others = {name: config for name, config in configs.items() if name not in order}
    found = {name: configs[name] for name in order}
    configs.clear()
    configs.update(found | others)
    return order


def _read(reader: _Configurations, overlays: Sequence[Overlay], *, where: str) -> dict[str, Any]:
    given = [_as_argument(overlay) for overlay in overlays]
    try:
        return reader.read(given)
    except InputError as error:
        mistake = error
    # Not while it is handled: what goes wrong then is taken for its consequence.
    named = overlays[_culprit(reader, given, str(mistake))]
    unnamed = isinstance(named, Path) and named.name not in str(mistake)
    place = f"{named.name}: " if isinstance(named, Path) and unnamed else ""
    raise InputError(f"{where}: {place}{mistake}") from mistake


def _as_argument(overlay: Overlay) -> str:
    """What ``--config`` is given: the file, or its content if there are placeholders to keep."""
    if isinstance(overlay, Path):
        try:
            content = yaml.safe_load(overlay.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            return str(overlay)  # reported where it is parsed
        if not has_placeholders(content):
            return str(overlay)
        overlay = content
    return yaml.safe_dump(tokenised(overlay), sort_keys=False)


def _culprit(reader: _Configurations, given: Sequence[str], message: str) -> int:
    """Which overlay a mistake is in: the one that brings the same message with those before it."""
    for end in range(1, len(given)):
        try:
            reader.read(given[:end])
        except InputError as error:
            if str(error) == message:
                return end - 1
    return len(given) - 1


def _require_trainable(config: Mapping[str, Any], *, where: str) -> None:
    trainer = config["trainer"]
    if config.get("ckpt_path"):
        raise InputError(
            f"{where}: ckpt_path: {config['ckpt_path']} goes on with another run, but members of a "
            "study are trained from their start. Leave it out."
        )
    if trainer.get("fast_dev_run") or trainer.get("enable_checkpointing") is False:
        key = "fast_dev_run" if trainer.get("fast_dev_run") else "enable_checkpointing: false"
        raise InputError(
            f"{where}: trainer.{key} leaves no checkpoint to test. Leave it out; for a short run "
            "say trainer.limit_train_batches and max_epochs."
        )


def _needs(
    name: str, config: Mapping[str, Any], members: Sequence[str], *, where: str
) -> tuple[str, ...]:
    parts = {key: part for key, part in config.items() if key not in ("output", "checkpoint")}
    trainer = {k: v for k, v in parts["trainer"].items() if k != "default_root_dir"}
    try:
        used = used_members({**parts, "trainer": trainer})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    for other, key in used.items():
        if other not in members:
            raise InputError(
                f"{where}: {key} uses {RUNS}/{other}, but there is no member {other!r}."
                f"{or_known(other, members)} What members share lies in {STUDY}/…"
            )
        if other == name:
            raise InputError(f"{where}: {key} uses the member's own run, {RUNS}/{other}.")
    return tuple(member for member in members if member in used)


def _require_an_order(members: Mapping[str, Member], study: Study) -> None:
    ordered = _ordered(members)
    circle = [name for name in members if name not in ordered]
    if circle:
        # Of these every one needs another; following one comes back to where it was.
        chain = [circle[0]]
        while len(set(chain)) == len(chain):
            chain.append(next(need for need in members[chain[-1]].needs if need in circle))
        loop = chain[chain.index(chain[-1]) :]
        raise InputError(
            f"{study.file}: members need each other's runs: {' needs '.join(loop)}. One of them "
            "must be trained without the others."
        )


def _ordered(members: Mapping[str, Member]) -> list[str]:
    """Names in the order of the study, every one after those it needs; without circles."""
    ordered: list[str] = []
    while True:
        ready = [
            name
            for name, member in members.items()
            if name not in ordered and set(member.needs) <= set(ordered)
        ]
        if not ready:
            return ordered
        ordered.append(ready[0])


def _learned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that change what is learned or scored."""
    kept = {
        name: part
        for name, part in config.items()
        if name not in ("output", "overwrite", "ckpt_path", "writer", "weights_only")
    }
    kept["trainer"] = {k: v for k, v in config["trainer"].items() if k not in TRAINER_DISPLAY}
    kept["checkpoint"] = {k: v for k, v in config["checkpoint"].items() if k != "dirpath"}
    data = dict(config["data"])
    arguments = data.get("init_args") or {}
    data["init_args"] = {name: v for name, v in arguments.items() if name not in LOADING}
    return {**kept, "data": data}
