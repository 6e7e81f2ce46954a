"""What every task offers: layer-wise learning rates, and checkpoints without frozen weights."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import PixelExpert
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fusionlab.checkpoints import read_checkpoint
from fusionlab.component import Backbone
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts import Expert, FrozenExpert
from fusionlab.fusion import ClassWeighted
from fusionlab.models import LateFusion
from fusionlab.tasks import SegmentationTask
from fusionlab.types import Modality, Schema

SCHEMA = Schema(
    {"a": Modality(("r", "g"), 1.0), "b": Modality(("x",), 1.0)}, ("wood", "road"), gsd=1.0
)


class Stages(Backbone):
    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(bands, 4, 1)
        self.stage = nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.stage(self.stem(images).relu())

    def parameter_layers(self) -> dict[str, int]:
        return {name: int(name.startswith("stage")) for name, _ in self.named_parameters()}


class DeepExpert(Expert):
    """A frozen or trainable backbone whose weights come from "a hub", and a head."""

    def __init__(self, schema, *, pretrained: bool = False, frozen: bool = False, seed=0, **inputs):
        super().__init__(schema, **inputs)
        state = torch.random.get_rng_state()
        torch.manual_seed(seed if pretrained else seed + 1)
        self.body = Stages(len(self.inputs))
        torch.random.set_rng_state(state)
        self.frozen = frozen and pretrained
        self.body.requires_grad_(not frozen)
        self.head = nn.Conv2d(4, self.num_classes, 1)

    @property
    def restorable(self) -> tuple[str, ...]:
        return ("body",) if self.frozen else ()

    def describe(self):
        description = super().describe()
        if not self.stripped:
            description["init_args"]["pretrained"] = False
        return description

    def logits(self, values: Tensor) -> Tensor:
        return self.head(self.body(self.inputs(values)))


class Samples(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int):
        random = torch.Generator().manual_seed(i)
        bands = {"a": 2, "b": 1}
        return {
            "inputs": {m: torch.rand(n, 8, 8, generator=random) for m, n in bands.items()},
            "available": {m: torch.tensor(True) for m in bands},
            "target": torch.randint(0, 2, (8, 8), generator=random),
            "sample_id": str(i),
        }


def task(model, **options) -> SegmentationTask:
    return SegmentationTask(SCHEMA, model, **options)


def fit(model: SegmentationTask, folder) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, max_epochs=2,
    )  # fmt: skip
    trainer.fit(model, DataLoader(Samples(), batch_size=2, collate_fn=collate))
    return trainer


def rates(model: SegmentationTask) -> dict[str, float]:
    optimizer = model.configure_optimizers()
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


def test_layers_learn_the_slower_the_deeper_they_lie():
    sgd = partial(torch.optim.SGD, lr=1.0)
    expert = partial(DeepExpert, modality="a")
    found = rates(task(expert, optimizer=sgd, layer_decay=0.5))
    assert found["model.head.weight"] == 1.0
    assert found["model.body.stage.weight"] == 0.5
    assert found["model.body.stem.bias"] == 0.25
    assert len(found) == 6
    groups = {"model.body.*": {"lr": 0.1}, "model.body.nothing": {"lr": 1.0}}
    own = rates(task(expert, optimizer=sgd, layer_decay=0.5, parameter_groups={
        "model.body.*": {"lr": 0.1, "weight_decay": 0.3},
    }))  # fmt: skip
    assert own["model.body.stem.weight"] == pytest.approx(0.025)
    assert own["model.head.bias"] == 1.0
    with pytest.raises(InputError, match=r"'model.body.nothing' matches no trainable"):
        rates(task(expert, optimizer=sgd, parameter_groups=groups))


def test_layer_decay_needs_layers_and_a_sensible_factor():
    with pytest.raises(InputError, match="no backbone that tells its layers"):
        rates(task(partial(PixelExpert, modality="a"), layer_decay=0.5))
    with pytest.raises(InputError, match=r"\(0, 1\], got 1.5"):
        task(partial(DeepExpert, modality="a"), layer_decay=1.5)


def frozen_run(folder, *, strip: bool) -> tuple[SegmentationTask, dict]:
    torch.manual_seed(3)
    expert = partial(DeepExpert, modality="a", pretrained=True, frozen=True)
    model = task(expert, strip_frozen=strip)
    before = {k: v.clone() for k, v in model.model.body.state_dict().items()}
    fit(model, folder).save_checkpoint(folder / "run.ckpt")
    assert all(torch.equal(v, model.model.body.state_dict()[k]) for k, v in before.items())
    return model, torch.load(folder / "run.ckpt", weights_only=True)


def test_frozen_weights_stay_in_a_checkpoint_unless_told_otherwise(tmp_path):
    _, content = frozen_run(tmp_path, strip=False)
    assert any(name.startswith("model.body.") for name in content["state_dict"])
    assert content["hyper_parameters"]["model"]["init_args"]["pretrained"] is False
    assert "stripped" not in content


def test_a_stripped_checkpoint_gets_its_frozen_weights_again(tmp_path):
    model, content = frozen_run(tmp_path, strip=True)
    assert not any(name.startswith("model.body.") for name in content["state_dict"])
    assert content["hyper_parameters"]["model"]["init_args"]["pretrained"] is True
    batch = collate([Samples()[i] for i in range(4)])
    again = task(partial(DeepExpert, modality="a", pretrained=True, frozen=True))
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"])
    assert torch.equal(again.eval()(batch).logits, model.eval()(batch).logits)


def test_other_weights_than_those_left_out_are_refused(tmp_path):
    _, content = frozen_run(tmp_path, strip=True)
    other = task(partial(DeepExpert, modality="a", pretrained=True, frozen=True, seed=7))
    with pytest.raises(InputError, match=r"weights of model.body were left out .* are others"):
        other.on_load_checkpoint(content)


def test_a_frozen_expert_comes_back_from_its_file_into_a_stripped_fusion(tmp_path):
    """An expert whose own checkpoint is stripped, in a fusion whose checkpoint is stripped."""
    (tmp_path / "expert").mkdir()
    frozen_run(tmp_path / "expert", strip=True)
    file = str(tmp_path / "expert" / "run.ckpt")
    assert read_checkpoint(file).stripped.keys() == {"body."}
    experts = {"a": partial(FrozenExpert, checkpoint=file), "b": PixelExpert}
    late = partial(LateFusion, experts=experts, fusion=ClassWeighted)
    model = task(late, strip_frozen=True)
    fit(model, tmp_path).save_checkpoint(tmp_path / "fused.ckpt")
    content = torch.load(tmp_path / "fused.ckpt", weights_only=True)
    assert list(content["stripped"]) == ["model.experts.a.expert."]
    assert not any(name.startswith("model.experts.a.") for name in content["state_dict"])
    described = content["hyper_parameters"]["model"]["init_args"]["experts"]["a"]["init_args"]
    assert described["checkpoint"] == file
    again = task(late)
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"])
    batch = collate([Samples()[i] for i in range(4)])
    assert torch.equal(again.eval()(batch).logits, model.eval()(batch).logits)
    with pytest.raises(InputError, match="is not the file that this model was trained with"):
        FrozenExpert(SCHEMA.only("a"), checkpoint=file, sha256="0" * 64)


def test_nothing_to_leave_out_is_refused_before_training(tmp_path):
    model = task(partial(DeepExpert, modality="a", pretrained=True), strip_frozen=True)
    with pytest.raises(InputError, match="strip_frozen is set, but no part of DeepExpert"):
        fit(model, tmp_path)


def test_a_pattern_behind_a_wider_one_is_refused():
    groups = {"model.*": {"lr": 0.1}, "model.head.*": {"lr": 1.0}}
    model = task(partial(DeepExpert, modality="a"), parameter_groups=groups)
    with pytest.raises(InputError, match=r"'model.head.\*' is never reached, because 'model.\*'"):
        model.configure_optimizers()
