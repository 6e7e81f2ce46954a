#!/usr/bin/env python
"""Which composed networks pickle, deep-copy, compile and export: a table, measured.

Every network is small, has random weights, and sees images whose sides divide by nothing inside it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import pickle
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from publish import publish
from rich.console import Console
from torch import Tensor, nn
from torch.export import Dim

from fusionlab.backbones.dates import PooledDates
from fusionlab.decoders import DECODERS
from fusionlab.experts import UTAE
from fusionlab.factory import build_model
from fusionlab.necks import NECKS
from fusionlab.types import Modality, Schema, TimeSeries

DOCUMENT = Path(__file__).parents[1] / "docs" / "encoder_decoder.md"
MARK = "portability"
COLUMNS = ("network", "pickle, deepcopy", "torch.compile", "torch.export")
BANDS, CLASSES, DATES = 4, 3, 5
SIZE = (70, 102)
PYRAMID = "LearnedInterpolateToPyramidal"

HIERARCHICAL = (
    "timm/resnet18", "timm/regnety_002", "timm/efficientnet_b0", "timm/mobilenetv3_small_100",
    "timm/convnext_atto", "timm/convnext_tiny.dinov3_lvd1689m", "timm/swin_tiny_patch4_window7_224",
    "timm/pvt_v2_b0", "timm/hrnet_w18_small", "smp/mit_b0", "smp/resnet18",
)  # fmt: skip
PLAIN = (
    "timm/vit_tiny_patch16_224", "timm/deit_tiny_distilled_patch16_224",
    "timm/eva02_tiny_patch14_224", "timm/vit_small_patch16_dinov3",
)  # fmt: skip
NECK_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "Flatten": {"size": [5, 7]},  # of patches of 16 pixels in `SIZE`, padded
    "PermuteDims": {"new_order": [0, 2, 3, 1]},
    "SelectIndices": {"indices": [0, 2]},
}
"""Of necks that need some."""
_NARROW = {"decoder_channels": 32}


class Network(NamedTuple):
    """A row of the table.

    Attributes:
        name: its parts.
        build: makes it.
        series: whether it takes images of several dates.
    """

    name: str
    build: Callable[[], nn.Module]
    series: bool = False


class Row(NamedTuple):
    """What was found of a network; a cell begins with ``yes``, ``in parts`` or ``no``."""

    name: str
    copies: str
    compiles: str
    exports: str


class ComposedSeries(nn.Module):
    """A composed network as a module of tensors: ``(values, dates, valid)`` to logits."""

    def __init__(self, backbone: str, pooling: str) -> None:
        super().__init__()
        self.network = build_model(
            "segmentation", backbone, "UperNet",
            bands=BANDS, num_classes=CLASSES, dates=pooling, **_NARROW,
        )  # fmt: skip
        assert isinstance(self.network.backbone, PooledDates)

    def forward(self, values: Tensor, dates: Tensor, valid: Tensor) -> Tensor:
        """Logits of a series."""
        return self.network.answer(values, dates, valid).logits


class ExpertSeries(nn.Module):
    """The same of U-TAE."""

    def __init__(self) -> None:
        super().__init__()
        bands = tuple(f"B{i}" for i in range(BANDS))
        series = Modality(bands, gsd=10.0, temporal=True)
        self.expert = UTAE(Schema({"s2": series}, [str(i) for i in range(CLASSES)]))

    def forward(self, values: Tensor, dates: Tensor, valid: Tensor) -> Tensor:
        """Logits of a series."""
        return self.expert.logits(TimeSeries(values, dates, valid))


def networks() -> Iterator[Network]:
    """All rows: encoders with one decoder, decoders with one encoder, necks, series."""
    for backbone in (*HIERARCHICAL, *PLAIN):
        necks = [PYRAMID] if backbone in PLAIN else []
        name = " → ".join([backbone, *necks, "UperNet"])
        yield Network(name, _composed(backbone, "UperNet", necks=necks, **_NARROW))
    for entry in DECODERS.list():
        backbone = PLAIN[0] if entry.name == "DPT" else HIERARCHICAL[0]
        decoder = entry.full_name.removeprefix("fusionlab/")
        if decoder != "UperNet":  # which is above
            yield Network(f"{backbone} → {decoder}", _composed(backbone, decoder))
    for neck in sorted(NECKS.own):
        if neck != PYRAMID:
            yield _with_neck(neck)
    for pooling in ("mean", "max", "attention"):
        backbone = HIERARCHICAL[0]
        name = f"{backbone} over dates ({pooling}) → UperNet"
        yield Network(name, partial(ComposedSeries, backbone, pooling), series=True)
    yield Network("UTAE", ExpertSeries, series=True)


def _composed(
    backbone: str | dict[str, Any],
    decoder: str | None,
    *,
    task: str = "segmentation",
    **options: Any,  # noqa: ANN401
) -> Callable[[], nn.Module]:
    return partial(
        build_model, task, backbone, decoder, bands=BANDS, num_classes=CLASSES, **options
    )


def _with_neck(neck: str) -> Network:
    """A neck behind what it is for."""
    spec = {"name": neck, **NECK_OPTIONS.get(neck, {})}
    maps = PLAIN[0]
    tokens = {"name": maps, "layout": "NLC"}
    if neck == "AggregateTokens":
        build = _composed(tokens, None, task="classification", necks=[spec])
        return Network(f"{maps} → {neck} (classes of samples)", build)
    if neck == "Flatten":
        build = _composed(maps, None, task="classification", necks=[spec])
        return Network(f"{maps} → {neck} (classes of samples)", build)
    if neck == "ReshapeTokensToImage":
        return Network(f"{maps} → {neck} → Linear", _composed(tokens, "Linear", necks=[spec]))
    if neck == "PermuteDims":  # there and back
        back = {"name": neck, "new_order": [0, 3, 1, 2]}
        build = _composed(maps, "Linear", necks=[spec, back])
        return Network(f"{maps} → {neck}, twice → Linear", build)
    return Network(f"{maps} → {neck} → Linear", _composed(maps, "Linear", necks=[spec]))


def check(network: Network) -> Row:
    """Builds a network and tries everything."""
    torch.manual_seed(0)
    model = network.build()
    return Row(
        network.name,
        _tried(partial(copies, model, network.series)),
        compiles(model, network.series),
        exports(model, network.series),
    )


def copies(model: nn.Module, series: bool) -> str:
    """Pickles and deep-copies; both answer the same, bit for bit."""
    given = example(2, series)
    model.eval()
    with torch.no_grad():
        expected = model(*given)
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            if not torch.equal(other(*given), expected):
                raise ValueError("answers differ")
    return "yes"


def compiles(model: nn.Module, series: bool) -> str:
    """Compiles for training, as one graph or else in parts.

    The backend ``aot_eager`` captures forward and backward graphs and writes no machine code. One
    training step must give the answer and the gradients of the model itself.
    """
    whole = _tried(partial(_compiled_step, model, series, fullgraph=True))
    if whole == "yes":
        return whole
    parts = _tried(partial(_compiled_step, model, series, fullgraph=False))
    return whole.replace("no:", "in parts:", 1) if parts == "yes" else parts


def _compiled_step(model: nn.Module, series: bool, *, fullgraph: bool) -> str:
    torch.compiler.reset()
    given = example(2, series)
    start = copy.deepcopy(model.state_dict())
    found = []
    for compiled in (False, True):
        model.load_state_dict(start)  # statistics of normalisations move
        model.train()
        model.zero_grad()
        step = torch.compile(model, fullgraph=fullgraph, backend="aot_eager") if compiled else model
        torch.manual_seed(1)
        answer = step(*given)
        answer.square().mean().backward()
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        found.append((answer.detach(), torch.stack(norms).norm()))
    model.zero_grad()
    model.load_state_dict(start)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
    return "yes"


def exports(model: nn.Module, series: bool) -> str:
    """Exports for any batch size, or else for one; the exported answers as the model does."""
    any_batch = _tried(partial(_exported, model, series, dynamic=True))
    if any_batch == "yes":
        return any_batch
    one = _tried(partial(_exported, model, series, dynamic=False))
    return any_batch.replace("no:", "one batch size:", 1) if one == "yes" else one


def _exported(model: nn.Module, series: bool, *, dynamic: bool) -> str:
    model.eval()
    given = example(2, series)
    shapes = tuple({0: Dim("batch")} for _ in given) if dynamic else None
    with torch.no_grad():
        program = torch.export.export(model, given, dynamic_shapes=shapes, strict=False).module()
        for batch in (2, 3) if dynamic else (2,):
            other = example(batch, series, seed=1)
            torch.testing.assert_close(program(*other), model(*other), rtol=1e-4, atol=1e-4)
    return "yes"


def example(batch: int, series: bool, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Images, or a series with dates that only pad."""
    generator = torch.Generator().manual_seed(seed)
    if not series:
        return (torch.randn(batch, BANDS, *SIZE, generator=generator),)
    values = torch.randn(batch, DATES, BANDS, *SIZE, generator=generator)
    dates = torch.arange(17_600, 17_600 + 30 * DATES, 30).repeat(batch, 1)
    valid = torch.ones(batch, DATES, dtype=torch.bool)
    valid[0, 3:] = False
    return values, dates, valid


def _tried(attempt: Callable[[], str]) -> str:
    said = io.StringIO()  # torch prints the graphs that it fails at
    logging.disable()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("ignore")
            return attempt()
    except Exception as error:  # whatever it is, it is what the table is about
        return f"no: {_reason(error)}"
    finally:
        logging.disable(logging.NOTSET)


def _reason(error: Exception, longest: int = 90) -> str:
    """The first line of an error, in one cell of Markdown."""
    if "data-dependent" in str(error):
        return "what is done depends on values"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    text = re.sub(r"\s+", " ", f"{type(error).__name__}: {text}").replace("|", "\\|")
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main() -> None:
    """Parses the command line, tries the networks, prints and publishes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="only networks named like this")
    parser.add_argument("--publish", action="store_true", help=f"write docs/{DOCUMENT.name}")
    args = parser.parse_args()
    if args.publish and args.pattern != "*":
        parser.error("--publish writes the table of all networks, so it takes no pattern")
    console = Console(soft_wrap=True, highlight=False)
    rows = []
    for network in networks():
        if not fnmatchcase(network.name, args.pattern):
            continue
        begin = time.perf_counter()
        rows.append(check(network))
        console.print(f"{time.perf_counter() - begin:5.1f} s", " | ".join(rows[-1]), markup=False)
    version = torch.__version__.partition("+")[0]
    table = f"{markdown(rows)}\n\nWith torch {version}."
    print(f"\n{table}")
    if args.publish:
        publish(table, DOCUMENT, MARK)


if __name__ == "__main__":
    main()
