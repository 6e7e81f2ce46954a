"""Our lists give the library's decoders what its own encoders give them."""

import pytest
import segmentation_models_pytorch as smp
import torch

from fusionlab.decoders import SMP_DECODERS
from fusionlab.decoders.smp import SmpDPT, SmpFPN, SmpPAN, SmpSegformer, SmpUnet

# The library's model, its encoder (from stride 2, or from stride 4 with a map of no channels in
# place of stride 2), arguments of the model, options of the decoder.
CASES = [
    ("Unet", "tu-test_resnet", {}, {}),
    ("Unet", "tu-test_convnext", {"decoder_attention_type": "scse"}, {"attention_type": "scse"}),
    (
        "Unet",
        "tu-test_resnet",
        {"encoder_depth": 4, "decoder_channels": (64, 32, 16, 8)},
        {"decoder_channels": [64, 32, 16, 8]},
    ),
    ("UnetPlusPlus", "tu-test_resnet", {}, {}),
    ("UnetPlusPlus", "tu-test_convnext", {}, {}),
    ("MAnet", "tu-test_resnet", {}, {}),
    ("MAnet", "tu-test_convnext", {"decoder_pab_channels": 16}, {"pab_channels": 16}),
    ("Linknet", "tu-test_resnet", {}, {}),
    ("Linknet", "tu-test_convnext", {}, {}),
    ("FPN", "tu-test_resnet", {}, {}),
    ("FPN", "tu-test_convnext", {"decoder_merge_policy": "cat"}, {"merge_policy": "cat"}),
    ("PAN", "tu-test_resnet", {}, {}),
    ("PAN", "tu-test_convnext", {"encoder_output_stride": 32}, {}),
    ("UPerNet", "tu-test_resnet", {}, {}),
    ("UPerNet", "tu-test_convnext", {"decoder_channels": 64}, {"decoder_channels": 64}),
    ("Segformer", "tu-test_resnet", {}, {}),
    ("Segformer", "tu-test_convnext", {}, {}),
    ("PSPNet", "tu-test_resnet", {}, {}),
    ("PSPNet", "tu-test_resnet", {"encoder_depth": 5}, {}),
    ("DeepLabV3", "tu-test_resnet", {}, {}),
    ("DeepLabV3Plus", "tu-test_resnet", {}, {}),
    ("DeepLabV3Plus", "tu-test_resnet", {"encoder_output_stride": 8}, {}),
]


@pytest.mark.parametrize(("model", "encoder", "arguments", "options"), CASES)
def test_equals_the_library(model, encoder, arguments, options):
    torch.manual_seed(0)
    whole = getattr(smp, model)(encoder, encoder_weights=None, **arguments).eval()
    image = torch.randn(1, 3, *((256, 256) if model == "PAN" else (128, 160)))
    with torch.no_grad():
        theirs = whole.encoder(image)
        expected = whole.decoder(theirs)
    given = [maps for maps in theirs[1:] if maps.shape[1]]
    strides = [image.shape[-1] / maps.shape[-1] for maps in given]
    if model == "PAN" and strides[-1] == strides[-2]:
        strides = [2, 4, 8, 16, 32]  # a dilated encoder, which is refused, gives no other numbers
    ours = SMP_DECODERS[model]([m.shape[1] for m in given], strides=strides, **options).eval()
    state = {k: v for k, v in whole.decoder.state_dict().items() if k in ours.decoder.state_dict()}
    ours.decoder.load_state_dict(state)
    with torch.no_grad():
        got = ours(given)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.shape[1] == ours.out_channels


def test_what_the_library_never_uses_is_not_there():
    """Idle parameters stop distributed training, so the names differ from the library's there."""
    whole = smp.Unet("tu-test_resnet", encoder_weights=None, decoder_attention_type="scse")
    ours = SmpUnet(whole.encoder.out_channels[1:], strides=[2, 4, 8, 16, 32], attention_type="scse")
    missing = set(whole.decoder.state_dict()) - set(ours.decoder.state_dict())
    assert missing
    assert all(key.startswith("blocks.4.attention1.") for key in missing)


@pytest.mark.parametrize("cls", [SmpFPN, SmpSegformer, SmpUnet])
def test_layers_start_as_the_library_starts_them(cls):
    """Convolutions as He et al. (uniform, ReLU), unlike PyTorch's own."""
    torch.manual_seed(0)
    decoder = cls([64, 64, 64, 64])
    weights = [m.weight for m in decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    largest = max(weights, key=torch.numel).detach()
    bound = (6 / largest[0].numel()) ** 0.5
    assert largest.abs().max() == pytest.approx(bound, rel=1e-2)
    assert all(not m.bias.any() for m in decoder.modules() if getattr(m, "bias", None) is not None)


def test_dpt_equals_the_library_without_prefix_tokens():
    torch.manual_seed(0)
    whole = smp.DPT("tu-test_vit", encoder_weights=None, decoder_readout="ignore").eval()
    ours = SmpDPT([64] * 4, strides=[16] * 4).eval()
    ours.decoder.load_state_dict(whole.decoder.state_dict())
    given = [torch.randn(1, 64, 10, 6) for _ in range(4)]
    with torch.no_grad():
        expected = whole.decoder(given, [None] * 4)
        torch.testing.assert_close(ours(given), expected)


def test_dpt_takes_maps_that_the_library_cannot_halve():
    torch.manual_seed(0)
    ours = SmpDPT([16] * 4, strides=[14] * 4, intermediate_channels=[8] * 4, fusion_channels=8)
    ours.eval()
    odd = [torch.randn(1, 16, 5, 7) for _ in range(4)]
    even = [torch.nn.functional.pad(m, (0, 1, 0, 1), mode="replicate") for m in odd]
    with torch.no_grad():
        with pytest.raises(RuntimeError):
            ours.decoder(odd, [None] * 4)
        got = ours(odd)
        assert got.shape == (1, 8, 40, 56)
        torch.testing.assert_close(got, ours(even)[..., :40, :56])


def test_pan_takes_maps_that_the_library_cannot_halve_three_times():
    torch.manual_seed(0)
    ours = SmpPAN([8, 8, 8, 8]).eval()
    small = [torch.randn(1, 8, 2 << i, 3 << i) for i in (3, 2, 1, 0)]
    with torch.no_grad():
        assert ours(small).shape == (1, 32, 16, 24)
        theirs = smp.decoders.pan.decoder.FPABlock(8, 32).eval()
        with pytest.raises(RuntimeError):
            theirs(small[-1])
        # From eight cells on it is the library's attention.
        theirs.load_state_dict(ours.decoder.fpa.state_dict())
        large = torch.randn(1, 8, 8, 11)
        torch.testing.assert_close(ours.decoder.fpa(large), theirs(large))
