"""Embeddings of several experts in one space: lengths, missing modalities, round trips."""

import copy
import pickle
from functools import partial

import pytest
import torch
from contrastive_pairs import ENCODERS, TWO, Scenes, model, schema
from embedding_experts import PooledExpert
from small_models import PixelExpert

from fusionlab.component import build
from fusionlab.data.samples import collate
from fusionlab.errors import InputError
from fusionlab.models import ContrastiveModel
from fusionlab.tasks import ModelFactory


def built(experts=None, **options) -> ContrastiveModel:
    torch.manual_seed(0)
    return model(experts, **options)(schema()).eval()


def batch(n=8):
    return collate([Scenes()[i] for i in range(n)])


@pytest.mark.parametrize("hidden", [None, 12])
def test_embeddings_have_length_one_or_are_not_there(hidden):
    given = batch()
    for name, values in built(hidden=hidden).embed(given).items():
        assert values.shape == (8, 6)
        torch.testing.assert_close(values.norm(dim=1), given["available"][name].float())


def test_what_is_missing_is_not_read_and_gives_no_gradient():
    network = built()
    given = batch()
    image = given["inputs"]["image"].clone()
    given["available"]["image"] = torch.arange(8) != 2
    expected = network.embed(given)
    image[2] = torch.nan
    junk = {**given, "inputs": {**given["inputs"], "image": image}}
    found = network.embed(junk)
    for name, values in expected.items():
        assert torch.equal(found[name], values)
    sum(values.sum() for values in found.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("gone", ["image", "caption", "radar"])
def test_every_parameter_has_a_gradient_whoever_is_missing(gone):
    network = built(hidden=5).train()
    given = batch()
    given["available"][gone] = torch.zeros(8, dtype=torch.bool)
    (sum(values.square().sum() for values in network.embed(given).values()) * 0.5).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_answer_is_how_alike_the_experts_are():
    network, given = built(), batch()
    output = network(given)
    image, radar, caption = (network.embed(given)[name] for name in ENCODERS)
    expected = [(image * radar).sum(1), (image * caption).sum(1), (radar * caption).sum(1)]
    torch.testing.assert_close(output.logits, torch.stack(expected, dim=1))
    assert list(output.embeddings) == list(ENCODERS)
    assert network.modalities == ("image", "radar", "caption")


def test_texts_are_encoded_without_a_batch():
    network, given = built(), batch()
    there = given["available"]["caption"]
    found = network.encode("caption", given["inputs"]["caption"])
    torch.testing.assert_close(found[there], network.embed(given)["caption"][there])


def test_the_target_of_the_data_plays_no_part():
    """Experts are built for samples, without a head, whatever there is to learn besides."""
    for target in ("segmentation", "multilabel"):
        data = schema(target=target)
        torch.manual_seed(0)
        network = model()(data).eval()
        assert network.target == "multiclass"
        assert network.expert("image").names == ()
        assert torch.equal(network(batch()).logits, built()(batch()).logits)


def test_half_precision_ends_before_the_heads():
    network, given = built(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network.embed(given)
    for name, values in network.embed(given).items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], values, atol=0.03, rtol=0)


def test_described_copied_and_pickled():
    network = built(hidden=9)
    again = build(network.describe(), ModelFactory, schema(), where="a test").eval()
    again.load_state_dict(network.state_dict())
    for other in (again, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(batch()).logits, network(batch()).logits)


def test_two_experts_of_one_modality():
    views = {"one": partial(ENCODERS["image"], modality="image"),
             "two": partial(PooledExpert, modality="image", bands=["blue"])}  # fmt: skip
    network = built(views)
    assert network.modalities == ("image",)
    assert network(batch()).logits.shape == (8, 1)


@pytest.mark.parametrize(
    ("experts", "options", "message"),
    [({"image": ENCODERS["image"]}, {}, "two or more experts"),
     (TWO, {"width": 0}, "width must be 1 or more"), (TWO, {"hidden": 0}, "hidden must be"),
     ({**TWO, "radar": PixelExpert}, {}, "cannot use the expert 'radar'.*gives no features")],
)  # fmt: skip
def test_refusals(experts, options, message):
    with pytest.raises(InputError, match=message):
        built(experts, **options)
