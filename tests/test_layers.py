"""Imports point down only: the layers of the package, as its documentation draws them."""

import ast
from pathlib import Path

import pytest

import fusionlab

ROOT = Path(fusionlab.__file__).parent
LAYERS = [
    {"errors"},
    {"types"},
    {"component", "dates", "features", "padding", "norms"},
    {"checkpoints", "registry", "losses", "metrics", "plots"},
    {"backbones", "necks", "decoders", "heads"},
    {"encoder_decoder"},
    {"trial"},
    {"factory"},
    {"data", "experts", "fusion"},
    {"models"},
    {"tasks"},
    {"callbacks"},
    {"cli_facts", "cli_mistakes"},
    {"cli_arguments", "cli_lists", "cli_overlays"},
    {"cli_parser"},
    {"cli"},
    {"study"},
    {"cli_compare"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Parts of the package that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: import absolutely"
            modules = [node.module or ""]
            if node.module == "fusionlab":
                modules = [f"fusionlab.{alias.name}" for alias in node.names]
        else:
            continue
        names |= {m.split(".")[1] for m in modules if m.startswith("fusionlab.")}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = part(path)
    for name in imported(path) - {here}:
        assert RANK[name] < RANK[here], f"{path} imports fusionlab.{name} from a layer not below"


def test_every_part_has_its_layer():
    assert {part(path) for path in FILES} == set(RANK)
