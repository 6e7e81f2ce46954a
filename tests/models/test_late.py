from functools import partial

import pytest
import torch
from small_models import ConstantExpert, PixelExpert

from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert
from fusionlab.fusion import Average, ClassWeighted, Concat, Gated
from fusionlab.models import Footprint, LateFusion
from fusionlab.types import Modality, Schema, TimeSeries

SCHEMA = Schema(
    {
        "aerial": Modality(("r", "g"), 1.0),
        "s2": Modality(("x", "y", "z"), 10.0, temporal=True),
        "dem": Modality(("h",), 2.0),
    },
    ("wood", "road", "water"),
    gsd=1.0,
)


def batch(size: int = 3, seed: int = 0, **available):
    random = torch.Generator().manual_seed(seed)
    there = {name: torch.ones(size, dtype=torch.bool) for name in SCHEMA.modalities}
    there |= {name: torch.tensor(value) for name, value in available.items()}
    return {
        "inputs": {
            "aerial": torch.randint(0, 255, (size, 2, 20, 20), generator=random).byte(),
            "s2": TimeSeries(
                torch.rand(size, 4, 3, 6, 6, generator=random),
                torch.arange(4).expand(size, 4),
                torch.ones(size, 4, dtype=torch.bool),
            ),
            "dem": torch.rand(size, 1, 16, 16, generator=random),
        },
        "available": there,
    }


def late(fusion=Average, names=("aerial", "s2"), **options) -> LateFusion:
    torch.manual_seed(0)
    return LateFusion(
        SCHEMA, experts={n: PixelExpert for n in names}, fusion=fusion, **options
    ).eval()


def test_the_finest_expert_gives_the_grid():
    model = late(names=("s2", "dem", "aerial"))
    assert model.reference == "aerial"
    assert model(batch()).logits.shape == (3, 3, 20, 20)
    assert late(names=("s2", "dem")).reference == "dem"
    assert late(reference="s2", alignment=Footprint)(batch()).logits.shape == (3, 3, 6, 6)


def test_the_steps_are_separable():
    model = late(ClassWeighted)
    data = batch()
    stored = {name: logits.half() for name, logits in model.decide(data).items()}
    torch.testing.assert_close(
        model.fuse(stored, data).logits, model(data).logits, atol=2e-3, rtol=1e-2
    )


@pytest.mark.parametrize("fusion", [Average, ClassWeighted, Gated, Concat])
def test_a_missing_modality_equals_the_model_without_it(fusion):
    model = late(fusion)
    answer = model(batch(s2=[True, False, True])).logits
    alone = model.expert("aerial")(batch()).logits
    torch.testing.assert_close(answer[1], alone[1])
    assert not torch.allclose(answer[0], alone[0])


@pytest.mark.parametrize("fusion", [Average, ClassWeighted, Gated, Concat])
def test_shares_sum_to_one_and_fall_on_who_is_there(fusion):
    model = late(fusion, names=("aerial", "s2", "dem"))
    output, shares = model.explain(batch(s2=[True, False, False], dem=[True, True, False]))
    torch.testing.assert_close(
        output.logits, model(batch(s2=[True, False, False], dem=[True, True, False])).logits
    )
    total = torch.stack(list(shares.values())).sum(0)
    torch.testing.assert_close(total, torch.ones(3, 20, 20))
    assert (shares["s2"][1:] == 0).all()
    assert (shares["dem"][2] == 0).all()


def test_cloud_cover_reaches_the_gate_on_the_common_grid():
    model = late(partial(Gated, cloud_cover="s2"))
    data = batch()
    clear = model({**data, "cloud_cover": {"s2": torch.zeros(3, 1, 6, 6)}}).logits
    cloudy = model({**data, "cloud_cover": {"s2": torch.ones(3, 1, 6, 6)}}).logits
    assert not torch.allclose(clear, cloudy)


def test_experts_must_share_the_classes():
    def other(schema):
        return ConstantExpert(Schema(schema.modalities, ("a", "b")))

    with pytest.raises(InputError, match=r"'s2' answers 2 classes.*data have 3"):
        LateFusion(SCHEMA, experts={"aerial": PixelExpert, "s2": other})
    with pytest.raises(InputError, match=r"reference 'x' is none of"):
        late(reference="x")


def test_only_the_fusion_trains_over_frozen_experts():
    frozen = {
        name: partial(FrozenExpert, expert=PixelExpert, trained_on=SCHEMA.only(name).to_dict())
        for name in ("aerial", "s2")
    }
    model = LateFusion(SCHEMA, experts=frozen, fusion=Gated)
    before = {k: v.clone() for k, v in model.experts.state_dict().items()}
    model.train()
    assert not any(m.training for e in model.experts.values() for m in e.expert.modules())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for seed in range(3):
        model(batch(seed=seed)).logits.square().mean().backward()
        optimizer.step()
    after = model.experts.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {n for n, _ in model.named_parameters() if n.startswith("fusion.")}
