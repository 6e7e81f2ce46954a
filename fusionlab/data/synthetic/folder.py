"""Folders that are written whole or not at all, with a record of what they were written from."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionlab.errors import InputError

RECORD = "synthetic.json"
"""The file that says which configuration a folder was written from."""


def write_whole(
    target: Path, record: dict[str, Any], fill: Callable[[Path], None], *, overwrite: bool
) -> bool:
    """Fills a sibling folder and renames it to `target` when it is whole.

    Args:
        target: The folder to create. One that holds the same record is left as it is.
        record: What the folder is written from, JSON-ready; it is written beside the content.
        fill: Writes the content into the folder it is given.
        overwrite: Replace whatever `target` holds.

    Returns:
        Whether anything was written.

    Raises:
        InputError: If `target` is a file, or holds anything else and `overwrite` is False.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; give the name of a folder to create.")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        found = target / RECORD
        held = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else None
        if held == json.loads(json.dumps(record)):
            return False
        what = "a set of another configuration" if held else "files of something else"
        raise InputError(
            f"{target} is not empty: it holds {what}. Give an empty or new folder, or allow "
            "overwriting (overwrite=True, --overwrite) to replace everything in it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fill(partial)
        text = json.dumps(record, indent=1) + "\n"
        (partial / RECORD).write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return True
