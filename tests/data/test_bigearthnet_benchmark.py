"""The benchmark of reading measures what it says, on a tiny set."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from bigearthnet_files import write_lmdb, write_v2

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, name, module)
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--cold"]])
def test_rates_and_overheads_of_both_ways_of_storing(tmp_path, monkeypatch, capsys, more):
    root, lmdb = write_v2(tmp_path), write_lmdb(tmp_path / "lmdb")
    arguments = ["--root", str(root), "--lmdb", str(lmdb), "--reads", "12", "--batch_size", "2"]
    workers = ["--workers", "0", "2"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, *workers, "--rounds", "1", *more])
    bare = script("bare_reading", monkeypatch)
    benchmark = script("benchmark_reading", monkeypatch)
    layout, through_gdal = bare.geotiff.plain_layout, bare.geotiff._through_gdal
    benchmark.main()
    assert bare.geotiff.plain_layout is layout
    assert bare.geotiff._through_gdal is through_gdal
    text = capsys.readouterr().out
    assert f"files come from {'disk' if more else 'memory'}" in text
    cell = r" +([\d,]+) +\(([+-][\d,]+)%\)"
    rows = {
        "rasterio": 2, "bytes of the files": 2, "copying the values": 1, "and safetensors": 1,
        "and one grid": 1, "samples of the module": 1, "and a DataLoader": 1,
    }  # fmt: skip
    for name, times in rows.items():
        found = re.findall(rf"^{name}{cell}{cell}$", text, re.MULTILINE)
        assert len(found) == times, name
        assert all(int(rate.replace(",", "")) > 0 for row in found for rate in (row[0], row[2]))
    assert len(re.findall(r"^data module +[\d,]+ +[\d,]+$", text, re.M)) == 3
    for what in ("the files", "GDAL", "the LMDB"):
        assert re.search(rf"^share in {what} +\d+% +\d+%$", text, re.M)
    verdict = r"^{}: (NOT )?less than 20% over '{}': [+-]\d+% with 0, [+-]\d+% with 2 workers$"
    for what, base, times in (
        ("data module", "rasterio", 2),
        ("samples of the module", "and one grid", 1),
        ("data module", "and a DataLoader", 1),
    ):
        assert len(re.findall(verdict.format(what, base), text, re.M)) == times


@pytest.mark.parametrize(("added", "holds"), [((0.1, 0.19), True), ((0.1, 0.21), False)])
def test_the_verdict_is_of_the_worst(added, holds, monkeypatch, capsys):
    script("bare_reading", monkeypatch)
    benchmark = script("benchmark_reading", monkeypatch)
    seconds = {("rasterio", workers): [2.0] for workers in (0, 1)}
    seconds |= {(benchmark.MODULE, w): [2.0 * (1 + a)] for w, a in enumerate(added)}
    benchmark.print_verdict(seconds, benchmark.MODULE, "rasterio")
    assert ("NOT less" not in capsys.readouterr().out) == holds


@pytest.mark.parametrize("lmdb", [False, True])
def test_bare_reading_gives_the_same_tensors(lmdb, tmp_path, monkeypatch):
    bare = script("bare_reading", monkeypatch)
    root = write_v2(tmp_path)
    path = write_lmdb(tmp_path / "lmdb") if lmdb else None
    data = bare.RepeatedDataModule(reads=4, gdal=not lmdb, root=root, lmdb=path, augment=False)
    data.setup("fit")
    expected = data.once[0]["inputs"]
    assert float(data.clock.total()) > 0
    if lmdb:
        bare.prepare(data, cold=False)
        other = data.bare[0]["inputs"]
    else:  # read without GDAL
        data.clock.gdal = False
        other = data.once[0]["inputs"]
    assert other.keys() == expected.keys()
    assert all(torch.equal(other[name], values) for name, values in expected.items())
