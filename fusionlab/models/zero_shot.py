"""Classification by descriptions of the classes, without any labelled sample.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
2021, arXiv 2103.00020, section 3.1: the class whose description lies nearest to the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionlab.checkpoints import (
    Checkpoint,
    checked_sha256,
    fill_stripped,
    load_weights,
    read_checkpoint,
)
from fusionlab.component import Explanation, Model, build
from fusionlab.errors import InputError
from fusionlab.fusion.features.base import keep_available
from fusionlab.models.contrastive import ContrastiveModel, ContrastiveModelFactory
from fusionlab.types import Batch, Output, Schema, class_indices

TEMPLATES = ("a satellite image of {}", "an aerial image of {}", "a photo of {} from above")
"""What class names are put into, unless other templates are given."""
_AT_ONCE = 256  # descriptions that are read together


class ZeroShot(Model):
    """Gives a sample the class whose descriptions its embedding is most like.

    Two experts of a contrastive checkpoint: one looks at the samples, the other reads the
    descriptions. No labels were seen, but texts that it was trained with may have named the
    classes: a description works as far as its words occurred there. Logits are cosines times the
    scale learned in contrastive training (plus the bias, of a checkpoint trained with
    `SigmoidContrastive`). Of several descriptions of a class, the embeddings' mean counts, brought
    back to length 1.

    There is nothing to train, so ``fusionlab test`` and ``predict`` need no ``--ckpt_path``. Saved
    by ``fusionlab fit``, the checkpoint holds both experts and needs the contrastive one no longer.

    Args:
        schema: what the data deliver; the classes are those to tell apart.
        checkpoint: file of a `ContrastiveTask`.
        image: name of the expert that looks at the samples: of an image or of anything else but
            text. May be left out where there is just one.
        text: name of the expert that reads; may be left out where there is just one.
        prompts: per class one description or several, e.g. ``{forest: [dense forest with trees]}``.
            Classes that are not named are described by their name.
        templates: texts with ``{}`` into which every description is put; ``["{}"]`` takes them as
            they are.
        encoders: the contrastive model, where a checkpoint of this model holds its weights itself;
            filled in when it is restored.
        trained_on: schema of the data that was trained on; filled in as well.
        sha256: of the contrastive checkpoint; filled in as well, for provenance.

    Attributes:
        texts: per class, all its descriptions in all templates.

    Raises:
        InputError: for a checkpoint that is not contrastive, or not trained with the sigmoid loss
            where several classes may apply; an expert that it lacks or that is of the wrong kind;
            unknown classes in prompts, templates without ``{}``, or data without classes.
    """

    scale: Tensor
    bias: Tensor
    described: Tensor | None

    def __init__(
        self,
        schema: Schema,
        *,
        checkpoint: str | None = None,
        image: str | None = None,
        text: str | None = None,
        prompts: dict[str, str | list[str]] | None = None,
        templates: Sequence[str] = TEMPLATES,
        encoders: ContrastiveModelFactory | None = None,
        trained_on: dict[str, Any] | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        if not schema.classes:
            raise InputError(
                "ZeroShot tells classes apart, but the data name none. Name them with "
                "`classes:` of ClassificationTask."
            )
        if schema.pixelwise:
            raise InputError(
                f"ZeroShot classifies whole samples, but the target of the data is "
                f"{schema.target!r}. Use data with one class per sample."
            )
        self.classes = schema.classes
        self.texts = _texts(schema.classes, prompts or {}, templates)
        self.sha256 = sha256
        scale, bias = 1.0, 0.0
        if encoders is not None and trained_on is not None:
            # Restored from its own checkpoint, which holds the weights.
            self.encoders = encoders(Schema.from_dict(trained_on))
            source = None
        elif checkpoint is None:
            raise InputError("ZeroShot needs `checkpoint:` (a file of a ContrastiveTask).")
        else:
            source = read_checkpoint(checkpoint)
            self.sha256 = checked_sha256(checkpoint, sha256)
            trained_on = source.hyper_parameters.get("trained_on")
            self.encoders = _contrastive(source)
        self.trained_on = trained_on
        where = checkpoint or "The checkpoint"
        self.text = self._reader(text, where=where)
        self.image = self._looker(image, where=where)
        if source is not None:
            scale, bias = _scale(source, (self.image, self.text))
            if schema.target == "multilabel" and "loss.bias" not in source.beside_model:
                raise InputError(
                    f"ZeroShot: several classes may apply, but {where} was trained with InfoNCE, "
                    "which says what is most alike, not what is alike. Train it with "
                    "SigmoidContrastive, or use data with one class per sample."
                )
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("bias", torch.tensor(bias))
        self.register_buffer("described", None, persistent=False)
        self._read: tuple[Any, ...] = ()
        self.modality = self.reference = self.encoders.expert(self.image).modality
        self.encoders.requires_grad_(False)
        self.train(self.training)
        self.rebind(schema)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The one that is looked at."""
        return (self.modality,)

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.encoders.embedding_dim

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding."""
        expert = self.encoders.expert(self.image)
        expert.rebind(schema)
        self.gsd = expert.gsd

    def train(self, mode: bool = True) -> Self:
        """Switches mode, but leaves the encoders in evaluation mode."""
        super().train(mode)
        self.encoders.eval()
        return self

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, K)``, and the embeddings ``(B, D)`` of the samples they come from."""
        embeddings = self.embed(batch)
        logits = self.scale * (embeddings @ self.class_embeddings().T) + self.bias
        return Output(logits, embeddings={self.image: embeddings})

    def cosines(self, batch: Batch) -> Tensor:
        """How much samples are like the descriptions of the classes, ``(B, K)`` in [-1, 1]."""
        return self.embed(batch) @ self.class_embeddings().T

    @torch.no_grad()
    def embed(self, batch: Batch) -> Tensor:
        """Embeddings of the samples, float32 ``(B, D)``; zeros where there is nothing to see."""
        available = batch["available"][self.modality]
        embeddings = self.encoders.encode(self.image, batch["inputs"][self.modality])
        return keep_available(embeddings, available)

    def class_embeddings(self) -> Tensor:
        """Embeddings of the classes ``(K, D)``, read once for the weights that there are."""
        weights = [*self.encoders.expert(self.text).parameters()]
        weights += self.encoders.projections[self.text].parameters()
        # Torch counts what is written into a tensor: loading weights does, moving does not matter.
        state = tuple((id(weight), weight._version) for weight in weights)
        device = self.scale.device
        known = self.described
        if known is None or state != self._read or known.device != device:
            known = self.described = self._described()
            self._read = state
        return known

    def explain(self, batch: Batch) -> Explanation:
        """One modality decides alone: its share is 1 everywhere."""
        output = self(batch)
        return Explanation(output, {self.modality: torch.ones_like(output.logits[:, 0])})

    def describe(self) -> dict[str, Any]:
        """As `Component.describe`, but without the file: who restores it has the weights."""
        description = super().describe()
        arguments = description["init_args"]
        arguments.pop("checkpoint", None)
        arguments |= {
            "image": self.image,
            "text": self.text,
            "encoders": self.encoders.describe(),
            "trained_on": self.trained_on,
            "sha256": self.sha256,
        }
        return description

    def _described(self) -> Tensor:
        # Not as a tensor of inference mode, which nothing could be done with later.
        with torch.inference_mode(False), torch.no_grad():
            every = [text for texts in self.texts for text in texts]
            each = torch.cat(
                [
                    self.encoders.encode(self.text, every[start : start + _AT_ONCE])
                    for start in range(0, len(every), _AT_ONCE)
                ]
            )
            parts = torch.split(each, [len(texts) for texts in self.texts])
            return F.normalize(torch.stack([part.mean(dim=0) for part in parts]))

    def _reader(self, given: str | None, *, where: str) -> str:
        texts = [name for name in self.encoders.experts if self._reads(name)]
        if given is None and len(texts) == 1:
            return texts[0]
        if given not in texts:
            said = f"`text: {given}` is none of these. " if given else ""
            raise InputError(
                f"ZeroShot needs an expert that reads the descriptions of classes. Of {where} "
                f"{texts or 'none'} do, among {list(self.encoders.experts)}: "
                + (f"{said}Name one with `text:`." if texts else "train one with a TextExpert.")
            )
        return given

    def _looker(self, given: str | None, *, where: str) -> str:
        others = [name for name in self.encoders.experts if not self._reads(name)]
        if given is None and len(others) == 1:
            return others[0]
        if given not in others:
            said = f"`image: {given}` is none of these. " if given else ""
            raise InputError(
                f"ZeroShot needs an expert that looks at the samples. Of {where} {others} do, "
                f"among {list(self.encoders.experts)}: {said}Name one with `image:`."
            )
        return given

    def _reads(self, name: str) -> bool:
        expert = self.encoders.expert(name)
        return expert.schema.modalities[expert.modality].kind == "text"


def _texts(
    classes: Sequence[str], prompts: Mapping[str, str | Sequence[str]], templates: Sequence[str]
) -> list[list[str]]:
    """Per class, its descriptions in all templates."""
    without = [template for template in templates if "{}" not in template]
    if without or not templates:
        raise InputError(
            f"ZeroShot templates: {without[0]!r} has no {{}}, where the description of a class is "
            "put, so all classes would be the same."
            if without
            else "ZeroShot templates: give at least one, such as '{}'."
        )
    known = list(prompts)
    indices = class_indices(known, classes, where="ZeroShot prompts")
    described = {index: prompts[name] for index, name in zip(indices, known, strict=True)}
    texts = []
    for index, name in enumerate(classes):
        given = described.get(index, name.replace("_", " "))
        listed = [given] if isinstance(given, str) else list(given)
        if not listed or not all(text.strip() for text in listed):
            raise InputError(
                f"ZeroShot prompts: {name!r} has no description, or an empty one. Give one, or "
                "leave the class out to have it described by its name."
            )
        texts.append([template.replace("{}", text) for text in listed for template in templates])
    return texts


def _contrastive(source: Checkpoint) -> ContrastiveModel:
    """The model of a contrastive checkpoint, with its weights."""
    where = str(source.path)
    hint = "Give the best.ckpt of a run with ContrastiveTask."
    if not source.describes_model:
        raise InputError(
            f"ZeroShot: {where} holds weights, but does not say of which model. {hint}"
        )
    described = source.hyper_parameters["model"]
    try:
        model: ContrastiveModel = build(
            described,
            ContrastiveModelFactory,
            Schema.from_dict(source.hyper_parameters["trained_on"]),
            where=where,
        )
    except InputError as error:
        kind = str(described["class_path"]).rpartition(".")[-1]
        if kind == ContrastiveModel.__name__:
            raise
        raise InputError(
            f"ZeroShot: {where} is not contrastive: it holds a {kind}, whose answers are in no "
            f"common space with texts. {hint}"
        ) from error
    weights = fill_stripped(source.state_dict, source.stripped, model, where=where)
    load_weights(model, weights, where=where)
    return model


def _scale(source: Checkpoint, pair: tuple[str, str]) -> tuple[float, float]:
    """The scale and the bias that were learned for two experts, or of all pairs the mean."""
    log_scale = source.beside_model.get("loss.log_scale")
    if log_scale is None:
        return 1.0, 0.0
    bias = source.beside_model.get("loss.bias", torch.zeros_like(log_scale))
    pairs = [set(names) for names in source.hyper_parameters.get("pairs") or ()]
    if set(pair) in pairs:
        index = pairs.index(set(pair))
        return float(log_scale[index].exp()), float(bias[index])
    return float(log_scale.mean().exp()), float(bias.mean())
