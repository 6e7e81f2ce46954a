"""What only a GPU can show: mixed precision in earnest, unsigned 16-bit series on the device."""

from pathlib import Path

import pytest
import torch
import yaml
from bigearthnet_runs import config as patches_config
from bigearthnet_runs import fused, labels_of, network, probabilities, table
from cli_runs import config, load, pixel_expert
from lightning.pytorch import Callback

from fusionlab.cli import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(path: Path, precision: str) -> str:
    """Changes a configuration; returns its path."""
    content = yaml.safe_load(path.read_text())
    content["trainer"] |= {"accelerator": "gpu", "precision": precision}
    content["data"]["init_args"] |= {"pin_memory": True, "num_workers": 2}
    path.write_text(yaml.safe_dump(content))
    return str(path)


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
    on_gpu(tmp_path / "config.yaml", precision)
    cli = run(["fit", "--config", file, "--output", str(tmp_path / "run")])
    assert cli.trainer.callback_metrics["val/miou"] >= 0
    assert all(torch.isfinite(p).all() for p in cli.model.parameters())


class FrozenBits(Callback):
    """Compares frozen parts at the end of training with what they were at its beginning."""

    def on_fit_start(self, trainer, pl_module):
        self.before = {k: v.clone() for k, v in self.frozen(pl_module).items()}

    def on_fit_end(self, trainer, pl_module):
        after = self.frozen(pl_module)
        assert after.keys() == self.before.keys()
        assert any(name.endswith("running_var") for name in after)
        for name, value in after.items():
            assert value.is_cuda == self.before[name].is_cuda
            assert torch.equal(value, self.before[name]), name

    @staticmethod
    def frozen(task):
        return task.model.experts["s1"].body.state_dict()


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
def test_patches_are_classified(bigearthnet_root, tmp_path, precision):
    experts = {"s1": network(frozen=True), "s2": network("test_vit")}
    model = fused("FeatureFusion", experts, "Weighted")
    patches_config(
        tmp_path / "c.yaml", bigearthnet_root, model, data={"modality_dropout": {"s2": 0.3}}
    )
    file = on_gpu(tmp_path / "c.yaml", precision)
    cli = run([
        "fit", "--config", file, "--output", str(tmp_path / "run"), "--trainer.max_epochs", "2",
        "--trainer.callbacks", "test_gpu.FrozenBits",
    ])  # fmt: skip
    assert cli.trainer.callback_metrics["val/ap_macro"] > 0
    state = load(tmp_path / "run" / "last.ckpt")["state_dict"]
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())

    # The same checkpoint gives the same answers on the device and on the processor.
    answers = {}
    for accelerator in ("gpu", "cpu"):
        output = tmp_path / accelerator
        run([
            "predict", "--config", file, "--ckpt_path", str(tmp_path / "run" / "last.ckpt"),
            "--output", str(output), "--trainer.accelerator", accelerator,
            "--trainer.precision", precision if accelerator == "gpu" else "32-true",
        ])  # fmt: skip
        columns = table(output)
        assert columns["sample"] == list(labels_of(bigearthnet_root, "test"))
        answers[accelerator] = torch.tensor(list(map(list, probabilities(columns).values())))
    near = 1e-3 if precision == "32-true" else 0.05  # half precision keeps 8 or 11 binary digits
    torch.testing.assert_close(answers["gpu"], answers["cpu"], atol=near, rtol=0)
