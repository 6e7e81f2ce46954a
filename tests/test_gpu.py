"""What only a GPU can show: mixed precision in earnest, unsigned 16-bit series on the device."""

import pytest
import torch
import yaml
from test_cli import config, pixel_expert

from fusionlab.cli import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
@pytest.mark.parametrize(
    ("modality", "expert"),
    [
        ("aerial", {"class_path": "UNetFormer"}),
        ("sentinel2", {"class_path": "TSViT", "init_args": {"image_size": 12, "dim": 32}}),
        ("sentinel2", pixel_expert()),
    ],
)
def test_a_short_fit(flair2_root, tmp_path, precision, modality, expert):
    file = config(tmp_path / "config.yaml", flair2_root, expert, modalities=[modality])
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    content["trainer"] |= {"accelerator": "gpu", "precision": precision}
    content["data"]["init_args"] |= {"pin_memory": True, "num_workers": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    cli = run(["fit", "--config", file, "--output", str(tmp_path / "run")])
    assert cli.trainer.callback_metrics["val/miou"] >= 0
    assert all(torch.isfinite(p).all() for p in cli.model.parameters())
