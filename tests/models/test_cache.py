from functools import partial

import pytest
import torch
from small_models import PixelExpert
from test_late import SCHEMA, batch

from fusionlab.experts import FrozenExpert
from fusionlab.fusion import Average
from fusionlab.models import LateFusion


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
