"""The schema: what models may rely on of a data set, handed from the data module to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

from fusionlab.errors import InputError, did_you_mean
from fusionlab.types.modality import Modality

Target = Literal["segmentation", "multiclass", "multilabel", "regression", "scalar_regression"]
"""What a target says: a class per pixel, one class per sample, or any number of them; or values of
variables, per pixel or per sample."""

PIXELWISE: tuple[Target, ...] = ("segmentation", "regression")
"""Targets that say something about every pixel."""

REGRESSION: tuple[Target, ...] = ("regression", "scalar_regression")
"""Targets that are values of variables."""


# Not a dataclass to the outside: jsonargparse would expand a dataclass into separate arguments,
# but a schema is always handed over whole, from the data module to the task.
class Schema:
    """What a data set delivers, typed once and handed from the data module to the model.

    Args:
        modalities: by name.
        classes: class names in index order; empty when the data carry no classes (new rasters).
        colors: ``#rrggbb`` per class, for maps and charts; empty for a default palette.
        gsd: ground sampling distance of a target that is a map, metres.
        scores: for each published convention of the mean IoU, the classes it averages over, e.g.
            ``{"flair2": (the first twelve)}``. The plain mean over all classes is always given.
        target: what the target of a sample says: ``segmentation`` is a class per pixel,
            ``multiclass`` one class per sample, ``multilabel`` any number of classes per sample;
            ``regression`` is values per pixel, ``scalar_regression`` values per sample.
        variables: names of what is regressed, e.g. ``("canopy_height",)``, in place of classes.
        units: of the variables, e.g. ``("m",)``; empty where they are unknown or have none.

    Raises:
        InputError: for names that are not all different, lists that do not fit each other, or
            classes where the target is values, or variables where it is classes.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        classes: Sequence[str] = (),
        *,
        colors: Sequence[str] = (),
        gsd: float | None = None,
        scores: Mapping[str, Sequence[str]] | None = None,
        target: Target = "segmentation",
        variables: Sequence[str] = (),
        units: Sequence[str] = (),
    ) -> None:
        if target not in get_args(Target):
            raise InputError(f"A target is one of {list(get_args(Target))}, got {target!r}.")
        self.target: Target = target
        self.gsd = gsd
        self.modalities = dict(modalities)
        self.classes = tuple(classes)
        self.colors = tuple(colors)
        self.scores = {name: tuple(over) for name, over in (scores or {}).items()}
        self.variables = tuple(variables)
        self.units = tuple(units) or ("",) * len(self.variables)
        self._check_names()
        if self.colors and len(self.colors) != len(self.classes):
            raise InputError(
                f"{len(self.classes)} classes but {len(self.colors)} colours: give one per class."
            )
        for name, over in self.scores.items():
            self.class_indices(over, where=f"the score {name!r}")

    def _check_names(self) -> None:
        for kind, names in (("Class", self.classes), ("Variable", self.variables)):
            if len(set(names)) != len(names):
                raise InputError(f"{kind} names must differ, got {list(names)}.")
        if len(self.units) != len(self.variables):
            raise InputError(
                f"{len(self.variables)} variables but {len(self.units)} units: give one per "
                "variable, '' for one without."
            )
        wrong, right = ("classes", "variables") if self.regresses else ("variables", "classes")
        if getattr(self, wrong):
            raise InputError(
                f"The target is {self.target!r}, but the data name the {wrong} "
                f"{list(getattr(self, wrong))}: name {right} instead, or choose another target."
            )

    def __repr__(self) -> str:
        return f"Schema(modalities={self.modalities!r}, {self.kind}={self.outputs!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable dicts inside

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def regresses(self) -> bool:
        """Whether the target is values of variables, not classes."""
        return self.target in REGRESSION

    @property
    def pixelwise(self) -> bool:
        """Whether the target says something about every pixel, not about a whole sample."""
        return self.target in PIXELWISE

    @property
    def kind(self) -> Literal["classes", "variables"]:
        """What `outputs` are names of."""
        return "variables" if self.regresses else "classes"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the channels of a model's answer: classes, or variables."""
        return self.variables if self.regresses else self.classes

    def modality(self, name: str | None, *, where: str) -> tuple[str, Modality]:
        """A modality by name, or the only one.

        Raises:
            InputError: if the name is unknown, or is None and there are several.
        """
        if name is None:
            if len(self.modalities) != 1:
                raise InputError(
                    f"{where} takes one modality, but the data deliver "
                    f"{list(self.modalities)}: name one with `modality:`, or let the data module "
                    "deliver only that one."
                )
            return next(iter(self.modalities.items()))
        if name not in self.modalities:
            raise InputError(
                f"The expert of the modality {name!r} ({where}) finds only {list(self.modalities)} "
                f"in the data. Keep {name!r} among the data's modalities, or name one of those "
                "there with `modality:` if it is to look at that one. A trained model answers "
                f'without {name!r} if the data keep it and say --data.missing "[{name}]".'
            )
        return name, self.modalities[name]

    def require_same_units(self, data: Schema, *, where: str) -> None:
        """Refuses data whose variables have other units than those a model was trained on.

        Args:
            data: what they deliver; a unit that is not known fits any.
            where: what was trained on this schema, for the error message.

        Raises:
            InputError: names the variable and both units.
        """
        trained = dict(zip(self.variables, self.units, strict=True))
        for name, unit in zip(data.variables, data.units, strict=True):
            own = trained.get(name, "")
            if unit and own and unit != own:
                raise InputError(
                    f"{where} was trained on {name!r} in {own!r}, but the data give it in "
                    f"{unit!r}. Have the data converted, and say so in their units."
                )

    def only(self, name: str) -> Schema:
        """The schema with one modality left; unchanged if there is none of that name."""
        if name not in self.modalities:
            return self
        return self._with(modalities={name: self.modalities[name]})

    def with_modalities(self, modalities: Mapping[str, Modality]) -> Schema:
        """The schema of the same targets with other modalities."""
        return self._with(modalities=modalities)

    def without_outputs(self) -> Schema:
        """The schema for a network that answers features, and no classes or values."""
        return self._with(classes=(), colors=(), scores={}, variables=(), units=())

    def _with(self, **changes: Any) -> Schema:  # noqa: ANN401
        arguments = {
            "modalities": self.modalities,
            "classes": self.classes,
            "colors": self.colors,
            "gsd": self.gsd,
            "scores": self.scores,
            "target": self.target,
            "variables": self.variables,
            "units": self.units,
        }
        return Schema(**(arguments | changes))

    def class_indices(self, names: Sequence[str | int], *, where: str) -> list[int]:
        """Indices of classes given by name or index.

        Raises:
            InputError: for a name or an index that does not exist; lists those that do.
        """
        return class_indices(names, self.classes, where=where)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts only, for a checkpoint; without `Modality.others`."""
        modalities = {}
        for name, modality in self.modalities.items():
            values = asdict(modality)
            del values["others"]
            modalities[name] = {
                k: list(v) if isinstance(v, tuple) else v for k, v in values.items()
            }
        return {
            "modalities": modalities,
            "classes": list(self.classes),
            "colors": list(self.colors),
            "gsd": self.gsd,
            "scores": {name: list(over) for name, over in self.scores.items()},
            "target": self.target,
            "variables": list(self.variables),
            "units": list(self.units),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse of `to_dict`."""
        modalities = {name: Modality(**fields) for name, fields in values["modalities"].items()}
        return cls(
            modalities,
            values["classes"],
            colors=values.get("colors", ()),
            gsd=values.get("gsd"),
            scores=values.get("scores", {}),
            target=values.get("target", "segmentation"),
            variables=values.get("variables", ()),
            units=values.get("units", ()),
        )


def class_indices(
    names: Sequence[str | int],
    classes: Sequence[str],
    *,
    where: str,
    kind: Literal["class", "variable"] = "class",
) -> list[int]:
    """Indices of classes, or of variables, given by name or index.

    Args:
        names: class names, or indices as int or as digits (YAML keys may arrive as text).
        classes: all class names in index order.
        where: what is asking, for the error message.
        kind: what the names are of, for the error message.

    Raises:
        InputError: for a name or an index that does not exist; lists those that do.
    """
    indices = []
    for name in names:
        if name in classes:
            indices.append(list(classes).index(str(name)))
        elif str(name).isdigit() and int(name) < len(classes):
            indices.append(int(name))
        else:
            plural = {"class": "classes", "variable": "variables"}[kind]
            raise InputError(
                f"Unknown {kind} {name!r} in {where}."
                f"{did_you_mean(str(name), classes)} The {plural} are {list(classes)}, "
                f"or their indices 0 to {len(classes) - 1}."
            )
    return indices
