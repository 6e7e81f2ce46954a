"""Experts that were trained before: loaded from a checkpoint, trainable or frozen."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from fusionlab.checkpoints import (
    Checkpoint,
    checked_sha256,
    fill_stripped,
    load_weights,
    part_of,
    read_checkpoint,
)
from fusionlab.component import build
from fusionlab.encoder_decoder import Stage
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert, ExpertFactory, InputContract
from fusionlab.experts.encoder_decoder import EncoderDecoder
from fusionlab.experts.fingerprint import WeightsFingerprint
from fusionlab.types import Output, Raw, Schema, Tokens


class PretrainedExpert(Expert):
    """An expert with the weights of an earlier training; goes on training with the rest.

    A checkpoint written by ``fusionlab fit`` says what the expert is. For weights from elsewhere (a
    state dict, a safetensors file) name the architecture as `expert`.

    Of a checkpoint with several experts (contrastive, or fused) name the one that is meant as
    `part`. One that was trained without classes, as those of contrastive models are, gets a new
    head where the data have some, for that to be trained.

    Args:
        schema: what the data deliver.
        checkpoint: file with the weights: a Lightning checkpoint, a state dict bare or nested under
            a usual key, or safetensors.
        part: which expert of a checkpoint with several.
        expert: the architecture, where the file does not say it.
        trained_on: schema of the data it was trained on; filled in when a fused checkpoint is
            restored, which holds the weights itself.
        sha256: of the checkpoint file the weights came from; filled in as well, for provenance.
        strict: whether every weight must match.
        stage: for an `EncoderDecoder` in `FeatureFusion`, behind which part its features are taken
            (``backbone``, ``necks``, ``decoder``), if not where it was trained to say.
        stage_index: which of several features there.

    Raises:
        InputError: if neither checkpoint nor expert is given, the file cannot be used or holds
            several experts of which none is named, its weights do not fit, or its classes or
            variables, modality or bands differ from the data's.
    """

    order: Tensor | None

    def __init__(
        self,
        schema: Schema,
        *,
        checkpoint: str | None = None,
        part: str | None = None,
        expert: ExpertFactory | None = None,
        trained_on: dict[str, Any] | None = None,
        sha256: str | None = None,
        strict: bool = True,
        stage: Stage | None = None,
        stage_index: int = -1,
    ) -> None:
        super(Expert, self).__init__()
        self.sha256 = sha256
        self.checkpoint = checkpoint
        if expert is not None and (trained_on or checkpoint is None):
            # A fused checkpoint is being restored: it holds the weights itself, and what the user's
            # configuration says of the file they came from, no longer needed, does not matter.
            self.expert = expert(Schema.from_dict(trained_on) if trained_on else schema)
            if not trained_on and not self.expert.trained:
                raise InputError(
                    f"{type(self).__name__} has an expert with random weights. Give its trained "
                    "weights with `checkpoint:`, or name an expert that brings all of them, such "
                    "as BifoldExpert, or TimmExpert with `pretrained: true` in FeatureFusion."
                )
        elif checkpoint is None:
            raise InputError(
                f"{type(self).__name__} needs `checkpoint:` (a file with trained weights)."
            )
        else:
            source = part_of(read_checkpoint(checkpoint), part)
            self.sha256 = checked_sha256(checkpoint, sha256)
            self.expert = _build_expert(source, expert, schema)
            weights = fill_stripped(
                source.state_dict, source.stripped, self.expert, where=checkpoint
            )
            load_weights(self.expert, weights, where=checkpoint, strict=strict)
            if schema.outputs and not self.expert.names:
                self.expert = self._with_head(source, schema, where=checkpoint)
        if stage is not None:
            if not isinstance(self.expert, EncoderDecoder):
                raise InputError(
                    f"`stage: {stage}` chooses features of an EncoderDecoder, but the expert is a "
                    f"{type(self.expert).__name__}. Leave it out."
                )
            self.expert.choose_stage(stage, stage_index)
        self.trained_on = self.expert.schema.to_dict()
        self.modality = self.reference = self.expert.modality
        self.names = schema.outputs or self.expert.names
        self.classes = schema.classes or self.expert.classes
        if not schema.outputs:
            self.expert.drop_head()
        if schema.outputs and self.expert.schema.target != schema.target:
            raise InputError(
                f"{checkpoint or 'The expert'} was trained on a target of the kind "
                f"{self.expert.schema.target!r}, but that of the data is {schema.target!r}. Train "
                "an expert on such data."
            )
        where = checkpoint or "The expert"
        order = _order(self.expert.names, self.names, kind=schema.kind, where=where)
        self.expert.schema.require_same_units(schema, where=where)
        # On the device, where a list would have to go every time.
        index = None if order is None else torch.tensor(order)
        self.register_buffer("order", index, persistent=False)
        self.rebind(schema)

    def _with_head(self, source: Checkpoint, schema: Schema, *, where: str) -> Expert:
        """The expert, which was trained without classes, with a new head for those of the data."""
        own = self.expert.schema
        advice = "Use it in FeatureFusion, which has a head of its own."
        if isinstance(self.expert, PretrainedExpert):
            raise InputError(
                f"{where} was trained without {schema.kind}, and holds a "
                f"{type(self.expert).__name__}, which decides as it did before. {advice}"
            )
        asked = schema.with_modalities(own.modalities)
        built = _build_described(source, asked)
        weights = self.expert.state_dict()
        new = built.state_dict().keys() - weights.keys()
        if weights.keys() - built.state_dict().keys() or not new:
            raise InputError(
                f"{where} was trained without {schema.kind}, and its {type(built).__name__} cannot "
                f"be given a head for {len(schema.outputs)} of them. {advice}"
            )
        built.load_state_dict(weights, strict=False)
        return built

    def rebind(self, schema: Schema) -> None:
        """See `Expert.rebind`."""
        self.expert.rebind(schema)
        self.schema = self.expert.schema
        self.gsd = self.expert.gsd

    @property
    def inputs(self) -> InputContract:  # type: ignore[override]
        """The input contract of the expert inside."""
        return self.expert.inputs

    @property
    def modalities(self) -> tuple[str, ...]:
        """As those of the expert inside."""
        return self.expert.modalities

    def logits(self, values: Raw) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of the expert, in the order of the data."""
        answer = self.answer(values)
        return (answer.logits, answer.auxiliary[0].logits) if answer.auxiliary else answer.logits

    def answer(self, values: Raw) -> Output:
        """All that the expert inside answers, classes or variables in the order of the data."""
        answer = self.expert.answer(values)
        return answer._replace(
            logits=self._ordered(answer.logits),
            auxiliary=tuple(
                head._replace(logits=self._ordered(head.logits)) for head in answer.auxiliary
            ),
        )

    def _ordered(self, logits: Tensor) -> Tensor:
        return logits if self.order is None else logits.index_select(1, self.order)

    @property
    def embedding_dim(self) -> int:
        """As that of the expert inside."""
        return self.expert.embedding_dim

    def require_maps(self) -> None:
        """As that of the expert inside."""
        self.expert.require_maps()

    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """Features of the expert inside."""
        return self.expert.features(values, pooled=pooled)

    def require_tokens(self) -> None:
        """As that of the expert inside."""
        self.expert.require_tokens()

    def tokens(self, values: Raw) -> Tokens:
        """Tokens of the expert inside."""
        return self.expert.tokens(values)

    def token_names(self, values: Raw) -> list[list[str]]:
        """As those of the expert inside."""
        return self.expert.token_names(values)

    def describe(self) -> dict[str, Any]:
        """As `Component.describe`, but without the file: who restores it has the weights.

        Unless they were stripped from the checkpoint: then the file is named, and checked.
        """
        description = super().describe()
        if self.stripped and self.restorable:
            arguments = {**description["init_args"], "sha256": self.sha256}
            return {**description, "init_args": arguments}
        arguments = {
            key: value
            for key, value in description["init_args"].items()
            if key not in ("checkpoint", "part", "strict")
        }
        arguments |= {
            "expert": self.expert.describe(),
            "trained_on": self.trained_on,
            "sha256": self.sha256,
        }
        return {**description, "init_args": arguments}


class FrozenExpert(PretrainedExpert):
    """An expert that no longer changes: no gradient, and its BatchNorm statistics stand still.

    Takes the same arguments as `PretrainedExpert` and one more.

    Args:
        schema: what the data deliver.
        checkpoint: file with the weights.
        part: which expert of a checkpoint with several.
        expert: the architecture, where the file does not say it.
        trained_on: filled in when a fused checkpoint is restored.
        sha256: filled in as well.
        strict: whether every weight must match.
        stage: behind which part of an `EncoderDecoder` its features are taken.
        stage_index: which of several features there.
        evaluate: keep it in evaluation mode (BatchNorm, dropout) while the fusion trains. If False,
            its statistics drift with the new data although its weights do not.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        checkpoint: str | None = None,
        part: str | None = None,
        expert: ExpertFactory | None = None,
        trained_on: dict[str, Any] | None = None,
        sha256: str | None = None,
        strict: bool = True,
        stage: Stage | None = None,
        stage_index: int = -1,
        evaluate: bool = True,
    ) -> None:
        super().__init__(
            schema,
            checkpoint=checkpoint,
            part=part,
            expert=expert,
            trained_on=trained_on,
            sha256=sha256,
            strict=strict,
            stage=stage,
            stage_index=stage_index,
        )
        self.evaluate = evaluate
        self._weights = WeightsFingerprint(self.expert)
        self.expert.freeze()
        self.train(self.training)

    @property
    def restorable(self) -> tuple[str, ...]:
        """The expert inside, if its file is known."""
        return ("expert",) if self.checkpoint is not None and self.evaluate else ()

    def train(self, mode: bool = True) -> Self:
        """Switches mode, but leaves a frozen expert in evaluation mode."""
        super().train(mode)
        if self.evaluate:
            self.expert.eval()
        return self

    def _with_head(self, source: Checkpoint, schema: Schema, *, where: str) -> Expert:
        raise InputError(
            f"{where} was trained without {schema.kind}, so a FrozenExpert of it decides nothing. "
            "Use it in FeatureFusion, which has a head of its own, or use PretrainedExpert, whose "
            "new head is trained."
        )

    def fingerprint(self) -> str | None:
        """A digest of its weights as they are; None if its statistics may drift."""
        return self._weights() if self.evaluate else None

    @torch.no_grad()
    def answer(self, values: Raw) -> Output:
        """As `Expert.answer`, without a graph; an auxiliary head has no part in it."""
        return super().answer(values)._replace(auxiliary=())

    @torch.no_grad()
    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """Features without a graph."""
        return super().features(values, pooled=pooled)

    @torch.no_grad()
    def tokens(self, values: Raw) -> Tokens:
        """Tokens without a graph."""
        return super().tokens(values)


def _build_expert(source: Checkpoint, expert: ExpertFactory | None, schema: Schema) -> Expert:
    """The expert that a checkpoint describes, or the one that was named for it."""
    where = str(source.path)
    own = source.hyper_parameters.get("trained_on")
    if expert is not None:
        return expert(Schema.from_dict(own) if own else schema)
    if not source.describes_model:
        raise InputError(
            f"{where} holds weights but does not say of which model. Name the architecture beside "
            "it, e.g. `expert: {class_path: UNetFormer, init_args: {backbone: resnet18}}`."
        )
    trained = Schema.from_dict(source.hyper_parameters["trained_on"])
    built = _build_described(source, trained)
    if trained.outputs and built.state_dict().keys() != source.state_dict.keys():
        # One of several whose features were fused has no head of its own.
        bare = _build_described(source, trained.without_outputs())
        if bare.state_dict().keys() == source.state_dict.keys():
            return bare
    return built


def _build_described(source: Checkpoint, schema: Schema) -> Expert:
    model: nn.Module = build(
        source.hyper_parameters["model"], ExpertFactory, schema, where=str(source.path)
    )
    assert isinstance(model, Expert)
    return model


def _order(
    trained: tuple[str, ...], wanted: tuple[str, ...], *, kind: str, where: str
) -> list[int] | None:
    """Where each wanted name stands among those trained; None if the order is the same."""
    if trained == wanted:
        return None
    if len(trained) != len(wanted) or set(trained) != set(wanted):
        only_expert = [name for name in trained if name not in wanted]
        only_data = [name for name in wanted if name not in trained]
        raise InputError(
            f"{where} was trained on {len(trained)} {kind}, the data have {len(wanted)}. Only the "
            f"expert knows {only_expert}, only the data know {only_data}. Experts to be fused must "
            f"share the {kind} of the data: retrain it on them."
        )
    return [trained.index(name) for name in wanted]
