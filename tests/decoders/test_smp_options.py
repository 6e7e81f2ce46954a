"""Options of the library's decoders, what they do and how mistakes are explained."""

import pytest
import torch

from fusionlab.decoders import DECODERS, SMP_DECODERS
from fusionlab.decoders.smp import (
    SmpDeepLabV3Plus,
    SmpDPT,
    SmpFPN,
    SmpLinknet,
    SmpPSPNet,
    SmpUnet,
    SmpUnetPlusPlus,
    SmpUPerNet,
)
from fusionlab.errors import InputError
from fusionlab.features import Feature

WIDTHS = [8, 12, 16, 20]


def maps(strides, size=64):
    return [torch.randn(2, w, size // s, size // s) for w, s in zip(WIDTHS, strides, strict=False)]


@pytest.mark.parametrize("cls", [SmpUnet, SmpUnetPlusPlus])
@pytest.mark.parametrize(("widths", "size"), [([16, 8, 8, 4], 32), ([16, 8, 8, 4, 4], 64)])
def test_the_number_of_widths_says_how_fine_it_becomes(cls, widths, size):
    decoder = cls(WIDTHS, strides=[4, 8, 16, 32], decoder_channels=widths)
    assert decoder(maps([4, 8, 16, 32])).shape == (2, 4, size, size)


@pytest.mark.parametrize("name", ["Unet", "UnetPlusPlus", "MAnet", "Linknet"])
def test_nothing_is_finer_than_the_image(name):
    decoder = SMP_DECODERS[name](WIDTHS, strides=[1, 2, 4, 8])
    assert decoder(maps([1, 2, 4, 8])).shape[-2:] == (64, 64)


def test_deep_lab_uses_the_map_nearest_to_stride_four():
    decoder = SmpDeepLabV3Plus(WIDTHS, strides=[2, 4, 8, 32], out_channels=8).eval()
    given = maps([2, 4, 8, 32])
    answer = decoder(given)
    assert answer.shape[-2:] == (16, 16)
    for at, used in enumerate([False, True, False, True]):
        changed = [m + 1 if i == at else m for i, m in enumerate(given)]
        assert torch.equal(decoder(changed), answer) != used


def test_one_map_is_chosen_by_index():
    decoder = SmpPSPNet(WIDTHS, strides=[4, 8, 16, 32], index=1, out_channels=8).eval()
    given = maps([4, 8, 16, 32])
    assert decoder(given).shape == (2, 8, 8, 8)
    assert torch.equal(decoder([given[1]] * 4), decoder(given))


@pytest.mark.parametrize("norm", [False, "identity", "instancenorm", {"type": "batchnorm"}])
@pytest.mark.parametrize("name", ["Unet", "UnetPlusPlus", "MAnet", "Linknet", "PSPNet", "UPerNet"])
def test_other_norms_run(name, norm):
    decoder = SMP_DECODERS[name](WIDTHS, strides=[4, 8, 16, 32], use_norm=norm)
    decoder([m[:1] for m in maps([4, 8, 16, 32], 32)]).square().mean().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_options_are_told():
    assert set(SmpUPerNet.options()) == {"decoder_channels", "use_norm"}
    assert "index" in SmpPSPNet.options()
    assert set(DECODERS.own["FCN"].options()) == {"index", "num_convs", "channels"}
    for cls in SMP_DECODERS.values():
        assert not {"strides", "encoder_channels", "n_blocks"} & set(cls.options())


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SmpUnet, {"decoder_chanels": [8]}, "Did you mean decoder_channels.*attention_type"),
        (SmpUnet, {"encoder_depth": 3}, "no option 'encoder_depth'"),
        (SmpUnet, {"decoder_channels": [8, 8]}, r"3 to 5 for maps of strides \[4, 8, 16, 32\]"),
        (SmpUnetPlusPlus, {"decoder_channels": [8] * 3}, "4 to 5 for maps"),
        (SmpUnet, {"decoder_channels": 64}, "list of integers, got 64"),
        (SmpUnet, {"decoder_channels": [8, 8, 8, 0]}, "1 or more, got 0"),
        (SmpUnet, {"interpolation_mode": "cubic"}, "bicubic"),
        (SmpUnet, {"attention_type": "cbam"}, "cannot be built.*cbam"),
        (SmpUnetPlusPlus, {"attention_type": "scse"}, "no channels.*'scse' takes 16"),
        (SmpUnet, {"use_norm": "layernorm"}, "use_norm is true, false, one of"),
        (SmpUnet, {"use_norm": 3}, "use_norm is true, false, one of"),
        (SmpFPN, {"segmentation_channels": 40}, "cannot be built.*segmentation_channels.*40"),
        (SmpFPN, {"merge_policy": "mean"}, "cannot be built.*merge_policy"),
        (SmpPSPNet, {"index": 4}, "smp/PSPNet has index 4, but gets 4 map"),
        (SmpDeepLabV3Plus, {"atrous_rates": [6, 12]}, "cannot be built"),
        (SmpDeepLabV3Plus, {"atrous_rates": [6, 12, 0]}, "atrous_rates must be"),
        (SmpDPT, {"intermediate_channels": [8]}, "one width per map: 4, got"),
        (SmpDPT, {"readout": "sum"}, "cannot be built.*readout"),
        (SmpDPT, {"strides": [4, 8]}, "4 maps, but 2 strides"),
    ],
)
def test_mistakes_are_explained(cls, options, message):
    with pytest.raises(InputError, match=message):
        cls(WIDTHS, **options)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="splits the channels of its map among four"):
        SmpPSPNet([8, 10])
    with pytest.raises(InputError, match="4 or more, got"):
        SmpLinknet([3, 8])
    with pytest.raises(InputError, match="plain ViT gives one scale"):
        SmpUnet(WIDTHS, strides=[16] * 4)
    with pytest.raises(InputError, match=r"strides are \[32, 16, 8, 4\].*SelectIndices"):
        SmpUnet(WIDTHS, strides=[32, 16, 8, 4])
    with pytest.raises(InputError, match="powers of two"):
        SmpDPT([8, 8], strides=[4, 14])


def test_checks_of_features():
    tokens = [Feature(48, 16, "NLC")] * 4
    with pytest.raises(InputError, match=r"The decoder UNet takes maps.*ReshapeTokensToImage"):
        DECODERS.own["UNet"].check(tokens)
    unknown = [Feature(48)] * 4
    DECODERS.own["UNet"].check(unknown)
    for cls in (SmpDPT, SmpDeepLabV3Plus):
        with pytest.raises(InputError, match="must know the strides"):
            cls.check(unknown)
    with pytest.raises(InputError, match=r"\[4, 8, 16, 16\].*output stride"):
        DECODERS.own["UperNet"].check([Feature(8, s) for s in (4, 8, 16, 16)])
