from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import PixelExpert
from torch.utils.data import DataLoader, Dataset

from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts import UNetFormer
from fusionlab.fusion import Gated
from fusionlab.models import LateFusion
from fusionlab.tasks import SegmentationTask, WarmupCosine
from fusionlab.types import IGNORE_INDEX, Modality, Schema

CLASSES = ("wood", "road", "water")
SCHEMA = Schema({"a": Modality(("r", "g"), 1.0), "b": Modality(("x",), 1.0)}, CLASSES, gsd=1.0)


class Samples(Dataset):
    def __init__(self, n: int = 4, size: int = 8) -> None:
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        random = torch.Generator().manual_seed(i)
        return {
            "inputs": {
                "a": torch.rand(2, self.size, self.size, generator=random),
                "b": torch.rand(1, self.size, self.size, generator=random),
            },
            "available": {"a": torch.tensor(True), "b": torch.tensor(i % 2 == 0)},
            "target": torch.randint(0, 3, (self.size, self.size), generator=random),
            "sample_id": str(i),
        }


def task(model=PixelExpert, schema=SCHEMA, **options) -> SegmentationTask:
    torch.manual_seed(0)
    if model is PixelExpert:
        model = partial(PixelExpert, modality="b")
    return SegmentationTask(schema, model, **options)


def batch(**changes):
    return {**collate([Samples()[i] for i in range(4)]), **changes}


def trainer(tmp_path, **options) -> Trainer:
    return Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def loader(**options) -> DataLoader:
    return DataLoader(Samples(**options), batch_size=2, collate_fn=collate)


def test_samples_counted_elsewhere_change_nothing():
    model = task().eval()
    model.validation_step(batch(), 0)
    alone = model.val.scores.confusion.clone()
    model.validation_step(batch(counted=torch.tensor([False] * 4)), 1)
    assert torch.equal(model.val.scores.confusion, alone)


def test_targets_come_in_the_class_order_of_the_model():
    trained = SCHEMA.to_dict()
    data = Schema(SCHEMA.modalities, ("water", "wood", "road"), gsd=1.0)
    model = task(schema=data, trained_on=trained)
    target = torch.tensor([[[0, 1, 2, IGNORE_INDEX]]])
    assert model.target({"target": target}).tolist() == [[[2, 0, 1, IGNORE_INDEX]]]
    with pytest.raises(InputError, match=r"trained on the classes.*snow"):
        task(schema=Schema(SCHEMA.modalities, ("water", "wood", "snow")), trained_on=trained)


def test_nothing_is_learned_from_what_was_not_seen():
    # Modality b is missing in samples 1 and 3; what their targets are makes no difference.
    data = batch()
    model = task().eval()  # no dropout
    other = data["target"].clone()
    other[[1, 3]] = (other[[1, 3]] + 1) % 3
    model.log = lambda *_, **__: None
    assert model.training_step(data, 0) == model.training_step({**data, "target": other}, 0)


def test_auxiliary_heads_inside_a_fusion_train_too():
    # In a distributed run a parameter without gradient is an error.
    small = partial(UNetFormer, decode_channels=16, heads=4)
    model = task(partial(LateFusion, experts={"a": small, "b": PixelExpert}, fusion=Gated)).train()
    model.log = lambda *_, **__: None
    data = collate([Samples(size=32)[i] for i in range(2)])
    model.training_step(data, 0).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_parameter_groups_by_name():
    model = task(
        optimizer=partial(torch.optim.AdamW, lr=1.0),
        parameter_groups={"model.layers.0.*": {"lr": 0.1, "weight_decay": 0.5}},
    )
    optimizer = model.configure_optimizers()
    first, rest = optimizer.param_groups
    assert (first["lr"], first["weight_decay"], len(first["params"])) == (0.1, 0.5, 2)
    assert rest["lr"] == 1.0
    with pytest.raises(InputError, match=r"'nothing.' matches no trainable parameter"):
        task(parameter_groups={"nothing*": {"lr": 0.1}}).configure_optimizers()


def test_warm_up_and_cosine_follow_the_length_of_the_run(tmp_path):
    model = task(
        optimizer=partial(torch.optim.SGD, lr=1.0),
        lr_scheduler=partial(WarmupCosine, warmup=0.5, final_factor=0.1),
    )
    rates = []
    model.on_train_batch_start = lambda *_: rates.append(model.optimizers().param_groups[0]["lr"])
    trainer(tmp_path, max_epochs=4, enable_checkpointing=False).fit(model, loader())
    assert len(rates) == 8
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert sorted(rates[4:], reverse=True) == rates[4:]
    assert rates[-1] < 0.3
    with pytest.raises(InputError, match="fraction"):
        WarmupCosine(torch.optim.SGD(model.parameters(), lr=1.0), warmup=2.5)


def test_warm_up_may_be_a_number_of_steps():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupCosine(optimizer, warmup=3, final_factor=0.0)
    schedule.set_total_steps(100)
    assert [schedule.factor(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    schedule.set_total_steps(4)  # a run shorter than its warm-up still cools down
    assert schedule.factor(2) == 1.0
    assert schedule.factor(4) == pytest.approx(0.0)


def test_what_the_user_says_today_wins_when_a_run_goes_on(tmp_path):
    def run(epochs: int, lr: float, decay: float, ckpt=None) -> SegmentationTask:
        model = task(
            optimizer=partial(torch.optim.SGD, lr=lr, weight_decay=decay),
            lr_scheduler=partial(WarmupCosine, warmup=0.0, final_factor=0.0),
        )
        runner = trainer(tmp_path, max_epochs=epochs, enable_checkpointing=False)
        runner.fit(model, loader(), ckpt_path=ckpt, weights_only=True)
        runner.save_checkpoint(tmp_path / "run.ckpt")
        return model

    run(2, lr=0.5, decay=0.1)
    model = run(4, lr=0.01, decay=0.3, ckpt=tmp_path / "run.ckpt")
    (group,) = model.trainer.optimizers[0].param_groups
    assert group["weight_decay"] == 0.3
    assert model.lr_schedulers().base_lrs == [0.01]
    assert model.lr_schedulers().total_steps == 8
    assert group["lr"] == pytest.approx(0.0)


def test_the_fusion_is_computed_in_full_precision():
    model = LateFusion(
        SCHEMA, experts={n: partial(PixelExpert, modality=n) for n in "ab"}, fusion=Gated
    ).eval()
    seen = []
    model.fusion.register_forward_hook(lambda *args: seen.append(args[-1].logits.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(batch())
    assert seen == [torch.float32]
