"""Networks that flatten maps: tried with images of their own size, misfits are refused at once."""

import pytest
import torch
from torch import nn

from fusionlab.errors import InputError
from fusionlab.experts import EncoderDecoder
from fusionlab.factory import build_model
from fusionlab.features import Feature
from fusionlab.types import Modality, Schema, TimeSeries

CLASSES = ("cubes", "spheres")
CNN = {"name": "PlainCNN", "widths": [4, 6, 8]}


def network(**options):
    return build_model("classification", CNN, bands=4, num_classes=2, **options)


def test_a_flattening_head_takes_images_of_its_size_only():
    model = network(head={"name": "FlattenHead", "size": [8, 4], "dim_list": [5]})
    assert model(torch.randn(2, 4, 64, 32)).shape == (2, 2)
    assert model(torch.randn(2, 4, 60, 30)).shape == (2, 2)  # padded
    with pytest.raises(InputError, match=r"FlattenHead .*got \(2, 8, 8, 8\).*`size: \[8, 8\]`"):
        model(torch.randn(2, 4, 64, 64))


def test_a_flattening_neck_before_any_head():
    model = network(necks=[{"name": "Flatten", "size": 4, "index": 1}], head={"dim_list": [5]})
    assert model.features == (Feature(6 * 16, None, "NC"),)
    assert model(torch.randn(2, 4, 16, 16)).shape == (2, 2)
    with pytest.raises(InputError, match=r"Flatten .*got \(2, 6, 8, 8\)"):
        model(torch.randn(2, 4, 32, 32))


def test_behind_a_decoder_the_stride_is_found():
    model = network(
        decoder={"name": "UNet", "channels": [8, 8]}, head={"name": "FlattenHead", "size": [32, 64]}
    )
    shape = model.decoder(model.backbone(torch.zeros(1, 4, 64, 128))).shape
    assert shape[-2:] == (32, 64)
    assert model(torch.randn(1, 4, 64, 128)).shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # Images of 24 x 24 pixels would do, but 3 x 3 cells of stride 4 are 12 x 12, padded to 16.
        ({"necks": [{"name": "Flatten", "size": 3, "index": 1}]}, r"got \(2, 6, 4, 4\)"),
        (
            {"necks": [{"name": "Flatten", "size": 8}], "head": {"name": "FlattenHead", "size": 8}},
            r"FlattenHead flattens maps .*got \(2, 512\)",
        ),
        ({"head": {"name": "FlattenHead", "size": [8, -8]}}, "FlattenHead size .*rows and columns"),
    ],
)
def test_what_cannot_fit_is_refused_at_once(options, message):
    with pytest.raises(InputError, match=message):
        network(**options)


class Unmeasured(nn.Module):
    """A backbone whose map does not tell its stride."""

    def __init__(self, bands):
        super().__init__()
        self.features = (Feature(4),)
        self.out_channels = [4]
        self.conv = nn.Conv2d(bands, 4, 3)

    def forward(self, images):
        return [self.conv(images)]


def test_where_nobody_knows_the_size_nothing_is_tried():
    options = {"bands": 4, "num_classes": 2}
    head = {"name": "FlattenHead", "size": 5}
    assert build_model("classification", Unmeasured, head=head, **options)(
        torch.zeros(1, 4, 7, 7)
    ).shape == (1, 2)
    necks = [{"name": "Flatten", "size": 5}]
    build_model("classification", Unmeasured, necks=necks, **options)(torch.zeros(1, 4, 7, 7))


def test_an_expert_of_series_flattens_too():
    modality = Modality(("x", "y"), 1.0, temporal=True)
    expert = EncoderDecoder(
        Schema({"s2": modality}, CLASSES, target="multiclass"),
        backbone=CNN,
        head={"name": "FlattenHead", "size": 8},
    )
    series = TimeSeries(
        torch.randn(2, 3, 2, 64, 64), torch.zeros(2, 3).long(), torch.ones(2, 3).bool()
    )
    assert expert.logits(series).shape == (2, 2)


def test_an_embedding_that_was_flattened_is_taken_as_it_is():
    schema = Schema({"rgb": Modality(("r", "g"), 1.0)}, target="multiclass")
    expert = EncoderDecoder(
        schema, backbone=CNN, necks=[{"name": "Flatten", "size": 8}], stage="necks"
    )
    assert expert.embedding_dim == 512
    images = torch.randn(2, 2, 64, 64)
    expected = expert.encoder(images)[-1].flatten(1)
    torch.testing.assert_close(expert.features(images), expected)
    with pytest.raises(InputError, match=r"'NC', not as maps.*leave out the neck that pools"):
        expert.require_maps()
