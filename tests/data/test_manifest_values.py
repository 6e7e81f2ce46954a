"""Words, numbers and labels of a manifest: vocabularies, categories, series and targets."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from manifest_files import (
    CLASSES,
    HEIGHT,
    LABELS,
    SEASONS,
    WEEKS,
    WIDE,
    change,
    manifest_data,
    read_rows,
    write_csv,
    write_manifest,
)
from tokenizers import Tokenizer

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX

ONLY_IMAGE = {"texts": None, "tables": None, "series": None}
ONLY_SITE = {"images": None, "texts": None, "series": None}
ONLY_TEXT = {"images": None, "tables": None, "series": None}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("small"), rows=12)


@pytest.fixture
def own(small, tmp_path) -> Path:
    """A manifest that a test may change."""
    shutil.copytree(small.parent, tmp_path / "own")
    return tmp_path / "own" / small.name


def samples(data, split="train") -> list[dict]:
    dataset = data.dataset(split)
    return [dataset[i] for i in range(len(dataset))]


def test_tokenizer_is_of_the_training_texts_and_reads_any_text(own, tmp_path):
    change(own, 11, caption="zebra zebra zebra zebra", split="test")
    json_of = manifest_data(own, **ONLY_TEXT).schema.modalities["caption"].tokenizer
    other = manifest_data(own, **ONLY_TEXT, statistics=str(tmp_path / "elsewhere"))
    assert other.schema.modalities["caption"].tokenizer == json_of
    tokenizer = Tokenizer.from_str(json_of)
    assert tokenizer.token_to_id("[PAD]") == 0
    assert tokenizer.get_vocab_size() <= 300
    assert len(tokenizer.encode("seen from above").ids) < len(tokenizer.encode("zebra ze").ids)
    for text in ("zebra", "Лес и поле", "森林と湖 🛰️", "x" * 10_000, "Ünïcode"):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids).strip() == text.lower()
    assert tokenizer.encode("").ids == []


def test_capitals_count_if_wanted(small):
    texts = {"caption": {"column": "caption", "vocabulary": 300, "lowercase": False}}
    data = manifest_data(small, **{**ONLY_TEXT, "texts": texts})
    tokenizer = Tokenizer.from_str(data.schema.modalities["caption"].tokenizer)
    assert tokenizer.encode("Dense").ids != tokenizer.encode("dense").ids


def test_categories_are_those_of_training_and_others_are_past_the_last(own, caplog):
    change(own, 10, season="monsoon")
    data = manifest_data(own, **ONLY_SITE, augment=False)
    assert data.schema.modalities["site"].categories == {"season": tuple(SEASONS)}
    found = {s["sample_id"]: s for split in ("val", "test") for s in samples(data, split)}
    rows = {row["id"]: row for row in read_rows(own)}
    (name,) = [name for name, row in rows.items() if row["season"] == "monsoon"]
    assert data.schema.modalities["site"].others == {"season": ("monsoon",)}
    (sample,) = [s for s in found.values() if s["inputs"]["site"][3] == len(SEASONS)]
    assert sample["inputs"]["site"][0].item() == pytest.approx(float(rows[name]["latitude"]))
    assert "monsoon" in caplog.text


def test_a_row_says_the_same_category_in_whatever_table_it_stands(own):
    """To predict a table of its own, rows drawn for training are no more than any other."""
    rows = read_rows(own)
    for i, row in enumerate(rows):
        row["season"] = f"season {i:02d}"
    write_csv(own, rows)
    for splits in ({"column": "split"}, {}):
        data = manifest_data(own, **ONLY_SITE, splits=splits, predict_split="all", target=None)
        site = data.schema.modalities["site"]
        names = [*site.categories["season"], *site.others.get("season", ())]
        found = [names[int(s["inputs"]["site"][3])] for s in samples(data, "predict")]
        assert found == [row["season"] for row in rows]


def test_categories_may_be_listed(small):
    listed = ["winter", "spring", "summer", "autumn"]
    site = {"columns": ["season", "elevation"], "categories": {"season": listed}}
    data = manifest_data(small, **{**ONLY_SITE, "tables": {"site": site}}, augment=False)
    assert data.schema.modalities["site"].categories == {"season": tuple(listed)}
    first = samples(data)[0]
    assert listed[int(first["inputs"]["site"][0])] == read_rows(small)[0]["season"]


def test_categories_of_numbers_stay_texts(own):
    for row in range(12):
        change(own, row, season=["10", "9", "007"][row % 3])
    data = manifest_data(own, **ONLY_SITE)
    assert data.schema.modalities["site"].categories == {"season": ("007", "9", "10")}


def test_a_constant_column_is_named_and_harmless(own, caplog):
    for row in range(12):
        change(own, row, elevation="312.5")
    site = manifest_data(own, **ONLY_SITE).schema.modalities["site"]
    assert (site.mean[2], site.std[2]) == (312.5, 1.0)
    assert "['elevation'] has one and the same value" in caplog.text


def test_a_column_without_values_is_named_and_harmless(own, caplog):
    for row in range(9):
        change(own, row, elevation="")
    site = manifest_data(own, **ONLY_SITE).schema.modalities["site"]
    assert (site.mean[2], site.std[2]) == (0.0, 1.0)
    assert "['elevation'] has no value" in caplog.text


def test_series_in_columns(small):
    options = {**ONLY_IMAGE, "series": {"ndvi": WIDE}}
    sample = samples(manifest_data(small, **options, augment=False))[5]
    cells = read_rows(small)[5]
    values = [float(cells[f"ndvi_{week:02d}"] or "nan") for week in range(1, WEEKS + 1)]
    series = sample["inputs"]["ndvi"]
    assert np.allclose(series.values[:, 0], values, equal_nan=True)
    assert series.values.isnan().any()
    start = np.datetime64("2023-01-02").astype(int)
    assert series.dates.tolist() == [start + 7 * week for week in range(WEEKS)]


def test_series_in_columns_may_start_anywhere(own):
    rows = [{**row, "first": f"2022-01-{i + 1:02d}"} for i, row in enumerate(read_rows(own))]
    write_csv(own, rows)
    wide = {**WIDE, "start": "first", "step": 5}
    data = manifest_data(own, **{**ONLY_IMAGE, "series": {"ndvi": wide}}, augment=False)
    dates = samples(data)[2]["inputs"]["ndvi"].dates
    assert dates[0] == np.datetime64("2022-01-03").astype(int)
    assert dates.diff().tolist() == [5] * (WEEKS - 1)


def test_series_files_of_any_form_are_put_in_order(own):
    folder = own.parent / "weather"
    (folder / "p000.csv").write_text(
        "date,temperature,ndvi,note\n20230110,3,,x\n20230102,1,0.5,y\n20230106,,0.25,\n"
    )
    days = pa.array([19_366, 19_359], pa.int32())
    table = pa.table({"date": days, "ndvi": [0.2, None], "temperature": [4, 5]})
    pq.write_table(table, folder / "p001.parquet")
    change(own, 1, weather="weather/p001.parquet")
    series = {"weather": {"column": "weather", "variables": ["ndvi", "temperature"]}}
    first, second = samples(manifest_data(own, series=series, augment=False))[:2]
    values = first["inputs"]["weather"].values
    assert np.allclose(values, [[0.5, 1], [0.25, np.nan], [np.nan, 3]], equal_nan=True)
    assert first["inputs"]["weather"].dates.diff().tolist() == [4, 4]
    assert second["inputs"]["weather"].dates.tolist() == [19_359, 19_366]
    assert np.allclose(second["inputs"]["weather"].values, [[np.nan, 5], [0.2, 4]], equal_nan=True)


def test_a_series_of_gaps_only_is_missing(own):
    (own.parent / "weather/p002.csv").write_text("date,ndvi,temperature\n2023-01-02,,\n")
    sample = samples(manifest_data(own, augment=False))[2]
    assert not sample["available"]["weather"]


def test_classes_are_names_or_indices(own):
    for row in range(12):
        change(own, row, land_use=["2", "1.0", "water"][row % 3])
    change(own, 0, land_use="")
    target = {"column": "land_use", "classes": CLASSES, "allow_missing": True}
    with pytest.raises(InputError, match=r"'1\.0' is none of the classes"):
        manifest_data(own, target=target)
    for row in range(12):
        change(own, row, land_use=["2", "1", "water"][row % 3])
    change(own, 0, land_use="")
    data = manifest_data(own, target=target)
    targets = [s["target"].item() for s in samples(data)][:4]
    assert targets == [IGNORE_INDEX, 1, 2, 2]


@pytest.mark.parametrize("column", ["land_use", "labels"])
def test_where_classes_are_called_by_numbers_a_number_is_a_name(own, column):
    for row in range(12):
        change(own, row, **{column: ["10", "20", "1"][row % 3]})
    kind = "class" if column == "land_use" else "classes"
    target = {"column": column, "kind": kind, "classes": ["10", "20", "30"]}
    with pytest.raises(
        InputError, match=rf"{column}: '1' is none of the classes \['10',.*30'\]\.\n"
    ):
        manifest_data(own, target=target)
    target["classes"] = ["20", "1", "10"]
    found = [s["target"] for s in samples(manifest_data(own, target=target))]
    expected = torch.tensor([2, 0, 1])
    for row, label in enumerate(found):
        assert (label if kind == "class" else label.argmax()) == expected[row % 3]


def test_several_classes_by_names_and_by_columns_are_the_same(small):
    columns = {"columns": [f"is_{c}" for c in CLASSES], "kind": "classes", "classes": CLASSES}
    named, ones = (manifest_data(small, target=target) for target in (LABELS, columns))
    assert named.schema.target == "multilabel"
    assert named.schema.classes == ones.schema.classes == tuple(CLASSES)
    for a, b in zip(samples(named), samples(ones), strict=True):
        assert torch.equal(a["target"], b["target"])
        assert a["target"].sum() >= 1


def test_a_sample_may_have_no_label_of_several(own):
    change(own, 0, labels="")
    assert samples(manifest_data(own, target=LABELS))[0]["target"].tolist() == [0, 0, 0]


def test_values_per_sample(own):
    change(own, 0, height="")
    target = {**HEIGHT, "allow_missing": True}
    data = manifest_data(own, target=target)
    assert (data.schema.target, data.schema.variables) == ("scalar_regression", ("height",))
    assert data.schema.units == ("m",)
    found = samples(data)
    assert found[0]["target"].isnan().all()
    assert found[1]["target"].item() == pytest.approx(float(read_rows(own)[1]["height"]))
