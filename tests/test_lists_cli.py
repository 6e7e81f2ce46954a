"""The commands that list parts of networks, as a user runs them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import command

from fusionlab import __main__, cli, cli_lists
from fusionlab.cli_lists import list_parts
from fusionlab.heads import HEADS
from fusionlab.necks import NECKS
from fusionlab.registry import Registry

pytestmark = pytest.mark.slow


def lines(capsys):
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("name", "registry"), [("necks", NECKS), ("heads", HEADS)])
def test_all_parts_are_listed_by_name_with_what_they_do(capsys, name, registry):
    assert list_parts([name]) == 0
    found = lines(capsys)
    assert [line.split()[0] for line in found] == sorted(
        (entry.full_name for entry in registry.list()), key=str.casefold
    )
    starts = {len(line) - len(line.split(maxsplit=1)[1]) for line in found}
    assert len(starts) == 1  # descriptions are one column
    for line in found:
        assert line.split()[0] in registry
        assert "`" not in line


def test_a_pattern_chooses(capsys):
    assert list_parts(["necks", "*Pyramidal"]) == 0
    names = [line.split()[0] for line in lines(capsys)]
    assert len(names) >= 3
    assert all(name.endswith("Pyramidal") for name in names)
    assert list_parts(["necks", "PERMUTES the axes"]) == 0  # of a description, in any case
    assert [line.split()[0] for line in lines(capsys)] == ["fusionlab/PermuteDims"]


def test_parts_of_other_libraries_have_their_prefix(capsys):
    assert list_parts(["backbones", "timm/resnet1*"]) == 0
    found = [line.split()[0] for line in lines(capsys)]
    assert {"timm/resnet18", "timm/resnet101"} <= set(found)
    assert found == sorted(found)
    assert all(name.startswith("timm/resnet1") for name in found)
    assert list_parts(["decoders", "smp/*"]) == 0
    assert all(line.startswith("smp/") for line in lines(capsys))


@pytest.mark.parametrize("pattern", ["rsnet50", "timm/rsnet50", "RESNET5O", "rsnet50*"])
def test_what_is_not_there_is_answered_with_similar_names(capsys, pattern):
    assert list_parts(["backbones", pattern]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no backbones match {pattern!r}" in err
    assert "  timm/resnet50\n" in err


def test_nothing_similar_is_said_as_it_is(capsys):
    assert list_parts(["heads", "qqqqqq"]) == 1
    assert capsys.readouterr().err == (
        "fusionlab: no heads match 'qqqqqq'; `fusionlab heads` lists all.\n"
    )


def test_an_empty_registry_is_an_empty_list(capsys, monkeypatch):
    monkeypatch.setattr("fusionlab.necks.NECKS", Registry("neck", plural="no_necks"))
    assert list_parts(["necks"]) == 0
    assert capsys.readouterr().out == ""


def test_lines_fit_a_terminal_but_are_whole_elsewhere(capsys, monkeypatch):
    list_parts(["necks"])
    whole = lines(capsys)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    list_parts(["necks"])
    cut = lines(capsys)
    assert max(map(len, cut)) == 60 < max(map(len, whole))
    for one, other in zip(cut, whole, strict=True):
        assert one == other or (one.endswith("…") and other.startswith(one[:-1]))
    monkeypatch.setenv("COLUMNS", "10")  # names stay whole
    list_parts(["necks"])
    assert [line.split()[0] for line in lines(capsys)] == [line.split()[0] for line in whole]


def test_help_and_mistakes(capsys):
    with pytest.raises(SystemExit) as stopped:
        list_parts(["decoders", "--help"])
    assert stopped.value.code == 0
    assert "usage: fusionlab decoders [-h] [PATTERN]" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        list_parts(["decoders", "--al"])
    assert stopped.value.code == 2
    assert "--al" in capsys.readouterr().err


def test_the_command_knows_them(capsys, monkeypatch):
    for pattern, status in (("*", 0), ("qqqqqq", 1)):
        monkeypatch.setattr(sys, "argv", ["fusionlab", "necks", pattern])
        with pytest.raises(SystemExit) as stopped:
            __main__.main()
        assert stopped.value.code == status
    assert "fusionlab/PermuteDims" in capsys.readouterr().out


def test_the_help_of_all_commands_names_them(capsys):
    with pytest.raises(SystemExit):
        cli.run(["--help"])
    assert cli_lists.EPILOG in " ".join(capsys.readouterr().out.split())


def test_lists_do_not_wait_for_lightning():
    code = (
        "import sys; sys.argv = ['fusionlab', 'necks', 'PermuteDims']\n"
        "import atexit; atexit.register(lambda: print('lightning' in sys.modules))\n"
        "from fusionlab.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("fusionlab/PermuteDims")
    assert second == "False"


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_reader_may_stop_early():
    python = shlex.quote(sys.executable)
    # More lines than a pipe holds, and a reader that has gone before they come.
    script = f"set -o pipefail; {python} -m fusionlab backbones | true"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0


def test_output_that_cannot_hold_every_letter_is_no_error():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "fusionlab", "necks"],
        capture_output=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_an_unknown_command_is_an_error_still():
    done = command("neck")
    assert done.returncode == 2
    assert "neck" in done.stderr
