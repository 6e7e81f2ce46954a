"""The argument parser of the command line: later files change single keys, mistakes are short.

What that means is said in `cli_overlays` and `cli_mistakes`; here is where jsonargparse asks.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, _typehints, get_loader
from jsonargparse._util import import_object
from lightning.pytorch.cli import LightningArgumentParser

from fusionlab.cli_facts import without_facts
from fusionlab.cli_mistakes import Mistake, explained, options
from fusionlab.cli_overlays import overlaid, without_replaced_lists

_discard = _typehints.discard_init_args_on_class_path_change


def discard_what_nobody_chose(
    parser: Any,  # noqa: ANN401
    earlier: Any,  # noqa: ANN401
    given: Any,  # noqa: ANN401
) -> None:
    """Leaves out defaults of a class that another one replaces: AdamW's decay is not Adam's.

    jsonargparse takes over every argument that the other class has too.
    """
    if earlier and earlier.get("init_args") and earlier["class_path"] != given["class_path"]:
        parameters = inspect.signature(import_object(earlier["class_path"])).parameters
        for key, value in list(earlier["init_args"].items()):
            if key in parameters and parameters[key].default == value:
                earlier["init_args"].pop(key)
    _discard(parser, earlier, given)  # type: ignore[no-untyped-call]


_typehints.discard_init_args_on_class_path_change = discard_what_nobody_chose


class Parser(LightningArgumentParser):
    """Merges configurations key by key; raises a `Mistake`, where others print usage and exit.

    Attributes:
        command: the command whose options it parses; empty for the one above all commands.
    """

    command: str = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # Abbreviations would let a misspelt flag pass as another one.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        *rest: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Namespace:
        """Parses; reads a null that jsonargparse hands to a nested parser as Python writes it."""
        if args is not None:
            args = [re.sub(r"^(--[\w.]+)=None$", r"\1=null", arg) for arg in args]
        return super().parse_args(args, *rest, **kwargs)

    def parse_path(self, path: Any, *rest: Any, **kwargs: Any) -> Namespace:  # noqa: ANN401
        """Parses a configuration file.

        Raises:
            Mistake: with the file's name.
        """
        try:
            return super().parse_path(path, *rest, **kwargs)  # type: ignore[no-any-return]
        except Mistake as mistake:
            raise Mistake(mistake.key, mistake.text, file=mistake.file or str(path)) from mistake

    def dump(self, namespace: Namespace, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401
        """The settings of a configuration as text, without what a checkpoint states."""
        if "model" in namespace:
            settings = namespace.clone()
            settings["model"] = without_facts(settings["model"])
            namespace = settings
        return super().dump(namespace, *args, **kwargs)  # type: ignore[no-any-return]

    def _load_config_parser_mode(
        self,
        content: str,
        path: Any = "",  # noqa: ANN401
        ext_vars: dict[str, Any] | None = None,
        prev_cfg: Namespace | None = None,
    ) -> Namespace:
        """As jsonargparse does, after `overlaid` has completed what the content says."""
        try:
            given = get_loader(self.parser_mode)(content)
        except yaml.YAMLError:  # reported by what is called below
            given = None
        if isinstance(given, dict):
            given = self._section(given)
            content = yaml.safe_dump(overlaid(prev_cfg or {}, given), sort_keys=False)
            prev_cfg = without_replaced_lists(prev_cfg, given) if prev_cfg else None
        return super()._load_config_parser_mode(content, path, ext_vars, prev_cfg)

    def _section(self, given: dict[str, Any]) -> dict[str, Any]:
        """What a file with a section per command says of this one; other files as they are."""
        if not isinstance(given.get(self.command), dict):
            return given
        if beside := [name for name in given if name in {n.split(".")[0] for n in options(self)}]:
            raise Mistake(
                "",
                f"`{beside[0]}:` stands beside a section `{self.command}:`. Put it into the "
                "section, or leave the sections out.",
            )
        section: dict[str, Any] = given[self.command]
        return section

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises what is wrong.

        Raises:
            Mistake: always.
        """
        raise explained(self, message, ex) from ex
