"""Embeddings of a single expert come from the pass that answers; models without any say so."""

from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert
from lightning.pytorch import Trainer
from timm_networks import CLASSES, SCHEMA, expert, raw
from torch.utils.data import DataLoader, Dataset

from fusionlab.callbacks import TableWriter
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts import BifoldExpert, Expert, FrozenExpert, PretrainedExpert, TimmExpert
from fusionlab.experts.bifold import BAND_ORDERS
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.tasks import ClassificationTask
from fusionlab.types import Modality, Schema

TWELVE = Schema(
    {"s2": Modality(BAND_ORDERS["0.2.0"]["s2"], 10.0)}, ("Pastures", "Arable land"),
    target="multilabel",
)  # fmt: skip


class Decides(Expert):
    """Has no embedding."""

    def logits(self, values):
        return self.inputs(values).mean(dim=(-2, -1))[:, : self.num_classes]


class Samples(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {
            "inputs": {"s2": raw(batch=1)[0]},
            "available": {"s2": torch.tensor(True)},
            "target": torch.zeros(4),
            "sample_id": str(i),
        }


def batch(bands=5):
    there = torch.ones(2, dtype=torch.bool)
    return {"inputs": {"s2": raw(bands=bands)}, "available": {"s2": there}}


def task(model, schema=SCHEMA):
    torch.manual_seed(0)
    made = ClassificationTask(schema, model).eval()
    made.embeddings = True
    return made


@pytest.fixture
def checkpoint(tmp_path):
    """An expert that was trained on the classes in another order."""
    schema = Schema(SCHEMA.modalities, CLASSES[::-1], target="multilabel")
    trained = expert("test_vit", schema)
    content = {
        "state_dict": {f"model.{key}": value for key, value in trained.state_dict().items()},
        "hyper_parameters": {"model": trained.describe(), "trained_on": schema.to_dict()},
    }
    torch.save(content, tmp_path / "expert.ckpt")
    return str(tmp_path / "expert.ckpt")


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (partial(TimmExpert, backbone="test_resnet"), SCHEMA),
        (partial(BifoldExpert, backbone="test_resnet", pretrained=False), TWELVE),
        (PretrainedExpert, SCHEMA),
        (FrozenExpert, SCHEMA),
    ],
)
def test_the_backbone_is_asked_once(model, schema, checkpoint):
    if model in (PretrainedExpert, FrozenExpert):
        model = partial(model, checkpoint=checkpoint)
    made = task(model, schema)
    inside = getattr(made.model, "expert", made.model)
    calls = []
    inside.body.register_forward_hook(lambda *_: calls.append(1))
    data = batch(bands=10 if schema is TWELVE else 5)
    found = made.predict_step(data, 0)
    assert len(calls) == 1
    with torch.no_grad():
        expected = inside.features(data["inputs"]["s2"])
        logits = made.model.logits(data["inputs"]["s2"])
    assert found["embeddings"].keys() == {"s2"}
    assert torch.equal(found["embeddings"]["s2"], expected)
    assert torch.equal(found["probabilities"], logits.sigmoid())
    if inside is not made.model:  # classes come in the order of the data
        own = inside.logits(data["inputs"]["s2"])
        assert torch.equal(logits, own[:, [3, 2, 1, 0]])


def test_a_frozen_expert_gives_its_embedding_without_a_graph(checkpoint):
    output = FrozenExpert(SCHEMA, checkpoint=checkpoint)(batch())
    assert not output.logits.requires_grad
    assert not output.embeddings["s2"].requires_grad
    output = PretrainedExpert(SCHEMA, checkpoint=checkpoint)(batch())
    assert output.embeddings["s2"].requires_grad


def test_an_expert_that_does_not_hand_its_embedding_on_is_asked_for_it():
    made = task(PooledExpert)
    found = made.predict_step(batch(), 0)["embeddings"]["s2"]
    assert torch.equal(found, made.model.features(batch()["inputs"]["s2"]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            partial(LateFusion, experts={
                "a": partial(PooledExpert, modality="s2"), "b": partial(Decides, modality="s2"),
            }),
            "LateFusion fuses decisions and gives no embedding.*FeatureFusion",
        ),
        (Decides, "Decides gives no features, only decisions.*FeatureFusion"),
    ],
)  # fmt: skip
def test_a_model_without_embeddings_is_refused_before_it_predicts(tmp_path, model, message):
    made = task(model)
    made.embeddings = False
    seen = []
    made.model.register_forward_hook(lambda *_: seen.append(1))
    writer = TableWriter(tmp_path / "out", embeddings=True)
    runner = Trainer(
        accelerator="cpu", callbacks=[writer], default_root_dir=tmp_path, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        runner.predict(made, DataLoader(Samples(), collate_fn=collate))
    assert not seen
    assert not (tmp_path / "out").exists()


def test_those_that_have_them_are_not_refused():
    bare = {name: partial(PooledExpert, modality="s2") for name in "ab"}
    for model in (PooledExpert, partial(FeatureFusion, experts=bare)):
        task(model).require_embeddings()
