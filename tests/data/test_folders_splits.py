from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from folder_files import folders, write, write_folders
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.data.folders.files import read_header
from fusionlab.data.folders.splits import block_of, check_splits, split
from fusionlab.errors import InputError

NAMES = [f"zone{i // 10}/tile{i:03d}" for i in range(100)]


def drawn(splits, *, names=NAMES, seed=0, root=Path(), blocks=None):
    check_splits(splits)
    return split(names, splits, root=root, seed=seed, blocks=blocks)


@given(
    number=st.integers(3, 60), val=st.floats(0.01, 0.33), test=st.floats(0.01, 0.33),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_shares_are_exact_and_every_place_is_in_one_split(number, val, test, seed):
    names = NAMES[:number]
    parts = drawn({"val": val, "test": test}, names=names, seed=seed)
    assert sorted(chain.from_iterable(parts.values())) == names
    assert len(parts["val"]) == max(1, round(val * number))
    assert len(parts["test"]) == max(1, round(test * number))
    assert all(part == sorted(part) for part in parts.values())


def test_the_draw_depends_on_seed_and_names_alone():
    parts = drawn({"val": 0.2, "test": 0.2})
    assert drawn({"val": 0.2, "test": 0.2}, names=NAMES[::-1])["val"] == parts["val"][::-1]
    assert drawn({"val": 0.2, "test": 0.2}, seed=1)["val"] != parts["val"]


def test_a_place_that_is_added_moves_at_most_one_other():
    before = set(drawn({"val": 0.2})["val"])
    after = set(drawn({"val": 0.2}, names=[*NAMES, "zone99/new"])["val"])
    assert len(before - after) <= 1


def test_names_patterns_and_lists(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.txt").write_text("# comment\nzone1/tile010.tif\n\nzone1/tile011\n")
    parts = drawn({"test": ["zone0/*", "zone1/tile019"], "val": "lists/val.txt"}, root=tmp_path)
    assert parts["val"] == ["zone1/tile010", "zone1/tile011"]
    assert parts["test"] == [*NAMES[:10], "zone1/tile019"]
    assert len(parts["train"]) == 100 - 13


def test_what_is_named_for_training_is_all_that_is_trained_on():
    parts = drawn({"train": "zone0/*", "val": 0.1})
    assert parts["train"] == NAMES[:10]
    assert len(parts["val"]) == 9  # of the other ninety
    assert not set(parts["train"]) & set(parts["val"])


def test_blocks_are_drawn_whole():
    blocks = {name: name.split("/")[0] for name in NAMES}
    parts = drawn({"val": 0.2, "test": 0.15}, blocks=blocks)
    zones = [{blocks[name] for name in part} for part in parts.values()]
    assert sorted(len(z) for z in zones) == [2, 2, 6]  # 15 places are one block and a half
    assert len(set.union(*zones)) == 10


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"valid": 0.1}, "no split 'valid'"),
        ({"val": 0}, "above 0"),
        ({"val": 0.6, "test": 0.5}, "more than 1"),
        ({"val": 0.5, "test": 0.5}, "nothing is left for 'train'"),
        ({"val": "zone0/*", "test": "zone0/tile001"}, r"is in splits\.val and in splits\.test"),
        (
            {"val": ["zone0/tile01"]},
            r"no place is called 'zone0/tile01', of 100 such as \['zone0/ti",
        ),
        ({"val": "other.txt"}, r"splits\.val: cannot read the list of names other\.txt"),
    ],
)
def test_refusals(splits, message):
    with pytest.raises(InputError, match=message):
        drawn(splits)


def test_an_empty_list(tmp_path):
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"is empty\. Write one name per line"):
        drawn({"val": "val.txt"}, root=tmp_path)


def test_one_block_for_all_cannot_be_divided():
    with pytest.raises(InputError, match="nothing is left for 'train' of 100 places in 1 blocks"):
        drawn({"val": 0.1}, blocks=dict.fromkeys(NAMES, "here"))


def test_blocks_of_ground(tmp_path):
    root = write_folders(tmp_path)
    header = read_header(root / "S2/a.tif", where="")
    assert block_of(header, 50_000) == "EPSG:32632:105:10"
    assert block_of(header, 1e9) == block_of(read_header(root / "S2/b.tif", where=""), 1e9)
    data = folders(root, splits={"val": 0.25, "test": 0.25}, split_blocks=50_000)
    assert [len(data.dataset(part)) for part in ("train", "val", "test")] == [2, 1, 1]
    with pytest.raises(InputError, match="in 1 blocks"):
        folders(root, splits={"val": 0.25}, split_blocks=10_000_000).dataset("train")


def test_blocks_of_files_without_a_place(tmp_path):
    root = write_folders(tmp_path)
    write(root / "S2/b.tif", np.ones((3, 24, 30), np.uint16), crs=None)
    with pytest.raises(InputError, match=r"split_blocks: .*S2/b\.tif has no place on Earth"):
        folders(root, splits={"val": 0.25}, split_blocks=1000).dataset("train")


def test_a_split_that_was_not_given(tmp_path):
    data = folders(write_folders(tmp_path), splits={"val": "b"})
    with pytest.raises(
        InputError, match=r"'test' is empty: splits names \['val'\].*splits\.test: 0"
    ):
        data.dataset("test")
