"""Rows go into splits by a column, by seeded shares, or by blocks of ground."""

from pathlib import Path

import numpy as np
import pytest
from manifest_files import manifest_data, read_rows, write_csv, write_manifest

from fusionlab.errors import InputError

SITE = {"images": None, "texts": None, "series": None}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"), rows=40)


def parts(manifest: Path, options: dict, **changes) -> dict[str, set[str]]:
    """Names of the samples of every split, as far as it has any."""
    data = manifest_data(manifest, splits=options, name="id", **{**SITE, **changes})
    found = {}
    for part in ("train", "val", "test"):
        try:
            dataset = data.dataset(part)
        except InputError:
            found[part] = set()
            continue
        found[part] = {dataset[i]["sample_id"] for i in range(len(dataset))}
    return found


def test_a_column_may_have_names_of_its_own(manifest, tmp_path):
    names = {"train": "Learn", "val": "dev1", "test": "hold-out"}
    rows = [{**row, "split": names[row["split"]]} for row in read_rows(manifest)]
    rows[0]["split"], rows[1]["split"], rows[39]["split"] = "", "other", "dev2"
    path = write_csv(tmp_path / "m.csv", rows)
    options = {"column": "split", "train": "learn", "val": ["dev1", "dev2"], "test": "hold-out"}
    found = parts(path, options)
    by_column = {row["id"]: row["split"] for row in rows}
    assert {by_column[name] for name in found["train"]} == {"Learn"}
    assert {by_column[name] for name in found["val"]} == {"dev1", "dev2"}
    assert len(set().union(*found.values())) == 38


def test_shares_are_drawn_by_seed(manifest):
    first, again = (parts(manifest, {"val": 0.2, "test": 0.1}) for _ in range(2))
    assert first == again
    assert [len(first[p]) for p in ("train", "val", "test")] == [28, 8, 4]
    assert parts(manifest, {"val": 0.2, "test": 0.1, "seed": 1}) != first
    assert [len(p) for p in parts(manifest, {}).values()] == [32, 4, 4]
    assert [len(p) for p in parts(manifest, {"train": 0.5, "test": 0.0}).values()] == [20, 4, 0]


def test_a_place_is_in_one_split(manifest):
    found = parts(manifest, {"val": 0.3, "test": 0.3}, place="place")
    place = {row["id"]: row["place"] for row in read_rows(manifest)}
    places = [{place[name] for name in part} for part in found.values()]
    assert sum(map(len, places)) == len(set().union(*places)) == 20


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"longitude": "longitude", "latitude": "latitude"}, {}),
        ({"x": "east", "y": "north"}, {}),
        ({}, {"images": {"image": {"column": "image", "bands": ["r", "g", "b", "n"]}}}),
    ],
)
def test_blocks_keep_neighbours_together(manifest, options, changes):
    rows = read_rows(manifest)
    # Rows lie 1 km apart eastwards; the table says 1.1 km northwards and every fourth eastwards.
    for i, row in enumerate(rows):
        row["east"], row["north"] = 500_000 + 1000 * i, 5_300_000
    path = write_csv(manifest.with_name("blocks.csv"), rows)
    found = parts(path, {"val": 0.3, "test": 0.3, "blocks": 5000.0, **options}, **changes)
    assert all(found.values())
    assert sum(map(len, found.values())) == 40

    def block(row: dict) -> tuple:
        if "longitude" in options:
            lat, lon = float(row["latitude"]) * 111_320, float(row["longitude"])
            north = lat // 5000
            shrunk = np.cos(np.radians((north + 0.5) * 5000 / 111_320))
            return north, lon * 111_320 * shrunk // 5000
        return ((row["east"] + (80 if not options else 0)) // 5000,)

    part_of = {name: part for part, names in found.items() for name in names}
    blocks: dict[tuple, set] = {}
    for row in rows:
        blocks.setdefault(block(row), set()).add(part_of[row["id"]])
    assert len(blocks) >= 8
    assert all(len(of) == 1 for of in blocks.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "split", "val": 0.1}, r"\['val'\] are the values that it has"),
        ({"val": "dev"}, r"\['val'\] are values of a column"),
        ({"val": 0.7, "test": 0.7}, r"make more than 1"),
        ({"val": -0.1}, r"above 0"),
        ({"blocks": 0.0, "x": "a", "y": "b"}, r"size in metres above 0"),
        ({"blocks": 10.0, "x": "latitude"}, r"give both x and y"),
        ({"x": "latitude", "y": "longitude"}, r"say their size"),
        ({"blocks": 10.0}, r"none of its images has a place on Earth"),
        ({"column": "split", "val": "x", "test": "x"}, r"'x' stands for val and for test"),
        ({"val": 0.5, "test": 0.5}, r"nothing is left for 'train'"),
    ],
)
def test_splits_that_make_no_sense(manifest, options, message):
    with pytest.raises(InputError, match=message):
        manifest_data(manifest, splits=options, **SITE)


def test_parts_of_splits(manifest):
    data = manifest_data(manifest, fraction=0.5, max_samples={"val": 1}, **SITE)
    assert len(data.dataset("train")) == 15
    assert len(data.dataset("val")) == 1
    whole = manifest_data(manifest, **SITE).schema.modalities["site"]
    assert data.schema.modalities["site"] == whole


@pytest.mark.parametrize(
    ("options", "dropped", "rows"),
    [
        ({"splits": {}}, (), 1),
        ({"splits": {}}, (), 2),
        ({"splits": {"column": "split"}}, ("split",), 5),
        ({"splits": {"column": "split"}, "place": "place"}, ("place",), 5),
        ({"splits": {"blocks": 10.0, "x": "latitude", "y": "longitude"}}, ("longitude",), 5),
        ({"splits": {"blocks": 10.0}}, (), 5),
    ],
)
def test_rows_to_predict_need_not_be_split(manifest, tmp_path, options, dropped, rows):
    gone = {*dropped, "land_use"}
    table = [{k: v for k, v in row.items() if k not in gone} for row in read_rows(manifest)[:rows]]
    path = write_csv(tmp_path / "new.csv", table)
    tables = {"site": {"columns": ["elevation", "season"], "categories": ["season"]}}
    changes = {**SITE, "tables": tables, "target": None, **options}
    data = manifest_data(path, **changes, predict_split="all")
    data.setup("predict")
    assert len(data.predict_dataloader().dataset) == rows
    with pytest.raises(InputError):  # what cannot be split is not trained on
        data.setup("fit")
    if dropped or rows < 3:
        with pytest.raises(InputError, match=r"To predict all rows .* `predict_split: all`"):
            manifest_data(path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "id"},
        {"name": "id", "place": "place"},
        {"name": "id", "place": "place", "splits": {"blocks": 5000.0, "x": "east", "y": "north"}},
        {"images": {"image": {"column": "image", "bands": ["r", "g", "b", "n"]}}},
        {"series": {"weather": {"column": "weather"}}},
        {
            "images": {"image": {"column": "image", "bands": ["r", "g", "b", "n"]}},
            "use": ["site"],
            "name": None,
        },
    ],
    ids=["name", "place", "blocks", "image", "series", "unused image"],
)
def test_sorting_and_adding_rows_moves_none_to_another_split(manifest, changes):
    def drawn(rows: list[dict]) -> dict[str, str]:
        path = write_csv(manifest.with_name("drawn.csv"), rows)
        splits = {"val": 0.3, "test": 0.3}
        given = {**SITE, **changes, "splits": splits | changes.get("splits", {})}
        data = manifest_data(path, **given)
        return {
            rows[row]["id"]: part
            for part in ("train", "val", "test")
            for row in data.dataset(part).rows.tolist()
        }

    rows = read_rows(manifest)
    for i, row in enumerate(rows):
        row["east"], row["north"] = 500_000 + 1000 * i, 5_300_000
    first = drawn(rows)
    assert len(set(first.values())) == 3
    assert drawn(rows[::-1]) == first
    if "splits" not in changes:  # a few blocks are all there is
        fewer = drawn(rows[4:])
        assert sum(fewer[name] != first[name] for name in fewer) <= 8


def test_places_that_a_column_has_in_several_splits_are_warned_of(manifest, tmp_path, caplog):
    rows = read_rows(manifest)
    for i, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[i // 2 % 3]
    manifest_data(write_csv(tmp_path / "m.csv", rows), place="place", **SITE)
    assert "more than one split" not in caplog.text
    rows[0]["split"] = rows[7]["split"] = "test"
    manifest_data(write_csv(tmp_path / "m.csv", rows), place="place", **SITE)
    assert "place: 2 of 20 places are in more than one split, such as 'place 0'" in caplog.text
