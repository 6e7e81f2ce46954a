"""Encoders of a contrastive or fused checkpoint, used as experts on their own."""

from functools import partial

import pytest
import torch
from contrastive_pairs import CLASSES, Scenes, fitted, schema, task, trainer
from torch import nn
from torch.utils.data import DataLoader

from fusionlab.component import build
from fusionlab.data.samples import collate
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, PretrainedExpert, TimmExpert
from fusionlab.fusion.features import Concat, CrossAttention
from fusionlab.heads import Head
from fusionlab.models import FeatureFusion
from fusionlab.tasks import ClassificationTask, ContrastiveTask, ModelFactory
from fusionlab.types import Schema


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory) -> tuple[ContrastiveTask, str]:
    """A trained task and its checkpoint."""
    folder = tmp_path_factory.mktemp("contrastive")
    made = fitted(folder, epochs=8)
    made.trainer.save_checkpoint(folder / "run.ckpt")
    return made.eval(), str(folder / "run.ckpt")


def batch(n=8):
    return collate([Scenes(places=True)[i] for i in range(n)])


def loader() -> DataLoader:
    return DataLoader(Scenes(4), batch_size=4, collate_fn=collate)


def image_only(classes=CLASSES, target="multiclass") -> Schema:
    return schema(("image",), classes, target=target)


@pytest.mark.parametrize("kind", [PretrainedExpert, FrozenExpert])
@pytest.mark.parametrize("part", ["image", "caption"])
def test_an_encoder_gives_the_features_it_gave(contrastive, kind, part):
    made, checkpoint = contrastive
    expert = kind(schema().without_outputs().only(part), checkpoint=checkpoint, part=part).eval()
    values = batch()["inputs"][part]
    torch.testing.assert_close(expert.features(values), made.model.expert(part).features(values))
    assert expert.modality == part
    assert any(p.requires_grad for p in expert.parameters()) == (kind is PretrainedExpert)


def test_a_fusion_over_encoders_stands_alone(contrastive, tmp_path):
    made, checkpoint = contrastive
    experts = {
        name: partial(FrozenExpert, checkpoint=checkpoint, part=name)
        for name in ("image", "caption", "radar")
    }
    attention = partial(CrossAttention, width=8, heads=2)
    for fusion in (Concat, attention):
        fused = FeatureFusion(schema(), experts=experts, fusion=fusion).eval()
        given = batch()
        if fusion is Concat:
            own = made.model.expert("image").features(given["inputs"]["image"])
            torch.testing.assert_close(fused.embed(given)["image"], own)
        described = fused.describe()
        inner = described["init_args"]["experts"]["image"]["init_args"]
        assert not {"checkpoint", "part"} & inner.keys()
        assert len(inner["sha256"]) == 64
        again = build(described, ModelFactory, schema(), where="a test").eval()
        again.load_state_dict(fused.state_dict())
        assert torch.equal(again(given).logits, fused(given).logits)


def test_a_new_head_is_trained_on_an_encoder(contrastive, tmp_path):
    """Contrastive pretraining first, then classes: the encoder goes on from where it was."""
    made, _ = contrastive
    torch.manual_seed(0)
    with_head = task(experts={"image": partial(TimmExpert, backbone="test_resnet"),
                              "caption": made.model.expert("caption").__class__})  # fmt: skip
    trainer(tmp_path, fast_dev_run=1).fit(with_head, loader())
    with_head.trainer.save_checkpoint(tmp_path / "run.ckpt")
    with_head.eval()
    path = str(tmp_path / "run.ckpt")
    expert = PretrainedExpert(image_only(), checkpoint=path, part="image").eval()
    values = batch()["inputs"]["image"]
    expected = with_head.model.expert("image").features(values)
    assert torch.equal(expert.features(values), expected)
    assert isinstance(expert.expert.head, Head)
    assert expert.logits(values).shape == (8, 4)
    assert expert.classes == CLASSES
    classes = ClassificationTask(
        image_only(), partial(PretrainedExpert, checkpoint=path, part="image")
    )
    given = {**batch(), "inputs": {"image": values}}
    classes.log = lambda *_, **__: None
    classes.training_step(given, 0).backward()
    assert [n for n, p in classes.named_parameters() if p.grad is None] == []
    again = build(expert.describe(), ModelFactory, image_only(), where="a test").eval()
    again.load_state_dict(expert.state_dict())
    assert torch.equal(again.logits(values), expert.logits(values))
    with pytest.raises(InputError, match="trained without classes, so a FrozenExpert of it decid"):
        FrozenExpert(image_only(), checkpoint=path, part="image")


def test_an_expert_without_heads_gets_none(contrastive):
    """That of the tests has no head at all, whatever it is built for."""
    _, checkpoint = contrastive
    with pytest.raises(InputError, match=r"without classes.*PatchExpert cannot be given a head"):
        PretrainedExpert(image_only(), checkpoint=checkpoint, part="image")


def test_an_expert_of_a_fusion(contrastive, tmp_path):
    """Inside a fusion, experts have no heads either."""
    fused = ClassificationTask(
        schema(), partial(FeatureFusion, experts={
            "image": partial(TimmExpert, backbone="test_resnet"),
            "radar": partial(TimmExpert, backbone="test_resnet"),
        }),
    )  # fmt: skip
    trainer(tmp_path, fast_dev_run=1).fit(fused, loader())
    fused.trainer.save_checkpoint(tmp_path / "run.ckpt")
    fused.eval()
    data = schema().without_outputs().only("radar")
    expert = FrozenExpert(data, checkpoint=str(tmp_path / "run.ckpt"), part="radar").eval()
    values = batch()["inputs"]["radar"]
    torch.testing.assert_close(
        expert.features(values), fused.model.expert("radar").features(values)
    )


def test_messages_list_the_parts(contrastive, tmp_path):
    _, checkpoint = contrastive
    listed = r"ContrastiveModel of the experts \['image', 'radar', 'caption'\]"
    data = image_only(())
    with pytest.raises(InputError, match=rf"{listed}, and none is named.*`part: image`"):
        PretrainedExpert(data, checkpoint=checkpoint)
    with pytest.raises(InputError, match=rf"{listed}, and 'lidar' is none of them"):
        FrozenExpert(data, checkpoint=checkpoint, part="lidar")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"`part: image` names one .* weights of one model"):
        FrozenExpert(data, checkpoint=str(tmp_path / "weights.pt"), part="image")
