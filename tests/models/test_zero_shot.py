"""Classes told apart by their descriptions: against cosines by hand, saved, refused, drawn."""

import copy
import pickle
from functools import partial
from itertools import starmap

import pyarrow.parquet as pq
import pytest
import torch
from contrastive_pairs import CLASSES, SceneDataModule, Scenes, fitted, schema, trainer
from embedding_experts import PooledExpert
from lightning.pytorch import LightningModule
from torch.nn import functional as F

from fusionlab.callbacks import ClassSimilarities, TableWriter
from fusionlab.component import build
from fusionlab.data.samples import collate
from fusionlab.errors import InputError
from fusionlab.losses import SigmoidContrastive
from fusionlab.models import ZeroShot
from fusionlab.models.zero_shot import TEMPLATES
from fusionlab.tasks import ClassificationTask, ModelFactory
from fusionlab.types import Schema

PLAIN = ("{}",)


def save(made: LightningModule, path) -> str:
    made.trainer.save_checkpoint(path)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrastive")
    made = fitted(folder, epochs=15)
    return made.eval(), save(made, folder / "run.ckpt")


def image_only(classes=CLASSES) -> Schema:
    return schema(("image",), classes)


def zero_shot(trained, data=None, **options) -> ZeroShot:
    defaults = {"image": "image", "templates": PLAIN}
    return ZeroShot(data or image_only(), checkpoint=trained[1], **{**defaults, **options})


def batch(n=8):
    return collate(list(starmap(Scenes(names=("image",)).__getitem__, ((i,) for i in range(n)))))


def test_logits_are_scaled_cosines_of_images_and_prompts(trained):
    model = zero_shot(trained)
    made, given = trained[0], batch()
    texts = [name.replace("_", " ") for name in CLASSES]
    described = made.model.encode("caption", texts)
    image = made.model.encode("image", given["inputs"]["image"])
    scale = made.loss.log_scale[made.pairs.index(("image", "caption"))].exp()
    output = model(given)
    torch.testing.assert_close(output.logits, scale * image @ described.T)
    torch.testing.assert_close(model.cosines(given), image @ described.T)
    assert torch.equal(output.embeddings["image"], model.embed(given))
    assert output.logits.argmax(dim=1).tolist() == [i % 4 for i in range(8)]


def test_descriptions_are_averaged_in_the_common_space(trained):
    prompts = {"red_field": ["red field", "bright red"], "dark_road": "dark road"}
    model = zero_shot(trained, prompts=prompts, templates=["{}", "a {} seen"])
    assert model.texts == [
        ["red field", "a red field seen", "bright red", "a bright red seen"],
        ["green field", "a green field seen"], ["blue road", "a blue road seen"],
        ["dark road", "a dark road seen"],
    ]  # fmt: skip
    for i, texts in enumerate(model.texts):
        each = trained[0].model.encode("caption", texts)
        expected = F.normalize(each.mean(dim=0), dim=0)
        torch.testing.assert_close(model.class_embeddings()[i], expected)


def test_descriptions_by_index_and_with_braces(trained):
    model = zero_shot(trained, prompts={"1": "a {green} field"})
    assert model.texts[1] == ["a {green} field"]
    assert zero_shot(trained, templates=TEMPLATES).texts[2][0] == "a satellite image of blue road"


def test_prompts_are_read_once_and_again_for_other_weights(trained, monkeypatch):
    model = zero_shot(trained)
    calls = []
    read = model.encoders.encode

    def counted(name, values):
        calls.append(name)
        return read(name, values)

    monkeypatch.setattr(model.encoders, "encode", counted)
    with torch.inference_mode():
        first = model(batch()).logits
    model(batch())
    assert calls.count("caption") == 1
    other = copy.deepcopy(model.state_dict())
    for name in other:
        if "experts.caption" in name:
            other[name] = -other[name] + 0.1
    model.load_state_dict(other)
    assert not torch.allclose(model(batch()).logits, first)
    assert calls.count("caption") == 2
    assert "described" not in model.state_dict()


def test_the_bias_of_the_sigmoid_loss_comes_along(tmp_path):
    made = fitted(tmp_path, loss=SigmoidContrastive, epochs=1)
    model = ZeroShot(
        image_only(), checkpoint=save(made, tmp_path / "run.ckpt"), image="image", templates=PLAIN
    )
    index = made.pairs.index(("image", "caption"))
    scale, bias = made.loss.log_scale[index].exp(), made.loss.bias[index]
    given = batch()
    expected = scale * model.cosines(given) + bias
    torch.testing.assert_close(model(given).logits, expected, check_stride=False)


def test_nothing_of_it_trains(trained):
    model = zero_shot(trained).train()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.encoders.modules())
    assert not model(batch()).logits.requires_grad


def test_a_sample_without_an_image_is_like_no_class(trained):
    given = batch()
    given["available"]["image"][1] = False
    given["inputs"]["image"][1] = torch.nan
    model = zero_shot(trained)
    assert (model(given).logits[1] == 0).all()
    assert model(given).logits.isfinite().all()
    assert model.modalities == ("image",)
    assert torch.equal(model.explain(given).shares["image"], torch.ones(8))


def test_described_copied_and_pickled(trained):
    model = zero_shot(trained, prompts={"red_field": ["bright red"]})
    described = model.describe()
    assert "checkpoint" not in described["init_args"]
    assert len(described["init_args"]["sha256"]) == 64
    again = build(described, ModelFactory, image_only(), where="a test")
    assert again.scale != model.scale
    again.load_state_dict(model.state_dict())
    expected = model(batch()).logits
    assert expected.isfinite().all()
    for other in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(batch()).logits, expected)
    assert again.describe() == described


def test_bands_are_read_by_name(trained):
    data = Schema(
        {"image": image_only().modalities["image"].select(["blue", "red", "green"], where="a")},
        CLASSES, target="multiclass",
    )  # fmt: skip
    given = batch()
    expected = zero_shot(trained)(given).logits
    given["inputs"]["image"] = given["inputs"]["image"][:, [2, 0, 1]]
    torch.testing.assert_close(zero_shot(trained, data)(given).logits, expected)


def test_another_modality_may_be_classified(trained):
    model = zero_shot(trained, schema(("radar",)), image="radar")
    given = collate([Scenes(names=("radar",))[i] for i in range(4)])
    assert model(given).logits.shape == (4, 4)
    assert model.modality == "radar"


# ---- in a task ------------------------------------------------------------------------------


def task(trained, data=None, **options) -> ClassificationTask:
    model = {"image": "image", "templates": PLAIN, "checkpoint": trained[1]}
    return ClassificationTask(data or image_only(), partial(ZeroShot, **model), **options)


def test_test_and_table_without_training(trained, tmp_path):
    made = task(trained)
    data = SceneDataModule(modalities=["image"])
    (scores,) = trainer(tmp_path).test(made, data, verbose=False)
    assert scores["test/overall_accuracy"] == 1
    picture = ClassSimilarities(tmp_path, number=10)
    trainer(tmp_path, callbacks=[TableWriter(tmp_path), picture]).predict(made, data)
    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert table["label"] == [CLASSES[i % 4] for i in range(48)]
    assert len(picture._names) == 10
    torch.testing.assert_close(
        torch.cat(picture._cosines),
        made.model.cosines(collate([Scenes(first=2000)[i] for i in range(10)])),
    )
    assert (tmp_path / "predictions_similarity.png").stat().st_size > 10_000


def test_data_that_name_no_classes(trained, tmp_path):
    """All that zero-shot prediction needs is images and names."""
    made = task(trained, schema(("image",), ()), classes=["red_field", "dark_road"])
    data = SceneDataModule(modalities=["image"], labelled=False)
    trainer(tmp_path, callbacks=[TableWriter(tmp_path)]).predict(made, data)
    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert table["label"][::4] == ["red_field"] * 12
    assert table["label"][3::4] == ["dark_road"] * 12
    with pytest.raises(InputError, match=r"`classes` of the task are .* of their own"):
        task(trained, classes=["red_field"])
    with pytest.raises(InputError, match="needs at least 2 class names"):
        task(trained, schema(("image",), ()))


def test_other_models_are_not_drawn(tmp_path):
    made = ClassificationTask(image_only(), PooledExpert)
    callbacks = [ClassSimilarities(tmp_path), TableWriter(tmp_path)]
    data = SceneDataModule(modalities=["image"])
    trainer(tmp_path, callbacks=callbacks).predict(made, data)
    assert [path.name for path in tmp_path.glob("*.png")] == []


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prompts": {"red_feld": ["x"]}}, "Unknown class 'red_feld' in ZeroShot prompts.*red_field"),
     ({"prompts": {"red_field": []}}, "'red_field' has no description"),
     ({"prompts": {"red_field": [" "]}}, "'red_field' has no description"),
     ({"templates": ["{}", "a picture"]}, "'a picture' has no {}"),
     ({"templates": []}, "give at least one"), ({"image": None}, "Name one with `image:`"),
     ({"image": "lidar"}, "`image: lidar` is none of these. Name one"),
     ({"image": "caption"}, r"\['image', 'radar'\] do.*`image: caption` is none"),
     ({"text": "image"}, r"\['caption'\] do.*`text: image` is none of these. Name one"),
     ({"sha256": "0" * 64}, "is not the file")],
)  # fmt: skip
def test_refusals(trained, options, message):
    with pytest.raises(InputError, match=message):
        zero_shot(trained, **options)


def test_several_classes_need_the_sigmoid_loss(trained, tmp_path):
    several = schema(("image",), target="multilabel")
    with pytest.raises(InputError, match=r"several classes may apply.*SigmoidContrastive"):
        zero_shot(trained, several)
    made = fitted(tmp_path, epochs=1, loss=SigmoidContrastive)
    model = zero_shot((made, save(made, tmp_path / "run.ckpt")), several)
    assert model.bias < 0


def test_many_descriptions_are_read_in_parts(trained, monkeypatch):
    whole = zero_shot(trained).class_embeddings()
    monkeypatch.setattr("fusionlab.models.zero_shot._AT_ONCE", 3)
    torch.testing.assert_close(zero_shot(trained).class_embeddings(), whole)


def test_data_without_what_it_needs(trained):
    with pytest.raises(InputError, match="tells classes apart, but the data name none"):
        zero_shot(trained, image_only(()))
    with pytest.raises(InputError, match="classifies whole samples"):
        zero_shot(trained, schema(("image",), target="segmentation"))
    with pytest.raises(InputError, match="'image'"):
        zero_shot(trained, schema(("radar",)))
    with pytest.raises(InputError, match="needs `checkpoint:`"):
        ZeroShot(image_only())


def test_checkpoints_that_are_not_contrastive(trained, tmp_path):
    made = ClassificationTask(image_only(), PooledExpert)
    trainer(tmp_path, fast_dev_run=1).fit(made, SceneDataModule(modalities=["image"]))
    path = save(made, tmp_path / "expert.ckpt")
    with pytest.raises(InputError, match=r"expert.ckpt is not contrastive: it holds a PooledExper"):
        ZeroShot(image_only(), checkpoint=path)
    torch.save(made.model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="holds weights, but does not say of which model"):
        ZeroShot(image_only(), checkpoint=str(tmp_path / "weights.pt"))


def test_a_model_without_texts(tmp_path):
    made = fitted(tmp_path, {"image": PooledExpert, "radar": PooledExpert}, epochs=1)
    path = save(made, tmp_path / "run.ckpt")
    with pytest.raises(InputError, match=r"none do, among \['image', 'radar'\]: train one with"):
        ZeroShot(image_only(), checkpoint=path)
