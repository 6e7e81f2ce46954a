"""The benchmark of reading measures what it says, on a tiny set."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from bigearthnet_files import write_lmdb, write_v2

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_reading.py"


@pytest.mark.parametrize("more", [[], ["--cold"]])
def test_rates_and_overheads_of_both_ways_of_storing(tmp_path, monkeypatch, capsys, more):
    root, lmdb = write_v2(tmp_path), write_lmdb(tmp_path / "lmdb")
    arguments = ["--root", str(root), "--lmdb", str(lmdb), "--reads", "6", "--batch_size", "2"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--workers", "0", "--rounds", "1", *more])
    specification = importlib.util.spec_from_file_location("benchmark_reading", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.main()
    text = capsys.readouterr().out
    assert f"files come from {'disk' if more else 'memory'}" in text
    for name in ("rasterio", "bytes of the files", "copying the values", "and one grid"):
        (rate,) = re.findall(rf"^{name} +([\d,]+)$", text, re.MULTILINE)
        assert int(rate.replace(",", "")) > 0
    module_rows = re.findall(r"^data module, 0 workers +([\d,]+)((?: +[+-]\d+%)+)$", text, re.M)
    assert [len(columns.split()) for _, columns in module_rows] == [2, 3]
    assert len(re.findall(r"^share of the data module's time.*: \d+%$", text, re.M)) == 2
