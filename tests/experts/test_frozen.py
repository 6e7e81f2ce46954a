import warnings
from functools import partial

import pytest
import torch
from small_models import PixelExpert

from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert
from fusionlab.experts.frozen import PretrainedExpert
from fusionlab.types import Modality, Schema

BANDS = ("red", "green", "blue")
CLASSES = ("wood", "road", "water")


def schema(bands=BANDS, classes=CLASSES, **options) -> Schema:
    return Schema({"aerial": Modality(bands, 0.2, **options)}, classes)


@pytest.fixture
def trained() -> PixelExpert:
    torch.manual_seed(0)
    expert = PixelExpert(schema(mean=(10, 20, 30), std=(2, 3, 4)), width=6).train()
    expert.logits(torch.randint(0, 255, (4, 3, 8, 8)).byte())  # moves the BatchNorm statistics
    return expert.eval()


@pytest.fixture
def checkpoint(trained, tmp_path) -> str:
    """As a task saves it."""
    content = {
        "state_dict": {f"model.{k}": v for k, v in trained.state_dict().items()},
        "hyper_parameters": {
            "model": trained.describe(),
            "trained_on": schema(mean=(10, 20, 30), std=(2, 3, 4)).to_dict(),
        },
    }
    torch.save(content, tmp_path / "expert.ckpt")
    return str(tmp_path / "expert.ckpt")


def images() -> torch.Tensor:
    return torch.randint(0, 255, (2, 3, 8, 8), generator=torch.Generator().manual_seed(1)).byte()


def test_a_checkpoint_says_what_the_expert_is(trained, checkpoint):
    frozen = FrozenExpert(schema(), checkpoint=checkpoint)
    assert torch.equal(frozen.logits(images()), trained.logits(images()))
    assert len(frozen.sha256) == 64


def test_bands_are_read_by_name_whatever_order_the_data_have(trained, checkpoint):
    frozen = FrozenExpert(schema(bands=("nir", "blue", "green", "red")), checkpoint=checkpoint)
    moved = torch.cat([torch.zeros(2, 1, 8, 8).byte(), images().flip(1)], dim=1)
    assert torch.equal(frozen.logits(moved), trained.logits(images()))
    with pytest.raises(InputError, match=r"\['red', 'green', 'blue'\].*\['red', 'green'\]"):
        FrozenExpert(schema(bands=("red", "green")), checkpoint=checkpoint)


def test_data_in_another_encoding_are_scaled(trained, checkpoint):
    in_tenths = FrozenExpert(schema(scale=(0.1, 0.1, 0.1)), checkpoint=checkpoint)
    torch.testing.assert_close(
        in_tenths.logits(images().float() * 10), trained.logits(images()), atol=1e-5, rtol=1e-5
    )


def test_classes_come_in_the_order_of_the_data(trained, checkpoint):
    frozen = FrozenExpert(schema(classes=("water", "wood", "road")), checkpoint=checkpoint)
    assert torch.equal(frozen.logits(images()), trained.logits(images())[:, [2, 0, 1]])


@pytest.mark.parametrize("classes", [("wood", "road"), ("wood", "road", "snow")])
def test_other_classes_are_refused(checkpoint, classes):
    with pytest.raises(InputError, match=r"trained on 3 classes.*only the data know|Only the"):
        FrozenExpert(schema(classes=classes), checkpoint=checkpoint)


def test_weights_from_elsewhere_need_the_architecture_named(trained, tmp_path):
    path = str(tmp_path / "weights.pt")
    torch.save({"model_state_dict": trained.state_dict()}, path)
    with pytest.raises(InputError, match="does not say of which model"):
        FrozenExpert(schema(), checkpoint=path)
    frozen = FrozenExpert(schema(), checkpoint=path, expert=partial(PixelExpert, width=6))
    assert torch.equal(frozen.logits(images()), trained.logits(images()))
    with pytest.raises(InputError, match="another architecture"):
        FrozenExpert(schema(), checkpoint=path, expert=partial(PixelExpert, width=7))


def test_it_is_built_again_without_the_file(trained, checkpoint, tmp_path):
    frozen = FrozenExpert(schema(), checkpoint=checkpoint)
    description = frozen.describe()
    (tmp_path / "expert.ckpt").unlink()
    from fusionlab.component import build
    from fusionlab.experts.base import ExpertFactory

    again = build(description, ExpertFactory, schema(), where="here")
    again.load_state_dict(frozen.state_dict())
    again.rebind(schema())
    assert torch.equal(again.logits(images()), trained.logits(images()))
    assert again.sha256 == frozen.sha256
    defaults = {"evaluate": True, "stage": None, "stage_index": -1}
    assert again.describe()["init_args"] == {**description["init_args"], **defaults}


def test_frozen_means_frozen(checkpoint):
    frozen = FrozenExpert(schema(), checkpoint=checkpoint)
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    frozen.train()
    assert not frozen.logits(images()).requires_grad
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())


def test_unless_told_otherwise(checkpoint):
    drifting = FrozenExpert(schema(), checkpoint=checkpoint, evaluate=False).train()
    mean = drifting.expert.layers[1].running_mean.clone()
    drifting.logits(images())
    assert not torch.equal(drifting.expert.layers[1].running_mean, mean)

    trainable = PretrainedExpert(schema(), checkpoint=checkpoint).train()
    assert trainable.logits(images()).requires_grad


def test_other_preparation_is_warned_of(trained, tmp_path):
    content = {
        "state_dict": {f"model.{k}": v for k, v in trained.state_dict().items()},
        "hyper_parameters": {
            "model": trained.describe(),
            "trained_on": schema(preparation={"monthly_means": True}).to_dict(),
        },
    }
    torch.save(content, tmp_path / "expert.ckpt")
    path = str(tmp_path / "expert.ckpt")
    with pytest.warns(UserWarning, match=r"monthly_means.*False instead of True"):
        FrozenExpert(schema(preparation={"monthly_means": False}), checkpoint=path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FrozenExpert(schema(preparation={"monthly_means": True}), checkpoint=path)


def test_without_anything_it_says_what_it_needs():
    with pytest.raises(InputError, match="needs `checkpoint:`"):
        FrozenExpert(schema())


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.ckpt does not exist"):
        FrozenExpert(schema(), checkpoint=str(tmp_path / "nowhere.ckpt"))


def test_a_restored_description_beside_the_file_needs_no_file(trained, checkpoint, tmp_path):
    # As when a configuration that names the file is merged with a fused checkpoint's description.
    description = FrozenExpert(schema(), checkpoint=checkpoint).describe()["init_args"]
    (tmp_path / "expert.ckpt").unlink()
    again = FrozenExpert(
        schema(classes=("water", "wood", "road")),
        checkpoint=checkpoint,
        expert=partial(PixelExpert, width=6),
        trained_on=description["trained_on"],
    )
    assert again.order.tolist() == [2, 0, 1]
    assert again.schema.modalities["aerial"].bands == BANDS


def test_an_architecture_named_beside_our_checkpoint_keeps_its_classes(trained, checkpoint):
    frozen = FrozenExpert(
        schema(classes=("water", "wood", "road")),
        checkpoint=checkpoint,
        expert=partial(PixelExpert, width=6),
    )
    assert torch.equal(frozen.logits(images()), trained.logits(images())[:, [2, 0, 1]])


def test_a_fine_tuned_expert_can_be_frozen(checkpoint, trained, tmp_path):
    tuned = PretrainedExpert(schema(), checkpoint=checkpoint).eval()
    content = {
        "state_dict": {
            **{f"model.{k}": v for k, v in tuned.state_dict().items()},
            "loss.steps": torch.zeros(1),  # a buffer of a user's own loss
        },
        "hyper_parameters": {"model": tuned.describe(), "trained_on": schema().to_dict()},
    }
    torch.save(content, tmp_path / "tuned.ckpt")
    frozen = FrozenExpert(schema(), checkpoint=str(tmp_path / "tuned.ckpt"))
    assert torch.equal(frozen.logits(images()), trained.logits(images()))
    assert frozen.inputs is frozen.expert.inputs


def test_a_fused_checkpoint_is_no_expert(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["model"] = {
        "class_path": "fusionlab.models.LateFusion", "init_args": {"experts": {}},
    }  # fmt: skip
    torch.save(content, tmp_path / "fused.ckpt")
    with pytest.raises(InputError, match=r"fused\.ckpt describes a fusionlab\.models\.LateFusion"):
        FrozenExpert(schema(), checkpoint=str(tmp_path / "fused.ckpt"))


@pytest.mark.parametrize("kind", [FrozenExpert, PretrainedExpert])
def test_random_weights_are_not_taken_for_trained_ones(kind):
    with pytest.raises(InputError, match=r"an expert with random weights.*`checkpoint:`"):
        kind(schema(), expert=PixelExpert)


def test_an_expert_for_another_kind_of_target_is_refused(checkpoint):
    whole = Schema({"aerial": Modality(BANDS, 0.2)}, CLASSES, target="multilabel")
    with pytest.raises(InputError, match="kind 'segmentation', but that of the data is 'multilab"):
        FrozenExpert(whole, checkpoint=checkpoint)
