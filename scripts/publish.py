"""Puts what scripts measured into documents, between comments that mark the place."""

import shutil
from collections.abc import Mapping
from pathlib import Path


def publish(
    text: str, document: Path, mark: str, *, pictures: Mapping[str, Path] | None = None
) -> None:
    """Replaces what stands between ``<!-- MARK: … -->`` and ``<!-- end of MARK -->``.

    Args:
        text: Markdown.
        document: the file to change.
        mark: the word in the two comments.
        pictures: files to copy into docs/, by their names there.

    Raises:
        ValueError: if the document has no such marks.
    """
    opening, end = f"<!-- {mark}:", f"<!-- end of {mark} -->"
    content = document.read_text()
    if opening not in content or end not in content:
        raise ValueError(f"{document} has no marks {opening} … --> and {end}.")
    before, rest = content.split(opening, 1)
    comment, rest = rest.split("-->", 1)
    after = rest.split(end, 1)[1]
    document.write_text(f"{before}{opening}{comment}-->\n\n{text}\n\n{end}{after}")
    for name, picture in (pictures or {}).items():
        shutil.copy(picture, Path("docs", name))
