"""Modules that remember how they were built, so that a checkpoint can describe itself.

A checkpoint must be usable alone, on another machine, after the configuration that made it and the
experts' own files are gone. Every network part therefore derives from `Component`, which can
say in plain values which class it is and which arguments it was given; `build` makes it again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self, get_args

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.types import Batch, Output, Schema

_PLAIN = (str, int, float, bool, type(None))


class Component(nn.Module):
    """A module that can describe how it was built.

    Arguments named in `supplied` come from the surroundings (a schema, modality names…); all others
    are configuration, and must be plain values, or parts that end up as an attribute of the same
    name (a factory ``fusion`` whose product is ``self.fusion``).
    """

    supplied: ClassVar[tuple[str, ...]] = ("schema",)
    stripped: bool = False
    """Whether it describes itself for a checkpoint without the weights of `restorable` parts."""
    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401
        """Notes the arguments before `__init__` runs."""
        self = super().__new__(cls)
        self.__dict__["_given"] = (args, kwargs)
        return self

    @property
    def restorable(self) -> tuple[str, ...]:
        """Paths of submodules whose weights never change and can be had again from their source."""
        return ()

    def describe(self) -> dict[str, Any]:
        """Class path and configuration as plain values: ``{class_path, init_args}``.

        Raises:
            TypeError: if an argument is neither plain nor a part kept under its own name.
        """
        cls = type(self)
        signature = inspect.signature(cls.__init__)
        args, kwargs = self._given
        given = dict(signature.bind_partial(self, *args, **kwargs).arguments)
        given.pop(next(iter(signature.parameters)))  # self
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given.update(given.pop(name, {}))
        arguments = {
            name: self._plain(name, value)
            for name, value in given.items()
            if name not in self.supplied
        }
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}

    def _plain(self, name: str, value: Any) -> Any:  # noqa: ANN401
        part = getattr(self, name, None)
        if isinstance(part, Component):
            return part.describe()
        if isinstance(part, nn.ModuleDict):
            parts = {key: m.describe() for key, m in part.items() if isinstance(m, Component)}
            if len(parts) == len(part):
                return parts
        if isinstance(part, nn.ModuleList):
            listed = [module.describe() for module in part if isinstance(module, Component)]
            if len(listed) == len(part):
                return listed
        return _plain(value, where=f"argument {name!r} of {type(self).__name__}")


def _plain(value: Any, *, where: str) -> Any:  # noqa: ANN401
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping | Namespace):
        return {key: _plain(v, where=where) for key, v in dict(value.items()).items()}
    if isinstance(value, list | tuple):
        return [_plain(v, where=where) for v in value]
    raise TypeError(
        f"The {where} is a {type(value).__name__}, which a checkpoint cannot hold. Pass plain "
        "values, or keep the part as an attribute of the same name."
    )


def build(description: Mapping[str, Any], factory_type: Any, *args: Any, where: str) -> Any:  # noqa: ANN401
    """Builds a component from its description.

    Args:
        description: ``{class_path, init_args}`` as `Component.describe` gives it.
        factory_type: ``Callable[[…], Base]``; a class that does not derive from Base is refused,
            so that a checkpoint cannot name an arbitrary callable.
        args: what the surroundings supply.
        where: where the description was found, for the error message.

    Raises:
        InputError: if the class is unknown, of another kind, or does not take these arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=factory_type)
    try:
        factory: Callable[..., Any] = parser.instantiate(
            parser.parse_object({"part": dict(description)})
        ).part
    except ArgumentError as error:
        wanted = get_args(factory_type)[-1].__name__
        raise InputError(
            f"{where} describes a {description.get('class_path')}, which cannot be built as a part "
            f"of the kind {wanted}: it is of another kind, is not installed here, or does not take "
            f"the arguments {list(description.get('init_args', {}))}."
        ) from error
    return factory(*args)


class Backbone(nn.Module):
    """A deep network inside a component, which can say how deep each of its parameters lies."""

    def parameter_layers(self) -> dict[str, int]:
        """Per parameter name, the number of its layer, 0 next to the input."""
        raise NotImplementedError(f"{type(self).__name__} does not define parameter_layers().")


class Explanation(NamedTuple):
    """An answer and its reasons.

    Attributes:
        output: the answer.
        shares: per modality, its share in the decision for the predicted class, or in regressed
            values (the mean over variables), ``(B, H, W)`` or ``(B,)`` in [0, 1]; they sum to 1.
    """

    output: Output
    shares: dict[str, Tensor]


class Model(Component):
    """Anything a task can train or apply: an expert, or a composition of experts.

    Attributes:
        reference: the modality on whose grid it answers.
        gsd: ground sampling distance of its logits, metres.
    """

    reference: str
    gsd: float

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities it looks at."""
        raise NotImplementedError(f"{type(self).__name__} does not define modalities.")

    def forward(self, batch: Batch) -> Output:
        """Answers a batch; see `Output`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward().")

    @property
    def contributors(self) -> tuple[str, ...]:
        """Names of the parts among which a decision is shared."""
        return ()

    def explain(self, batch: Batch) -> Explanation:
        """Answers a batch and says what each modality contributes to the decision."""
        raise NotImplementedError(f"{type(self).__name__} does not define explain().")

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding.

        Raises:
            InputError: if the data lack something that the model looks at.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define rebind().")
