"""What scores are called in a report, which way they are better, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

Direction = Literal["max", "min", "zero"]
"""Whether more of a score is better, or less, or what is nearest to zero."""

STAGES = ("test", "val")

_LESS = ("loss", "rmse", "mae", "mse", "error", "perplexity")
_LABELS = {
    "miou": "mIoU",
    "iou": "IoU",
    "f1": "F1",
    "f1_macro": "F1 macro",
    "f1_micro": "F1 micro",
    "f1_weighted": "F1 weighted",
    "ap": "average precision",
    "ap_macro": "AP macro",
    "ap_micro": "AP micro",
    "overall_accuracy": "overall accuracy",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_COUNTS = ("support", "classes_evaluated")
_FRACTIONS = ("iou", "miou", "f1", "ap", "accuracy", "precision", "recall", "share")


def quantity(name: str) -> str:
    """A score's name without its stage: ``test/miou`` is ``miou``."""
    stage, _, rest = name.partition("/")
    return rest if rest and stage in ("train", *STAGES) else name


def direction(name: str) -> Direction:
    """Which way a score is better: less of losses and errors, no bias, more of anything else."""
    words = quantity(name).partition("/")[0].split("_")
    if "bias" in words:
        return "zero"
    return "min" if any(word in _LESS for word in words) else "max"


def is_count(name: str) -> bool:
    """Whether it says how much was scored, not how well."""
    return quantity(name).partition("/")[0] in _COUNTS


def is_share(name: str) -> bool:
    """Whether it is the share of a modality in the decisions, which is not better or worse."""
    return quantity(name).startswith("share/")


def is_fraction(name: str) -> bool:
    """Whether it lies in [0, 1] and is written in percent."""
    return any(word in _FRACTIONS for word in quantity(name).partition("/")[0].split("_"))


def label(name: str) -> str:
    """What a score is called in a table or along an axis, with its unit if that is percent."""
    plain = quantity(name)
    text = _LABELS.get(plain)
    if text is None and plain.startswith("miou_"):  # a published convention
        text = f"mIoU {plain.removeprefix('miou_')}"
    text = text or plain.replace("_", " ")
    return f"{text}, %" if is_fraction(name) else text


def better(name: str, value: float) -> float:
    """A number that is the larger the better the value of a score is."""
    match direction(name):
        case "max":
            return value
        case "min":
            return -value
        case "zero":
            return -abs(value)


def default_score(names: Sequence[str], monitored: str | None) -> str | None:
    """What ranks runs if nobody says so.

    Args:
        names: of the scores that there are, without stage.
        monitored: what the training chose its best epoch by, if known.

    Returns:
        A name without stage: what was monitored, else what the tasks of fusionlab monitor for
        scores of these names, else the loss; None if there is nothing of the kind.
    """
    if monitored is not None and quantity(monitored) in names:
        return quantity(monitored)
    multiclass = "overall_accuracy" in names
    order = ("miou", "f1_macro", "ap_macro") if multiclass else ("miou", "ap_macro", "f1_macro")
    ranking = (*order, "overall_accuracy", "accuracy", "rmse", "mae", "loss")
    return next((name for name in ranking if name in names), None)


def default_ranking(names: Sequence[str], monitored: str | None) -> str | None:
    """What ranks runs in a report if nobody says so: as `default_score`, the loss as a last resort.

    Losses of other tasks or settings cannot be compared, so that the loss ranks only where there
    is no other score, even if the training monitored it.

    Args:
        names: of the scores that there are, without stage.
        monitored: what the training chose its best epoch by, if known.
    """
    others = [name for name in names if name != "loss"]
    return default_score(others or names, monitored)


def rankable(names: Iterable[str], stage: str) -> list[str]:
    """Of scores over all, the names without stage of those that could rank: no counts, no shares.

    Args:
        names: ``<stage>/<score>``.
        stage: of the scores that are wanted.
    """
    plain = [quantity(name) for name in names if name.startswith(f"{stage}/")]
    return [name for name in plain if not is_count(name) and not is_share(name)]


def number(value: float | None, name: str, *, digits: int = 4) -> str:
    """A score as it is written: percent to two decimals, others to some significant digits."""
    if value is None or math.isnan(value):
        return "–"
    if is_fraction(name):
        return f"{100 * value:.2f}"
    return significant(value, f".{digits}g")


def significant(value: float, form: str) -> str:
    """A number in significant digits, and all digits before the point of a large one.

    Args:
        value: to write.
        form: how, such as ``.3g``, ``#.3g`` (with zeros at the end) or ``+.3g`` (with its sign).
    """
    text = format(value, form).removesuffix(".")
    return format(value, f"{'+' * form.startswith('+')},.0f") if "e+" in text else text


def split_per_class(
    scores: Mapping[str, float | None],
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Scores over all, and those of single classes or variables.

    Args:
        scores: ``<stage>/<score>`` over all, ``<stage>/<score>/<class>`` of a class, whose name may
            hold slashes; ``<stage>/share/<modality>`` over all and
            ``<stage>/share/<modality>/<class>`` of a class.

    Returns:
        The first by name, and the second by ``<stage>/<score>`` and class.
    """
    overall: dict[str, float | None] = {}
    per_class: dict[str, dict[str, float | None]] = {}
    for name, value in scores.items():
        parts = name.split("/")
        depth = 3 if len(parts) > 1 and parts[1] == "share" else 2
        if len(parts) <= depth:
            overall[name] = value
        else:
            score, of = "/".join(parts[:depth]), "/".join(parts[depth:])
            per_class.setdefault(score, {})[of] = value
    return overall, per_class
