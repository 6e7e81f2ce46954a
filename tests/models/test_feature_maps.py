"""FeatureFusion for targets per pixel: maps of experts, aligned, fused and decided on."""

from functools import partial

import pytest
import torch

from fusionlab.errors import InputError
from fusionlab.experts import EncoderDecoder, UNetFormer
from fusionlab.fusion.features import Attention, Concat, Gated, Projection, Weighted
from fusionlab.heads import LinearHead, RegressionHead, SegmentationHead
from fusionlab.models import CentreCrop, FeatureFusion
from fusionlab.types import Modality, Schema

MODALITIES = {
    "aerial": Modality(("r", "g", "b"), 1.0),
    "s2": Modality(("B02", "B08"), 10.0),
}
SCHEMA = Schema(MODALITIES, ("wood", "road", "water"), gsd=1.0)
HEIGHTS = Schema(MODALITIES, variables=("height",), units=("m",), gsd=1.0, target="regression")
FINE = partial(EncoderDecoder, backbone="test_resnet", decoder={"name": "UperNet", "channels": 8})
COARSE = partial(EncoderDecoder, backbone="test_vit", stage="backbone")


def batch(missing=(), size=2):
    available = {n: torch.ones(size, dtype=torch.bool) for n in MODALITIES}
    for name, i in missing:
        available[name][i] = False
    return {
        "inputs": {"aerial": torch.randn(size, 3, 80, 120), "s2": torch.randn(size, 2, 16, 24)},
        "available": available,
        "target": torch.zeros(size, 80, 120, dtype=torch.long),
    }


def model(schema=SCHEMA, **options):
    torch.manual_seed(0)
    options = {"experts": {"aerial": FINE, "s2": COARSE}} | options
    return FeatureFusion(schema, **options)


@pytest.mark.parametrize("operator", [Concat, Weighted, Projection, Attention, Gated])
def test_answers_lie_on_the_finest_image(operator):
    fused = model(fusion=operator).eval()
    output = fused(batch())
    assert output.logits.shape == (2, 3, 80, 120)
    assert (fused.gsd, fused.reference) == (1.0, "aerial")
    assert output.embeddings is None
    if output.weights is not None:
        total = sum(weight.expand(2, 1, 80, 120) for weight in output.weights.values())
        torch.testing.assert_close(total, torch.ones(2, 1, 80, 120))


@pytest.mark.parametrize("operator", [Concat, Weighted, Projection, Attention, Gated])
def test_every_parameter_learns(operator):
    fused = model(fusion=operator).train()
    (fused(batch()).logits * torch.randn(2, 3, 80, 120)).sum().backward()
    assert [n for n, p in fused.named_parameters() if p.grad is None] == []


def test_heads_follow_the_target():
    assert isinstance(model().head, SegmentationHead)
    heights = model(HEIGHTS)
    assert isinstance(heights.head, RegressionHead)
    assert heights.eval()(batch()).logits.shape == (2, 1, 80, 120)
    with pytest.raises(InputError, match=r"LinearHead answers .* every sample.*SegmentationHead"):
        model(head=LinearHead)
    with pytest.raises(InputError, match=r"values .*SegmentationHead answers classes.*Regression"):
        model(HEIGHTS, head=SegmentationHead)


@pytest.mark.parametrize("operator", [Concat, Weighted, Attention, Gated])
def test_what_stands_in_a_missing_place_does_not_matter(operator):
    fused = model(fusion=operator).eval()
    first = batch(missing=[("s2", 1)])
    other = dict(first, inputs=first["inputs"] | {"s2": first["inputs"]["s2"].clone()})
    other["inputs"]["s2"][1] = 1e3
    torch.testing.assert_close(fused(first).logits, fused(other).logits)


def test_a_coarse_map_is_put_where_it_belongs():
    """A blob of the coarse expert appears at the same place of the ground on the fine grid."""

    class Bright(EncoderDecoder):
        def features(self, values, *, pooled=True):
            return values[:, :1, ::2, ::2]  # 20 m

        embedding_dim = 1

    fused = model(
        experts={"aerial": FINE, "s2": partial(Bright, backbone="test_vit", stage="backbone")}
    ).eval()
    data = batch()
    data["inputs"]["s2"].zero_()
    # 16 x 24 pixels of 10 m around 80 x 120 m: rows 4..12, columns 6..18 lie inside.
    data["inputs"]["s2"][:, 0, 4, 6] = 1.0
    maps = fused.embed(data)
    assert maps["s2"].shape[-2:] == maps["aerial"].shape[-2:]
    rows, columns = maps["s2"].shape[-2:]
    peak = maps["s2"][0, 0].flatten().argmax().item()
    metres = (peak // columns + 0.5) * 80 / rows, (peak % columns + 0.5) * 120 / columns
    # The cell covers 0..20 m of both axes.
    assert abs(metres[0] - 10) <= 80 / rows
    assert abs(metres[1] - 10) <= 120 / columns


def test_another_alignment_and_reference():
    assert model(alignment=CentreCrop).eval()(batch()).logits.shape == (2, 3, 80, 120)
    fused = model(reference="s2").eval()
    assert fused(batch()).logits.shape == (2, 3, 16, 24)
    assert fused.gsd == 10.0


@pytest.mark.parametrize("operator", [Concat, Attention])
def test_shares_per_pixel(operator):
    fused = model(fusion=operator).eval()
    explained = fused.explain(batch(missing=[("s2", 0)]))
    total = torch.stack([s.expand(2, 80, 120) for s in explained.shares.values()]).sum(0)
    torch.testing.assert_close(total, torch.ones(2, 80, 120))
    assert (explained.shares["aerial"].expand(2, 80, 120)[0] == 1).all()


def test_an_expert_without_feature_maps():
    with pytest.raises(InputError, match=r"cannot use the expert 'aerial'.*LateFusion"):
        model(experts={"aerial": partial(UNetFormer, backbone="resnet18"), "s2": COARSE})


def test_stored_maps_answer_as_fresh_ones(tmp_path):
    def frozen(schema, part):
        expert = part(schema)
        expert.freeze()
        return expert

    experts = {"aerial": partial(frozen, part=FINE), "s2": partial(frozen, part=COARSE)}
    torch.manual_seed(0)
    plain = FeatureFusion(SCHEMA, experts=experts).eval()
    torch.manual_seed(0)
    stored = FeatureFusion(SCHEMA, experts=experts, cache=str(tmp_path)).eval()
    stored.load_state_dict(plain.state_dict())
    data = batch()
    first, second = stored(data).logits, stored(data).logits
    torch.testing.assert_close(first, plain(data).logits)
    assert torch.equal(first, second)
    assert len(list(tmp_path.rglob("*.npy"))) == 4
