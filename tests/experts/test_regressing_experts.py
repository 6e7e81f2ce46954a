"""Experts answer a value per variable where the data regress."""

from functools import partial

import pytest
import torch
from test_utae import SMALL
from torch import nn

from fusionlab.experts import UTAE, BifoldExpert, TSViT, UNetFormer
from fusionlab.experts.bifold import BAND_ORDERS
from fusionlab.experts.timm_body import Classifier
from fusionlab.types import Modality, Schema, TimeSeries

SERIES = {"s2": Modality(("B02", "B03", "B04"), 10.0, temporal=True)}
IMAGES = {"rgb": Modality(("r", "g", "b"), 0.2)}
VARIABLES = {"target": "regression", "variables": ("height", "change"), "units": ("m", "m/a")}
TRANSFORMER = {"dim": 16, "heads": 2, "head_dim": 8, "temporal_depth": 1, "spatial_depth": 1}
CONVOLUTIONS = {"backbone": "test_resnet", "decode_channels": 16, "window_size": 4, "heads": 4}
EXPERTS = {
    "unetformer": (partial(UNetFormer, **CONVOLUTIONS, dropout=0.0), IMAGES),
    "tsvit": (partial(TSViT, **TRANSFORMER, image_size=16), SERIES),
    "utae": (partial(UTAE, **SMALL, dropout=0.0, attention_dropout=0.0), SERIES),
}


def values(modalities):
    random = torch.Generator().manual_seed(0)
    if "rgb" in modalities:
        return torch.randn(4, 3, 32, 32, generator=random)
    images = torch.randn(4, 3, 3, 16, 16, generator=random)
    dates = torch.tensor([[18_000, 18_100, 18_200]] * 4)
    return TimeSeries(images, dates, torch.ones(4, 3, dtype=torch.bool))


@pytest.mark.parametrize("kind", EXPERTS)
def test_any_value_can_be_learned(kind):
    """Also values below 0 and far from it, in the units of the variables."""
    make, modalities = EXPERTS[kind]
    torch.manual_seed(0)
    expert = make(Schema(modalities, **VARIABLES)).train()
    assert (expert.names, expert.num_outputs) == (("height", "change"), 2)
    given = values(modalities)
    optimizer = torch.optim.Adam(expert.parameters(), lr=0.03)
    wanted = torch.tensor([12.0, -3.0]).view(1, 2, 1, 1)
    for _ in range(120):
        optimizer.zero_grad()
        answer = expert.logits(given)
        answer = answer[0] if isinstance(answer, tuple) else answer
        loss = (answer - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert answer.shape == (4, 2, *answer.shape[2:])
    assert loss.item() < 1.0


def test_networks_for_classes_are_as_published():
    """They have no bias there, and end in a ReLU, which would keep values from being negative."""
    expert = UNetFormer(Schema(IMAGES, ("a", "b")), **CONVOLUTIONS)
    assert expert.decoder.head[-1].bias is None
    assert expert.decoder.auxiliary_head[-1].bias is None
    (make, modalities) = EXPERTS["utae"]
    assert isinstance(make(Schema(modalities, ("a", "b"))).head[-1], nn.ReLU)
    assert isinstance(make(Schema(modalities, **VARIABLES)).head[-1], nn.Conv2d)


def test_a_published_classifier_is_no_regression():
    bands = BAND_ORDERS["0.2.0"]["s2"]
    schema = Schema(
        {"s2": Modality(bands, 10.0)}, target="scalar_regression", variables=("biomass",)
    )  # fmt: skip
    expert = BifoldExpert(schema, backbone="test_resnet", pretrained=False)
    classifier = Classifier(torch.zeros(19, expert.embedding_dim), torch.zeros(19), "a file")
    with pytest.warns(UserWarning, match=r"does not know the variables \['biomass'\]"):
        expert.take_classifier(classifier, expert.head)
    assert not expert.published_head
