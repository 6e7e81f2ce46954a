"""FeatureFusion for targets per sample that fuses maps: the head sees the fused map."""

from functools import partial

import pytest
import torch

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import EncoderDecoder
from fusionlab.fusion.features import (
    AFF,
    Add,
    Attention,
    Concat,
    Gated,
    Hadamard,
    MatMul,
    Projection,
    Weighted,
)
from fusionlab.heads import ClassificationHead, FlattenHead, LinearHead
from fusionlab.models import FeatureFusion
from fusionlab.tasks.base import ModelFactory
from fusionlab.types import Modality, Schema

MODALITIES = {"rgb": Modality(("r", "g", "b"), 1.0), "lidar": Modality(("x", "z"), 1.0)}
SCHEMA = Schema(MODALITIES, ("cubes", "spheres"), target="multiclass")
SPEEDS = Schema(MODALITIES, variables=("speed",), target="scalar_regression")
WIDTHS = [4, 6, 8]
MAPS = partial(EncoderDecoder, backbone={"name": "PlainCNN", "widths": WIDTHS}, stage="backbone")
VECTORS = partial(
    EncoderDecoder,
    backbone={"name": "PlainCNN", "widths": WIDTHS},
    necks=[{"name": "Flatten", "size": 4}],
    stage="necks",
)
OPERATORS = [Concat, Add, Hadamard, MatMul, AFF, Attention, Gated, Projection, Weighted]
HEAD = partial(FlattenHead, size=4, dim_list=[5])


def batch(size=3, side=32, **available):
    there = {name: torch.ones(size, dtype=torch.bool) for name in MODALITIES}
    there |= {name: torch.tensor(value) for name, value in available.items()}
    return {
        "inputs": {
            "rgb": torch.randn(size, 3, side, side),
            "lidar": torch.randn(size, 2, side, side),
        },
        "available": there,
    }


def model(schema=SCHEMA, experts=(MAPS, MAPS), **options):
    torch.manual_seed(0)
    options = {"pooled": False, "head": HEAD} | options
    return FeatureFusion(schema, experts=dict(zip(MODALITIES, experts, strict=True)), **options)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_head_sees_the_fused_map(operator):
    fused, data = model(fusion=operator).eval(), batch()
    maps = {
        name: fused.expert(name).features(data["inputs"][name], pooled=False) for name in MODALITIES
    }
    assert {tuple(value.shape) for value in maps.values()} == {(3, 8, 4, 4)}
    together = fused.fusion(maps)
    output = fused(data)
    torch.testing.assert_close(output.logits, fused.head(together.features))
    assert {n: tuple(e.shape) for n, e in output.embeddings.items()} == {
        "rgb": (3, 8), "lidar": (3, 8), "fused": (3, fused.embedding_dim),
    }  # fmt: skip
    torch.testing.assert_close(output.embeddings["fused"], together.features.mean((2, 3)))
    if output.weights is not None:
        assert {tuple(weight.shape) for weight in output.weights.values()} == {(3, 1)}
        torch.testing.assert_close(sum(output.weights.values()), torch.ones(3, 1))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_parameter_learns_and_missing_values_are_not_read(operator):
    fused = model(fusion=operator).train()
    data = batch(lidar=[True, False, True], rgb=[True, True, False])
    answer = fused(data).logits
    (answer * torch.randn_like(answer)).sum().backward()
    assert [n for n, p in fused.named_parameters() if p.grad is None] == []
    fused.eval()
    other = {**data, "inputs": {n: v.clone() for n, v in data["inputs"].items()}}
    other["inputs"]["lidar"][1] = 1e3
    other["inputs"]["rgb"][2] = -1e3
    torch.testing.assert_close(fused(other).logits, fused(data).logits)


@pytest.mark.parametrize("operator", [Concat, Weighted, Gated])
def test_shares_are_one_number_per_sample(operator):
    shares = model(fusion=operator).eval().explain(batch(lidar=[True, False, True])).shares
    torch.testing.assert_close(sum(shares.values()), torch.ones(3))
    assert shares["rgb"][1].item() == pytest.approx(1)


def test_maps_of_another_resolution_are_aligned():
    coarse = Schema(
        MODALITIES | {"lidar": Modality(("x", "z"), 2.0)}, SCHEMA.classes, target="multiclass"
    )
    fused, data = model(coarse, fusion=Add).eval(), batch()
    data["inputs"]["lidar"] = torch.randn(3, 2, 16, 16)
    maps = fused.embed(data)
    assert {tuple(value.shape) for value in maps.values()} == {(3, 8, 4, 4)}
    assert fused(data).logits.shape == (3, 2)


def test_pooling_is_what_samples_are_answered_from_unless_told_otherwise():
    data = batch()
    pooled = model(pooled=None, head=LinearHead).eval()
    assert pooled.pooled
    assert pooled.embed(data)["rgb"].shape == (3, 8)
    # A head that averages decides the same either way, if fusing is linear.
    maps = model(head=LinearHead).eval()
    torch.testing.assert_close(maps(data).logits, pooled(data).logits)


def test_late_fusion_is_concatenation_of_flattened_embeddings():
    torch.manual_seed(0)
    late = model(
        experts=(VECTORS, VECTORS),
        pooled=None,
        head=partial(ClassificationHead, dim_list=[5]),
    ).eval()
    data = batch()
    flat = [late.expert(n).encoder(data["inputs"][n])[-1].flatten(1) for n in MODALITIES]
    torch.testing.assert_close(late(data).logits, late.head(torch.cat(flat, dim=1)))
    assert late.embedding_dim == 2 * 8 * 16


def test_values_of_whole_samples():
    fused = model(SPEEDS, fusion=Gated)
    assert fused.eval()(batch()).logits.shape == (3, 1)


@pytest.mark.parametrize("pooled", [True, False])
def test_stored_features_answer_as_fresh_ones_and_do_not_meet(pooled, tmp_path):
    def frozen(schema):
        expert = MAPS(schema)
        expert.freeze()
        return expert

    options = {
        "experts": (frozen, frozen),
        "pooled": pooled,
        "head": LinearHead,
        "fusion": Weighted,
    }
    stored = model(**options, cache=str(tmp_path)).eval()
    # The other kind of features of the same experts is in the same folder.
    other = model(**options | {"pooled": not pooled}, cache=str(tmp_path)).eval()
    other.load_state_dict(stored.state_dict())
    data = batch()
    before = other(data).logits
    first, again = stored(data).logits, stored(data).logits
    assert torch.equal(first, again)
    assert torch.equal(other(data).logits, before)
    assert len(list(tmp_path.rglob("*.npy"))) == 2 * 2 * 3
    plain = model(**options).eval()
    plain.load_state_dict(stored.state_dict())
    torch.testing.assert_close(plain(data).logits, first)


def test_a_description_builds_the_same_model():
    fused, data = model(fusion=MatMul).eval(), batch()
    twin = build(fused.describe(), ModelFactory, SCHEMA, where="a test").eval()
    twin.load_state_dict(fused.state_dict())
    assert torch.equal(twin(data).logits, fused(data).logits)
    assert not twin.pooled


def test_misfits_are_refused_when_built():
    with pytest.raises(InputError, match=r"FlattenHead takes maps.*Say `pooled: false`"):
        model(pooled=None)
    pixels = Schema(MODALITIES, SCHEMA.classes, gsd=1.0)
    with pytest.raises(InputError, match=r"'segmentation'.*Leave `pooled` out"):
        model(pixels, pooled=True, head=None)
    with pytest.raises(InputError, match=r"cannot use the expert 'lidar'.*'NC', not as maps"):
        model(experts=(MAPS, VECTORS))


def test_images_of_another_size_are_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"FlattenHead .*got \(3, 16, 8, 8\).*`size: \[8, 8\]`"):
        model()(batch(side=64))
