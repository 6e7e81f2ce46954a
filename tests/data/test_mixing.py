"""Mixing of samples: what it must not change, where pixels go, and what becomes of targets."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.data import CutMix, MixUp
from fusionlab.data.ground import ground
from fusionlab.data.mixing.plan import Plan
from fusionlab.data.samples import collate
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, Modality, Schema, TimeSeries

CLASSES = ("forest", "water", "sand")
KINDS = ("segmentation", "multiclass", "multilabel", "regression", "scalar_regression")
FINE, COARSE = 1.0, 4.0  # metres; the sample is 32 m wide, and the series shows 64 m of context
MODALITIES = {
    "aerial": Modality(("r", "g"), FINE),
    "radar": Modality(("vv",), COARSE),
    "series": Modality(("b",), COARSE, temporal=True),
    "codes": Modality(("cover",), FINE),
    "caption": Modality((), kind="text"),
    "site": Modality(("height", "soil"), kind="table", categories={"soil": ("a", "b", "c")}),
    "weather": Modality(("rain",), temporal=True, kind="series"),
}


def schema(kind="multiclass"):
    names = {"variables": ("x", "y")} if "regression" in kind else {"classes": CLASSES}
    return Schema(MODALITIES, target=kind, gsd=FINE if kind in KINDS[::3] else None, **names)


def target(kind, index):
    if kind == "segmentation":
        mask = torch.full((32, 32), index % 3)
        mask[:3] = IGNORE_INDEX
        return mask
    if kind == "multiclass":
        return torch.tensor(index % 3)
    if kind == "multilabel":
        return torch.tensor([1.0, index % 2, 0.0])
    values = torch.tensor([float(index), -1.0])
    return values[:, None, None].expand(2, 32, 32).clone() if kind == "regression" else values


def sample(kind, index):
    """Every number of a sample is its index, so that what is mixed tells where it came from."""
    value = float(index)
    dates = torch.tensor([10, 20]) + index % 2  # of every other sample
    series = TimeSeries(torch.full((2, 1, 16, 16), index).to(torch.uint16), dates, dates > 0)
    weather = TimeSeries(torch.full((2, 1), value), torch.tensor([1, 8]), torch.ones(2).bool())
    return {
        "inputs": {
            "aerial": torch.full((2, 32, 32), index, dtype=torch.uint8),
            "radar": torch.full((1, 8, 8), value, dtype=torch.float64),
            "series": series,
            "codes": torch.full((1, 32, 32), index),
            "caption": f"sample {index}",
            "site": torch.tensor([value, float(index % 3)]),
            "weather": weather,
        },
        "available": {name: torch.tensor(True) for name in MODALITIES},
        "cloud_cover": {"series": torch.full((1, 16, 16), value / 10)},
        "target": target(kind, index),
        "sample_id": str(index),
    }


def batch(kind="multiclass", size=6):
    return collate([sample(kind, i) for i in range(size)])


class Shares:
    """Stands in for the draw of shares."""

    def __init__(self, *values):
        self.values = values

    def __call__(self, number):
        return torch.tensor(self.values * number)[:number].float()


def mixing(make, *shares):
    made = make()
    if shares:
        made.shares = Shares(*shares)
    return made


def planned(mix, given, schema):
    """The plan that was drawn, and the mixed batch."""
    drawn = mix.plan(given, schema)
    plan = next(v for v in drawn.values() if isinstance(v, Plan))
    return plan, mix.apply(drawn, schema)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, TimeSeries):
        return all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_a_share_of_one_changes_nothing_at_all(make, kind):
    given = batch(kind)
    assert mixing(make, 1.0)(given, schema(kind)) is given
    assert same(given, batch(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_samples_of_share_one_stay_among_others(make, kind):
    torch.manual_seed(1)
    given = batch(kind)
    for name in ("aerial", "radar"):
        given["inputs"][name] = given["inputs"][name].float()
    given["inputs"]["radar"][0, 0, 0] = float("nan")
    mixed = mixing(make, 1.0, 0.3, 0.3)(given, schema(kind))
    for name in ("aerial", "radar", "site", "codes"):
        for i in (0, 3):
            torch.testing.assert_close(
                mixed["inputs"][name][i], given["inputs"][name][i],
                rtol=0, atol=0, equal_nan=True,
            )  # fmt: skip
            assert mixed["inputs"]["caption"][i] == f"sample {i}"
            assert mixed["inputs"]["series"].values[i].eq(i).all()
    if kind == "segmentation" and make is MixUp:
        assert torch.equal(mixed["target"][0].argmax(0)[3:], given["target"][0][3:])
        assert not mixed["target"][0, :, :3].any()
    elif kind == "multiclass":
        assert mixed["target"][0].tolist() == [1, 0, 0]
    else:
        assert torch.equal(mixed["target"][0], given["target"][0])


@given(st.integers(0, 10_000), st.sampled_from([MixUp, CutMix]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_shares_sum_to_one_or_are_unknown(seed, make, pixels):
    torch.manual_seed(seed)
    kind = "segmentation" if pixels else "multiclass"
    given = batch(kind)
    mixed = make(1.0)(given, schema(kind))["target"]
    if not make(1.0).softens(kind) or mixed is given["target"]:
        assert mixed.dtype == torch.int64
        return
    assert mixed.dtype == torch.float32
    assert (mixed >= 0).all()
    total = mixed.sum(dim=1)
    if pixels:
        assert not total[:, :3].any()
        total = total[:, 3:]
    torch.testing.assert_close(total, torch.ones_like(total))


def test_mixup_interpolates_numbers_and_takes_the_rest_from_the_larger_share():
    torch.manual_seed(0)
    plan, mixed = planned(mixing(MixUp, 0.8, 0.3), given := batch(), schema())
    own, other, share = torch.arange(6.0), plan.partner.float(), plan.share
    assert sorted(plan.partner.tolist()) == list(range(6))
    mixable = own != other
    assert torch.equal(share, torch.where(mixable, torch.tensor([0.8, 0.3]).repeat(3), 1.0))
    between, larger = share * own + (1 - share) * other, torch.where(share >= 0.5, own, other)
    inputs = mixed["inputs"]
    for name in ("aerial", "radar"):
        assert inputs[name].dtype == torch.float32
        torch.testing.assert_close(inputs[name].flatten(1)[:, 0], between)
        assert inputs[name].flatten(1).std(dim=1).max() < 1e-6
    torch.testing.assert_close(inputs["site"][:, 0], between)
    assert torch.equal(inputs["site"][:, 1], larger % 3)  # categories are no numbers
    torch.testing.assert_close(inputs["weather"].values[:, 0, 0], between)
    assert torch.equal(inputs["codes"][:, 0, 0, 0], larger.long())
    assert inputs["caption"] == [f"sample {int(i)}" for i in larger]
    together = own % 2 == other % 2
    assert together[mixable].any()
    assert not together.all()
    torch.testing.assert_close(
        inputs["series"].values.flatten(1)[:, 0], torch.where(together, between, larger)
    )
    assert torch.equal(inputs["series"].dates[:, 0], (10 + larger % 2).long())
    torch.testing.assert_close(
        mixed["cloud_cover"]["series"][:, 0, 0, 0], torch.where(together, between, larger) / 10
    )
    hot = torch.eye(3)[given["target"]]
    expected = share[:, None] * hot + (1 - share[:, None]) * hot[plan.partner]
    torch.testing.assert_close(mixed["target"], expected)
    assert same(given, batch())


def test_several_classes_and_values_are_interpolated():
    for kind in ("multilabel", "regression", "scalar_regression"):
        torch.manual_seed(0)
        plan, mixed = planned(mixing(MixUp, 0.7), given := batch(kind), schema(kind))
        share = plan.share.reshape(-1, *[1] * (given["target"].ndim - 1))
        expected = share * given["target"] + (1 - share) * given["target"][plan.partner]
        torch.testing.assert_close(mixed["target"], expected)


def test_numbers_that_one_of_the_two_lacks():
    torch.manual_seed(0)
    given = batch("scalar_regression", 2)
    given["inputs"]["site"][0, 0] = float("nan")
    given["inputs"]["radar"][1, 0, 0, 0] = float("nan")
    given["target"][0, 1] = float("nan")
    mix, swapped = mixing(MixUp, 0.9), torch.tensor([1, 0])
    while True:
        plan, mixed = planned(mix, given, schema("scalar_regression"))
        if torch.equal(plan.partner, swapped):
            break
    assert mixed["inputs"]["site"][0, 0].isnan()  # the larger share has none
    assert mixed["inputs"]["site"][1, 0] == 1
    assert mixed["inputs"]["radar"][0, 0, 0, 0] == 0
    assert mixed["inputs"]["radar"][1, 0, 0, 0].isnan()
    assert mixed["inputs"]["radar"][:, 0, 1].isfinite().all()
    assert mixed["target"].isnan().tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_samples_that_do_not_go_together_stay_as_they_are(make):
    torch.manual_seed(0)
    given = batch(size=8)
    given["available"]["radar"][::2] = False
    given["target"][3] = IGNORE_INDEX
    given["offset"] = {"series": torch.zeros(8, 2)}
    given["offset"]["series"][5] = 2.0
    mixed_once = set()
    for _ in range(40):
        drawn = mixing(make, 0.4).plan(given, schema())
        plan = next((v for v in drawn.values() if isinstance(v, Plan)), None)
        if plan is not None:
            for i in (plan.share < 1).nonzero().flatten().tolist():
                mixed_once.add(frozenset({i, plan.partner[i].item()}))
    assert mixed_once == {
        frozenset({a, b}) for a in (0, 2, 4, 6) for b in (0, 2, 4, 6) if a < b
    } | {frozenset({1, 7})}


def painted(kind="segmentation", size=2):
    """A batch whose first sample is 0 everywhere, and all others 1, the context included."""
    given = batch(kind, size)
    for i in range(size):
        for name in ("aerial", "radar", "codes"):
            given["inputs"][name][i] = int(i > 0)
        given["inputs"]["series"].values[i] = torch.full((2, 1, 16, 16), int(i > 0)).to(
            torch.uint16
        )
        given["inputs"]["series"].dates[i] = torch.tensor([10, 20])
        if kind == "segmentation":
            given["target"][i] = int(i > 0)
    return given


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.4, 0.75]))
@settings(max_examples=30, deadline=None)
def test_cutmix_pastes_the_same_window_on_the_ground_at_every_resolution(seed, share):
    torch.manual_seed(seed)
    given, kind = painted(), "segmentation"
    drawn = mixing(CutMix, share).plan(given, schema(kind))
    plan = next((v for v in drawn.values() if isinstance(v, Plan)), None)
    if plan is None or plan.partner[0] != 1:
        return
    mixed = mixing(CutMix).apply(drawn, schema(kind))
    aerial = mixed["inputs"]["aerial"][0, 0]
    assert set(aerial.unique().tolist()) <= {0.0, 1.0}
    radar = mixed["inputs"]["radar"][0, 0]
    assert torch.equal(radar.repeat_interleave(4, 0).repeat_interleave(4, 1), aerial)
    assert torch.equal(mixed["inputs"]["codes"][0, 0], aerial.long())
    assert torch.equal(mixed["target"][0], aerial.long())
    for date in mixed["inputs"]["series"].values[0]:
        assert torch.equal(date[0, 4:12, 4:12], radar)  # of 64 m, the sample is the middle
        assert date.sum() == radar.sum()
    assert plan.share[0].item() == pytest.approx(1 - aerial.mean().item())
    torch.testing.assert_close(
        mixed["inputs"]["weather"].values[0, 0, 0], 1 - plan.share[0], rtol=1e-6, atol=1e-6
    )


def test_cutmix_of_whole_samples_weighs_them_by_the_area():
    torch.manual_seed(3)
    given = painted("multiclass", 8)
    plan, mixed = planned(mixing(CutMix, 0.5), given, schema())
    pasted = mixed["inputs"]["aerial"][:, 0].mean(dim=(1, 2))
    value = (torch.arange(8) > 0).float()
    expected = plan.share * value + (1 - plan.share) * value[plan.partner]
    torch.testing.assert_close(pasted, expected)
    hot = torch.eye(3)[given["target"]]
    torch.testing.assert_close(
        mixed["target"], plan.share[:, None] * hot + (1 - plan.share[:, None]) * hot[plan.partner]
    )
    assert 0.4 < plan.share[plan.share < 1].mean() < 0.85  # what would stick out is cut off


def test_a_window_moves_with_the_place_of_the_sample_in_an_image():
    torch.manual_seed(0)
    given = painted()
    given["offset"] = {"series": torch.tensor([[1.0, -2.0]]).expand(2, 2)}
    while True:
        plan, mixed = planned(mixing(CutMix, 0.5), given, schema("segmentation"))
        if plan.partner[0] == 1:
            break
    radar = mixed["inputs"]["radar"][0, 0]
    date = mixed["inputs"]["series"].values[0, 0, 0]
    assert torch.equal(date[5:13, 2:10], radar)
    assert date.sum() == radar.sum() > 0


def test_grids_that_do_not_nest_get_the_window_within_a_pixel():
    """An aerial image of 0.2 m and Sentinel-2 of 10 m around it, as in FLAIR #2."""
    modalities = {"aerial": Modality(("r",), 0.2), "s2": Modality(("b",), 10.0)}
    flair = Schema(modalities, CLASSES, gsd=0.2)
    given = {
        "inputs": {"aerial": torch.zeros(4, 1, 512, 512), "s2": torch.zeros(4, 1, 40, 40)},
        "available": {name: torch.ones(4).bool() for name in modalities},
        "target": torch.zeros(4, 512, 512, dtype=torch.int64),
    }
    torch.manual_seed(0)
    plan, _ = planned(mixing(CutMix, 0.5), given, flair)
    assert torch.equal(plan.windows["aerial"], plan.target_window)
    fine, coarse = ((plan.windows[n] - half) * gsd for n, half, gsd in
                    (("aerial", 256, 0.2), ("s2", 20, 10.0)))  # fmt: skip
    inside = coarse.abs() < 51
    assert inside.any()
    torch.testing.assert_close(fine[inside].float(), coarse[inside].float(), atol=0.11, rtol=0)


def test_of_coarse_images_those_with_some_pixels_decide():
    laid = ground({"aerial": (32, 32), "point": (1, 1), "s2": (4, 4)})
    assert laid.coarsest().size == (1, 1)
    assert laid.coarsest(4).size == (4, 4)
    assert laid.coarsest(100).size == laid.finest.size == (32, 32)
    assert ground({}) is None


@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_draws_from_the_generator_and_can_be_pickled(make):
    mix = pickle.loads(pickle.dumps(make()))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(mix(batch("segmentation"), schema("segmentation")))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_a_batch_is_mixed_by_chance():
    torch.manual_seed(0)
    given = batch()
    kept = [MixUp(probability=0.3)(given, schema()) is given for _ in range(300)]
    assert 180 < sum(kept) < 240
    lonely = batch(size=1)
    assert MixUp()(lonely, schema()) is lonely


def test_shares_follow_the_beta_distribution():
    torch.manual_seed(0)
    for make, variance in ((MixUp, 1 / (4 * (2 * 0.4 + 1))), (CutMix, 1 / 12)):
        drawn = make().shares(20_000)
        assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
        assert drawn.var().item() == pytest.approx(variance, abs=0.005)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixUp(0.0), "alpha of MixUp must be above 0"),
        (lambda: CutMix(float("nan")), "alpha of CutMix must be above 0"),
        (lambda: MixUp(probability=1.5), r"probability of MixUp lies in \[0, 1\]"),
        (lambda: MixUp().require(Schema(MODALITIES)), "the data have no target"),
        (
            lambda: CutMix().require(Schema({"caption": MODALITIES["caption"]}, CLASSES)),
            r"deliver none: \['caption'\]. Use MixUp",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
