"""A run that goes on needs the groups of parameters that it had."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import PixelExpert
from test_task_options import DeepExpert, Samples
from torch.utils.data import DataLoader

from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts import PretrainedExpert
from fusionlab.tasks import SegmentationTask
from fusionlab.types import Modality, Schema

SCHEMA = Schema(
    {"a": Modality(("r", "g"), 1.0), "b": Modality(("x",), 1.0)}, ("wood", "road"), gsd=1.0
)
HEAD_FIRST = {"model.head.*": {"lr": 0.1}}


def task(model=DeepExpert, **options):
    settings = {name: options.pop(name) for name in ("pretrained", "frozen") if name in options}
    return SegmentationTask(SCHEMA, partial(model, modality="a", **settings), **options)


def trainer(folder, **options):
    return Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip


def fit(model, folder, *, epochs=2, **options):
    runner = trainer(folder, max_epochs=epochs)
    runner.fit(model, DataLoader(Samples(), batch_size=2, collate_fn=collate), **options)
    return runner


def saved(model, folder):
    fit(model, folder, epochs=1).save_checkpoint(folder / "last.ckpt")
    return {"ckpt_path": str(folder / "last.ckpt"), "weights_only": True}


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (
            {"layer_decay": 0.5}, {},
            r"6 parameters in 3 groups, but .* 6 parameters in one group: "
            r"layer_decay was 0.5 and is None\. Set this as it was, or start a new fit",
        ),
        (
            {}, {"parameter_groups": HEAD_FIRST},
            r"6 parameters in one group, but .* in 2 groups: parameter_groups was None and is "
            r"\{'model.head",
        ),
        (
            {"parameter_groups": HEAD_FIRST}, {"parameter_groups": {"*.bias": {"lr": 0.1}}},
            r"6 parameters in 2 groups, but .* 6 parameters in 2 groups: parameter_groups was "
            r"\{'model.head.*is \{'\*.bias'",
        ),
        (
            {"frozen": True}, {},
            r"2 parameters in one group, but .* 6 parameters in one group: other parts of the "
            r"model are frozen\. .*PretrainedExpert with `checkpoint:`",
        ),
    ],
)  # fmt: skip
def test_other_groups_are_refused_with_what_differs(tmp_path, then, now, message):
    checkpoint = saved(task(**then), tmp_path)
    with pytest.raises(InputError, match=message):
        fit(task(**now), tmp_path, **checkpoint)
    # Whoever only tests or predicts has no optimiser.
    data = DataLoader(Samples(), collate_fn=collate)
    trainer(tmp_path).test(task(**now), data, verbose=False, **checkpoint)


def test_the_same_groups_go_on(tmp_path):
    options = {"layer_decay": 0.5, "parameter_groups": HEAD_FIRST}
    checkpoint = saved(task(**options), tmp_path)
    runner = fit(task(**options), tmp_path, **checkpoint)
    assert runner.global_step == 4
    # Other values in the same groups are today's.
    again = task(layer_decay=0.1, parameter_groups={"model.head.*": {"lr": 0.3}})
    runner = fit(again, tmp_path, **checkpoint)
    assert [group["lr"] for group in runner.optimizers[0].param_groups] == pytest.approx(
        [0.3, 1e-5, 1e-4]
    )


def test_weights_alone_can_be_taken_along(tmp_path):
    """What the message advises."""
    first = task(PixelExpert, parameter_groups={"*.bias": {"lr": 0.1}})
    checkpoint = saved(first, tmp_path)["ckpt_path"]
    model = SegmentationTask(SCHEMA, partial(PretrainedExpert, checkpoint=checkpoint))
    for name, value in first.model.state_dict().items():
        assert torch.equal(model.model.expert.state_dict()[name], value)
    assert fit(model, tmp_path, epochs=1).global_step == 2
