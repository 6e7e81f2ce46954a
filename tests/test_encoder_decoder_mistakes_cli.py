"""Composed experts that cannot be: one short message, status 2, before anything is written."""

import re
import sys
from collections.abc import Callable

import pytest
import yaml
from cli_runs import QUICK

from fusionlab.cli import main

pytestmark = pytest.mark.slow

CANOPY = {"target": "canopy_height"}
SERIES = {"modalities": ["sentinel2"], "sen_crop_size": 12}


@pytest.fixture
def refused(flair2_root, tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Fits a model that must be refused; gives the message."""

    def fit(model: dict, *, task: str = "SegmentationTask", data: dict | None = None) -> str:
        options = {"root": str(flair2_root), "modalities": ["aerial"], "batch_size": 2}
        content = {
            "model": {"class_path": task, "init_args": {"model": model}},
            "data": {"class_path": "Flair2DataModule", "init_args": options | (data or {})},
            "trainer": QUICK,
        }
        file, output = tmp_path / "c.yaml", tmp_path / "out"
        file.write_text(yaml.safe_dump(content))
        command = ["fusionlab", "fit", "--config", str(file), "--output", str(output)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        before, message = capsys.readouterr().err.split("fusionlab: error: ")
        assert "Traceback" not in before + message
        assert len(message.splitlines()) == 1
        assert len(message) < 320 + len(str(file))
        assert [path for path in tmp_path.iterdir() if path.name != "c.yaml"] == []
        return message

    return fit


def composed(**options) -> dict:
    decoder = {"name": "UperNet", "channels": 16}
    arguments = {"backbone": "timm/test_resnet", "decoder": decoder, **options}
    return {"class_path": "EncoderDecoder", "init_args": arguments}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backbone": "timm/convnext_tinny"},
         ["There is no backbone 'timm/convnext_tinny'", "'timm/convnext_tiny'",
          "`fusionlab backbones` lists all"]),
        ({"backbone": "resnet3"}, ["There is no backbone 'resnet3'", "'timm/resnet34'"]),
        ({"backbone": "tim/resnet18"}, ["no source 'tim' of backbones. Did you mean timm"]),
        ({"backbone": "my_nets.TwoScales"},
         ["There is no backbone 'my_nets.TwoScales'", "class of your own is named by its path"]),
        ({"decoder": "UperNett"}, ["There is no decoder 'UperNett'", "'fusionlab/UperNet'"]),
        ({"decoder": {"name": "smp/UNett"}}, ["There is no decoder 'smp/UNett'", "'smp/Unet'"]),
        ({"necks": ["SelectIndexes"]},
         ["There is no neck 'SelectIndexes'", "'fusionlab/SelectIndices'"]),
        ({"head": {"name": "SegmentatonHead"}},
         ["There is no head 'SegmentatonHead'", "'fusionlab/SegmentationHead'"]),
        ({"aux_decoders": {"deep": {"decoder": "FNC"}}},
         ["aux_decoders.deep: There is no decoder 'FNC'", "'fusionlab/FCN'"]),
    ],
)  # fmt: skip
def test_unknown_names(refused, options, says):
    message = refused(composed(**options))
    for part in says:
        assert part in message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backbone": {"name": "timm/test_resnet", "drop_path": 0.1}},
         ["backbone 'test_resnet' has no option 'drop_path'", "'drop_path_rate'"]),
        ({"backbone": {"name": "smp/resnet18", "pretrained": True}},
         ["backbone 'resnet18' has no option 'pretrained'", "'weights'"]),
        ({"decoder": {"name": "UperNet", "chanels": 16}},
         ["decoder UperNet has no option 'chanels'. Did you mean channels"]),
        ({"decoder": {"name": "smp/FPN", "pyramid_chanels": 16}},
         ["decoder smp/FPN has no option 'pyramid_chanels'", "'pyramid_channels'"]),
        ({"necks": [{"name": "SelectIndices", "indexes": [0]}]},
         ["neck SelectIndices has no option 'indexes'. Did you mean ind"]),
        ({"head": {"droput": 0.1}}, ["SegmentationHead has no option 'droput'", "'dropout'"]),
        ({"head": {"final_act": "softplus"}}, ["SegmentationHead has no option 'final_act'"]),
        ({"aux_decoders": {"deep": {"wieght": 0.4}}},
         ["aux_decoders.deep", "'wieght'", "Did you mean weight?"]),
        ({"decoders": "UNet"},
         ["model.model: no option 'decoders'. Did you mean decoder or aux_decoders?"]),
        ({"backbone": {"nam": "timm/test_resnet"}}, ["A backbone is a name or {name: …"]),
    ],
)  # fmt: skip
def test_options_that_nothing_uses(refused, options, says):
    message = refused(composed(**options))
    for part in says:
        assert part in message


@pytest.mark.parametrize("decoder", ["UNet", "UperNet", "smp/Unet", "smp/FPN"])
def test_a_pyramid_of_a_plain_transformer(refused, decoder):
    message = refused(composed(backbone="timm/test_vit", decoder=decoder))
    assert f"decoder {decoder} wants a pyramid" in message
    assert "add the neck LearnedInterpolateToPyramidal" in message


def test_tokens_for_a_decoder_of_maps(refused):
    message = refused(composed(backbone={"name": "timm/test_vit", "layout": "NLC"}))
    assert "neck ReshapeTokensToImage" in message


@pytest.mark.parametrize(
    ("head", "task", "data"),
    [
        ("ClassificationHead", "SegmentationTask", {}),
        ("ClassificationHead", "RegressionTask", CANOPY),
        ("SegmentationHead", "RegressionTask", CANOPY),
        ("RegressionHead", "SegmentationTask", {}),
    ],
)
def test_a_head_for_the_wrong_task(refused, head, task, data):
    message = refused(composed(head={"name": head}), task=task, data=data)
    right = "RegressionHead" if data else "SegmentationHead"
    assert re.search(rf"{head} is a head for \w+ of every \w+: use {right}", message)


@pytest.mark.parametrize(
    ("task", "data", "use"),
    [
        ("RegressionTask", {}, "SegmentationTask"),
        ("ClassificationTask", {}, "SegmentationTask"),
        ("SegmentationTask", CANOPY, "RegressionTask"),
        ("ClassificationTask", CANOPY, "RegressionTask"),
    ],
)
def test_a_task_for_other_data(refused, task, data, use):
    message = refused(composed(), task=task, data=data)
    target = "regression" if data else "segmentation"
    assert f"the data's target is '{target}': use {use}" in message


def test_images_and_series(refused):
    assert "'aerial' is delivered as single images" in refused(composed(dates="mean"))
    message = refused(composed(dates="median"), data=SERIES)
    assert "model.model.dates" in message
    assert "expected one of mean, max, attention, got 'median'" in message
    assert "UTAE takes time series, but 'aerial'" in refused({"class_path": "UTAE"})
    utae = {"class_path": "UTAE", "init_args": {"reference_date": "1.9.2018"}}
    assert "reference_date is a date such as" in refused(utae, data=SERIES)


def test_a_missing_part(refused):
    model = composed()
    del model["init_args"]["backbone"]
    assert "model.model: missing: backbone" in refused(model)


def test_scales_that_a_decoder_cannot_take(refused):
    one = {"name": "timm/test_resnet", "out_indices": [-1]}
    message = refused(composed(backbone=one, decoder="UNet"))
    assert "The decoder UNet takes 2 or more maps, but gets 1" in message
    assert "The decoders FCN and Linear take a single map" in message
    beyond = {"name": "timm/test_resnet", "out_indices": [9]}
    assert "out_indices [9] does not fit 'test_resnet'" in refused(composed(backbone=beyond))
    message = refused(composed(decoder={"name": "FCN", "index": 7}))
    assert "The decoder FCN has index 7, but gets 4 map(s)" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": {"name": "timm/test_resnet", "out_indices": 3}}, "cannot be built with"),
        ({"head": {"dropout": "much"}}, "dropout is a probability in [0, 1), got 'much'"),
        ({"bands": []}, "has no bands to look at"),
        ({"aux_decoders": {"keys": {}}}, "cannot be called 'keys'"),
    ],
)
def test_values_of_another_kind(refused, options, words):
    message = refused(composed(**options))
    assert words in message
    assert "Namespace(" not in message
