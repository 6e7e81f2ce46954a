from functools import partial
from hashlib import blake2b

import numpy as np
import pytest
import torch
from embedding_experts import PooledExpert, save_expert
from small_models import PixelExpert
from test_late import SCHEMA, batch

from fusionlab.checkpoints import fingerprint
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert
from fusionlab.fusion import Average
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.models.cache import AnswerCache
from fusionlab.types import Schema


@pytest.fixture
def model(tmp_path) -> LateFusion:
    experts = {}
    for name in ("aerial", "s2"):
        expert = PixelExpert(SCHEMA.only(name)).eval()
        path = tmp_path / f"{name}.ckpt"
        torch.save(
            {
                "state_dict": {f"model.{k}": v for k, v in expert.state_dict().items()},
                "hyper_parameters": {
                    "model": expert.describe(), "trained_on": SCHEMA.only(name).to_dict()
                },
            },
            path,
        )  # fmt: skip
        experts[name] = partial(FrozenExpert, checkpoint=str(path))
    return LateFusion(SCHEMA, experts=experts, fusion=Average, cache=str(tmp_path / "cache")).eval()


def count_asked(model: LateFusion, monkeypatch) -> list[int]:
    asked = []
    expert = model.expert("s2")
    original = expert.logits
    monkeypatch.setattr(expert, "logits", lambda v: (asked.append(len(v.dates)), original(v))[1])
    return asked


def test_an_expert_is_asked_once_for_a_sample(model, monkeypatch):
    asked = count_asked(model, monkeypatch)
    data = batch(size=3)
    first, again = model(data).logits, model(data).logits
    assert asked == [3]
    assert torch.equal(first, again)
    cache, model.cache = model.cache, None
    torch.testing.assert_close(model(data).logits, first, atol=2e-3, rtol=2e-3)
    model.cache = cache
    # Two known samples in another order, and a new one, with one padded date more.
    new = batch(size=1, seed=5)
    series = data["inputs"]["s2"]
    mixed = batch(size=3)
    for key in ("aerial",):
        mixed["inputs"][key] = torch.cat([data["inputs"][key][[2, 0]], new["inputs"][key]])
    joined = [torch.cat([a[[2, 0]], b]) for a, b in zip(series, new["inputs"]["s2"], strict=True)]
    padded = [torch.cat([part, torch.zeros_like(part[:, :1])], dim=1) for part in joined]
    mixed["inputs"]["s2"] = type(series)(*padded)
    asked.clear()
    answer = model(mixed).logits
    assert asked == [1]
    assert torch.equal(answer[:2], first[[2, 0]])


def test_changed_input_and_changed_experts_are_asked_again(model, tmp_path, monkeypatch):
    data = batch(size=2)
    model(data)
    asked = count_asked(model, monkeypatch)
    data["inputs"]["s2"].values[0, 0, 0, 0, 0] += 1
    model(data)
    assert asked == [1]
    # The same file name, other weights: another expert.
    content = torch.load(tmp_path / "s2.ckpt", weights_only=True)
    content["state_dict"]["model.layers.0.weight"] += 1
    torch.save(content, tmp_path / "s2.ckpt")
    retrained = LateFusion(
        SCHEMA,
        experts={n: partial(FrozenExpert, checkpoint=str(tmp_path / f"{n}.ckpt"))
                 for n in ("aerial", "s2")},
        cache=str(tmp_path / "cache"),
    ).eval()  # fmt: skip
    asked = count_asked(retrained, monkeypatch)
    retrained(data)
    assert asked == [2]


def test_experts_in_training_are_never_stored(tmp_path):
    model = LateFusion(
        SCHEMA, experts={"aerial": PixelExpert, "s2": PixelExpert}, cache=str(tmp_path / "cache")
    )
    model(batch())
    assert not (tmp_path / "cache").exists()


def test_the_checkpoint_does_not_carry_the_cache(model):
    assert "cache" not in model.describe()["init_args"]


VECTORS = Schema(SCHEMA.modalities, SCHEMA.classes, target="multilabel")


class FixedBody(PooledExpert):
    """Frozen without being a FrozenExpert: its features no longer change."""

    def __init__(self, schema: Schema, **options) -> None:
        super().__init__(schema, **options)
        self.body.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        self.body.eval()
        return self

    def fingerprint(self) -> str | None:
        return fingerprint(self.body.state_dict())


@pytest.fixture
def checkpoint(tmp_path) -> str:
    torch.manual_seed(0)
    own = VECTORS.only("s2")
    return save_expert(PooledExpert(own).eval(), tmp_path / "s2.ckpt", own)


def feature_model(checkpoint, tmp_path, **experts) -> FeatureFusion:
    torch.manual_seed(0)
    chosen = {"s2": partial(FrozenExpert, checkpoint=checkpoint), "aerial": FixedBody, **experts}
    return FeatureFusion(VECTORS, experts=chosen, cache=str(tmp_path / "cache"))


def asked_for_features(expert, monkeypatch) -> list[int]:
    asked = []
    original = expert.features

    def features(values, **options):
        asked.append(len(values if isinstance(values, torch.Tensor) else values.dates))
        return original(values, **options)

    monkeypatch.setattr(expert, "features", features)
    return asked


def test_features_are_stored_exactly_in_training_too(checkpoint, tmp_path, monkeypatch):
    model = feature_model(checkpoint, tmp_path).train()
    asked = {n: asked_for_features(model.expert(n), monkeypatch) for n in ("s2", "aerial")}
    data = batch(size=3, s2=[True, False, True])
    first = model.embed(data)
    again = model.embed(data)
    assert asked == {"s2": [3], "aerial": [3]}
    cache, model.cache = model.cache, None
    for name, embedding in model.eval().embed(data).items():
        assert torch.equal(first[name], embedding)  # float32: nothing is lost
        assert torch.equal(again[name], embedding)
    # Another model over the same experts finds them, one over others does not.
    model.cache = cache
    other = feature_model(checkpoint, tmp_path)
    asked = {n: asked_for_features(other.expert(n), monkeypatch) for n in ("s2", "aerial")}
    other.embed(data)
    assert asked == {"s2": [], "aerial": []}
    with torch.no_grad():
        other.expert("aerial").body[0].weight += 1
    other.embed(data)
    assert asked == {"s2": [], "aerial": [3]}


@pytest.mark.parametrize(
    ("question", "dtype", "shape"), [("logits", "float32", (3,)), ("embedding", "float32", (6,))]
)
def test_vectors_come_back_as_they_were(checkpoint, tmp_path, question, dtype, shape):
    expert = FrozenExpert(VECTORS, checkpoint=checkpoint)
    answers = {"logits": expert.logits, "embedding": expert.features}
    expected = answers[question](batch()["inputs"]["s2"])
    for _ in range(2):  # asked, and from the store
        answer = AnswerCache(tmp_path).ask(expert, batch(), question)
        assert torch.equal(answer, expected)
    for path in tmp_path.rglob("*.npy"):
        assert (np.load(path).dtype, np.load(path).shape) == (dtype, shape)


def test_maps_of_logits_are_kept_in_half_the_space(model, tmp_path):
    first, again = model(batch()).logits, model(batch()).logits
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    stored = [np.load(path) for path in (tmp_path / "cache").rglob("*.npy")]
    assert len(stored) == 6
    assert {(array.dtype.name, array.ndim) for array in stored} == {("float16", 3)}


def test_logits_and_features_do_not_meet(checkpoint, tmp_path):
    expert = FrozenExpert(VECTORS, checkpoint=checkpoint)
    cache = AnswerCache(tmp_path / "cache")
    data = batch()
    logits = cache.ask(expert, data, "logits")
    features = cache.ask(expert, data, "embedding")
    series = data["inputs"]["s2"]
    assert torch.equal(logits, expert.logits(series))
    assert torch.equal(features, expert.features(series))


def test_weights_loaded_later_make_another_expert(checkpoint, tmp_path, monkeypatch):
    model = feature_model(checkpoint, tmp_path).eval()
    data = batch()
    model.embed(data)
    state = {k: v + 1 if k.endswith("body.0.weight") else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    asked = asked_for_features(model.expert("s2"), monkeypatch)
    model.embed(data)
    assert asked == [3]


def test_statistics_of_other_data_make_another_answer(tmp_path, monkeypatch):
    """As when an expert restored with its own mean and std meets data that publish others."""
    expert = FixedBody(VECTORS.only("aerial"))
    cache = AnswerCache(tmp_path / "cache")
    first = cache.ask(expert, batch(), "embedding")
    expert.inputs.mean += 50
    second = cache.ask(expert, batch(), "embedding")
    assert not torch.allclose(second, first)
    expert.inputs.limit(0, 60)
    assert not torch.allclose(cache.ask(expert, batch(), "embedding"), second)


def test_answers_in_half_precision_are_kept_apart(checkpoint, tmp_path):
    expert = FrozenExpert(VECTORS, checkpoint=checkpoint)
    cache = AnswerCache(tmp_path / "cache")
    with torch.autocast("cpu", torch.bfloat16):
        half = cache.ask(expert, batch(), "embedding")
    full = cache.ask(expert, batch(), "embedding")
    assert not torch.equal(half, full)
    assert torch.equal(full, expert.features(batch()["inputs"]["s2"]))


def test_what_may_still_change_is_not_kept(checkpoint, tmp_path):
    model = feature_model(checkpoint, tmp_path, aerial=PooledExpert)
    drifting = FrozenExpert(VECTORS, checkpoint=checkpoint, evaluate=False)
    cache = AnswerCache(tmp_path / "cache")
    assert [cache.keeps(e) for e in (model.expert("s2"), model.expert("aerial"), drifting)] == [
        True,
        False,
        False,
    ]
    with pytest.raises(InputError, match="may still change"):
        cache.ask(model.expert("aerial"), batch(), "embedding")
    model.train()(batch()).logits.sum().backward()
    assert all(p.grad is not None for p in model.expert("aerial").parameters())


def test_a_fingerprint_is_of_names_types_and_values():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    same = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    same.load_state_dict(layer.state_dict())
    before = fingerprint(layer.state_dict())
    assert fingerprint(same.state_dict()) == before
    assert len(before) == blake2b(digest_size=16).digest_size * 2
    assert fingerprint(same.bfloat16().state_dict()) != before
    with torch.no_grad():
        layer[1].running_mean[0] = 1e-3  # a statistic that drifted
    assert fingerprint(layer.state_dict()) != before
    assert fingerprint(torch.nn.ModuleList(layer).state_dict()) == fingerprint(layer.state_dict())
