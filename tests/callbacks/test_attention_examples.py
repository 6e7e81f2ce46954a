"""Pictures of where a model looks, drawn from what an evaluation hands on."""

from functools import partial

import numpy as np
import pytest
import torch
from contrastive_pairs import CLASSES, SceneDataModule, schema, trainer
from matplotlib.image import imread
from token_experts import PatchExpert, WordExpert

from fusionlab.callbacks import AttentionExamples
from fusionlab.experts import Expert
from fusionlab.fusion.features import Concat, CrossAttention
from fusionlab.models import FeatureFusion
from fusionlab.tasks import ClassificationTask

EXPERTS = {"image": PatchExpert, "radar": PatchExpert, "caption": WordExpert}


def task(names=("image", "caption"), fusion=CrossAttention) -> ClassificationTask:
    torch.manual_seed(0)
    options = {"width": 8, "heads": 2} if fusion is CrossAttention else {}
    model = partial(
        FeatureFusion,
        experts={name: EXPERTS[name] for name in names},
        fusion=partial(fusion, **options),
    )
    return ClassificationTask(schema(tuple(names)), model)


def evaluated(folder, made, stage="validate", **options):
    """The callback and the attention of the whole evaluation."""
    callback = AttentionExamples(folder, **options)
    data = SceneDataModule(modalities=list(made.model.experts), places=False)
    kept = []
    draw = callback._draw
    callback._draw = lambda *args: (kept.extend(callback._samples), draw(*args))
    getattr(trainer(folder, callbacks=[callback]), stage)(made, data, verbose=False)
    return kept


def test_weights_are_means_over_the_tokens_that_look(tmp_path):
    made = task()
    drawn = evaluated(tmp_path, made, number=6)
    assert [one.name for one in drawn] == [f"scene_{1000 + i}" for i in range(6)]
    first = drawn[0]
    assert list(first.pictures) == ["image"]
    assert list(first.maps) == ["where caption looks"]
    assert list(first.tokens) == ["looked at in caption"]
    data = SceneDataModule(modalities=["image", "caption"], places=False)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    attention = made.eval().model(batch).attention
    picture, weights = first.maps["where caption looks"]
    assert picture.shape == (8, 8, 3)
    expected = attention["caption", "image"][0, :2].mean(dim=0)  # both words of the caption
    np.testing.assert_allclose(weights, expected.reshape(4, 4).detach(), rtol=1e-4)
    assert weights.sum() == pytest.approx(1, rel=1e-4)
    said = first.tokens["looked at in caption"]
    assert said.names == CLASSES[0].split("_")
    expected = attention["image", "caption"][0].mean(dim=0)
    np.testing.assert_allclose(said.weights, expected.detach(), rtol=1e-4)


def test_what_is_missing_is_said_to_be(tmp_path):
    drawn = evaluated(tmp_path, task(), number=6)
    assert drawn[4].maps["where caption looks"] is None  # the fifth has no caption
    assert drawn[4].tokens["looked at in caption"] is None
    assert drawn[4].pictures["image"] is not None
    assert imread(tmp_path / "val_attention.png").std() > 0.05


def test_three_experts(tmp_path):
    """A map for everyone who looks at a picture; words are looked at by all who are there."""
    made = task(("image", "radar", "caption"))
    drawn = evaluated(tmp_path, made, "test", number=3)
    assert list(drawn[0].maps) == [
        "where radar looks on image", "where caption looks on image",
        "where image looks on radar", "where caption looks on radar",
    ]  # fmt: skip
    lonely = drawn[1]  # without radar; without a caption is the fifth
    found = [title for title, map_ in lonely.maps.items() if map_ is None]
    assert found == [
        "where radar looks on image", "where image looks on radar", "where caption looks on radar",
    ]  # fmt: skip
    weights = lonely.tokens["looked at in caption"].weights
    assert weights.sum() == pytest.approx(1, rel=1e-4)
    assert (tmp_path / "test_attention.png").is_file()


def test_the_last_validation_of_a_fit_is_drawn(tmp_path):
    made = task()
    data = SceneDataModule(modalities=["image", "caption"])
    callback = AttentionExamples(tmp_path)
    trainer(tmp_path, callbacks=[callback], max_epochs=2).fit(made, data)
    assert len(callback._samples) == 3
    assert (tmp_path / "val_attention.png").is_file()


def test_models_without_attention_are_not_drawn(tmp_path):
    assert evaluated(tmp_path, task(fusion=Concat)) == []
    assert list(tmp_path.glob("*.png")) == []


def test_tokens_without_names_are_numbered():
    data = schema(("caption",))
    names = Expert.token_names(WordExpert(data), ["red dark field", "", "blue"])
    assert names == [["1", "2", "3"], ["", "", ""], ["1", "", ""]]
