"""Experts of texts, tables and series on the command line: trained, fused, restored alone."""

import json
from pathlib import Path

import pytest
import yaml
from part_samples import word_tokenizer

from fusionlab.cli import run
from fusionlab.cli_facts import FACTS
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

QUICK = [
    "--data", "part_samples.PartSamples",
    "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    "--trainer.log_every_n_steps", "1",
]  # fmt: skip
SMALL = {"width": 8, "depth": 1}
ENCODERS = {
    "image": {"class_path": "embedding_experts.PooledExpert"},
    "site": {"class_path": "TabularExpert", "init_args": {**SMALL, "hidden": 8}},
    "weather": {"class_path": "SeriesExpert", "init_args": {**SMALL, "heads": 2}},
    "words": {"class_path": "TextExpert",
              "init_args": {**SMALL, "modality": "caption", "heads": 2}},
}  # fmt: skip
WORDS = ["--data.texts", "[dense forest near a lake, a dry road]"]
OTHER_WORDS = ["--data.texts", "[other words, a lake and something]"]


def task(model: dict) -> list[str]:
    settings = {"model": {"class_path": "ClassificationTask", "init_args": {"model": model}}}
    return ["--config", yaml.safe_dump(settings)]


def reported(folder: Path) -> dict[str, float]:
    return json.loads((folder / "test_metrics.json").read_text())


def text_expert(tokenizer: Path) -> dict:
    return {
        "class_path": "TextExpert",
        "init_args": {"modality": "caption", "tokenizer": str(tokenizer), **SMALL, "heads": 2},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A text expert with a tokenizer of a file that is gone, and a fusion with it frozen."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(word_tokenizer())
    run(["fit", *QUICK, *task(text_expert(tokenizer)), "--output", str(folder / "caption")])
    run(["test", *QUICK, "--output", str(folder / "caption"),
         "--ckpt_path", str(folder / "caption" / "best.ckpt")])  # fmt: skip
    tokenizer.unlink()
    checkpoint = folder / "caption" / "best.ckpt"
    frozen = {"class_path": "FrozenExpert", "init_args": {"checkpoint": str(checkpoint)}}
    fusion = {
        "class_path": "FeatureFusion",
        "init_args": {
            "experts": {**ENCODERS, "caption": frozen},
            "head": {"class_path": "MLPHead", "init_args": {"hidden": 8, "dropout": 0.3}},
        },
    }
    run(["fit", *QUICK, *WORDS, *task(fusion), "--output", str(folder / "fused")])
    run(["test", *QUICK, *WORDS, "--ckpt_path", str(folder / "fused" / "best.ckpt"),
         "--output", str(folder / "fused")])  # fmt: skip
    checkpoint.rename(folder / "caption.ckpt")
    return folder


def names(part) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(names, part))
    return set(part).union(*map(names, part.values())) if isinstance(part, dict) else set()


def test_the_tokenizer_is_not_saved_with_the_settings(trained):
    for run_folder in ("caption", "fused"):
        saved = yaml.safe_load((trained / run_folder / "config.yaml").read_text())
        assert not names(saved) & set(FACTS)


@pytest.mark.parametrize("configured", [False, True])
def test_a_text_expert_is_restored_without_its_tokenizer(trained, configured, tmp_path):
    # The settings of its run name the file, which is gone.
    config = ["--config", str(trained / "caption" / "config.yaml")] if configured else QUICK
    run(["test", *config, *OTHER_WORDS, "--ckpt_path", str(trained / "caption.ckpt"),
         "--output", str(tmp_path)])  # fmt: skip
    assert reported(tmp_path) == reported(trained / "caption")


def test_another_tokenizer_is_refused(trained, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(word_tokenizer(["something", "else"]))
    with pytest.raises(InputError, match=r"other\.json is not the tokenizer"):
        run(["test", *QUICK, "--ckpt_path", str(trained / "caption.ckpt"),
             "--model.model.tokenizer", str(other), "--output", str(tmp_path)])  # fmt: skip


def test_a_fusion_stands_alone_and_knows_categories_by_name(trained, tmp_path):
    restored = ["test", *QUICK, "--ckpt_path", str(trained / "fused" / "best.ckpt")]
    seasons = ["--data.seasons", "[summer, autumn, winter, spring]"]
    with pytest.warns(UserWarning, match=r"does not know the categories .*'autumn'"):
        run([*restored, *OTHER_WORDS, *seasons, "--output", str(tmp_path)])
    assert reported(tmp_path) == reported(trained / "fused")
