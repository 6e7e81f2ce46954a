"""A tiny study on the tiny FLAIR #2: two experts, and a fusion of their decisions."""

from pathlib import Path

import yaml
from cli_runs import QUICK, config, frozen, pixel_expert

BOTH = ["aerial", "sentinel2"]


def fusion(name: str = "ClassWeighted") -> dict:
    """A late fusion of the study's own experts."""
    experts = {m: frozen(Path("{runs}", m, "best.ckpt")) for m in BOTH}
    return {
        "class_path": "LateFusion",
        "init_args": {"experts": experts, "fusion": {"class_path": name}},
    }


def write_study(folder: Path, root: Path, **changes) -> Path:
    """Writes ``study.yaml`` and the configurations of its members; returns the study file.

    Args:
        folder: for all of it.
        root: of the data.
        changes: settings of the study file; None leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in BOTH:
        config(folder / f"{name}.yaml", root, pixel_expert(), modalities=[name])
    config(folder / "late.yaml", root, fusion(), modalities=BOTH)
    content = {
        "output": str(folder / "out"),
        "seeds": [0],
        "members": {"aerial": ["aerial.yaml"], "sentinel2": ["sentinel2.yaml"],
                    "late": ["late.yaml"]},
        "overlay": {"trainer": {**QUICK, "max_epochs": 2}},
        **changes,
    }  # fmt: skip
    content = {name: value for name, value in content.items() if value is not None}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file
