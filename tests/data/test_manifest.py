"""Samples of a manifest hold what its cells and files hold."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from manifest_files import (
    BANDS,
    CLASSES,
    RADAR,
    SEASONS,
    STACK,
    WIDE,
    change,
    manifest_data,
    read_rows,
    write_csv,
    write_manifest,
)

from fusionlab.data.manifest import images as images_of
from fusionlab.errors import InputError
from fusionlab.types import TimeSeries

ONLY_IMAGE = {"texts": None, "tables": None, "series": None}
ONLY_SITE = {"images": None, "texts": None, "series": None}
ONLY_TEXT = {"images": None, "tables": None, "series": None}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"))


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


def equal(a, b) -> bool:
    """Whether two samples or batches hold the same."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, TimeSeries):
        return all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    return a == b


def test_samples_hold_what_files_and_cells_hold(manifest):
    data = manifest_data(manifest, augment=False)
    sample, cells = samples(data)[4], read_rows(manifest)[4]
    with rasterio.open(manifest.parent / cells["image"]) as file:
        assert np.array_equal(sample["inputs"]["image"].numpy(), file.read())
    assert sample["inputs"]["image"].dtype == torch.uint16
    assert sample["inputs"]["caption"] == cells["caption"]
    site = [float(cells[c]) for c in ("latitude", "longitude", "elevation")]
    assert sample["inputs"]["site"].tolist() == pytest.approx([*site, SEASONS.index("winter")])
    weather = sample["inputs"]["weather"]
    lines = (manifest.parent / cells["weather"]).read_text().splitlines()[1:]
    assert weather.dates.tolist() == [
        int(np.datetime64(line.split(",")[0], "D").astype(int)) for line in lines
    ]
    ndvi = [float(line.split(",")[1] or "nan") for line in lines]
    assert np.allclose(weather.values[:, 0], ndvi, equal_nan=True)
    assert weather.values[3].isnan().tolist() == [True, False]
    assert weather.valid.all()
    assert (sample["target"].item(), sample["sample_id"]) == (1, "p004")
    assert all(there.item() for there in sample["available"].values())


def test_schema_says_what_is_delivered(manifest):
    data = manifest_data(manifest)
    kinds = {name: m.kind for name, m in data.schema.modalities.items()}
    assert kinds == {"image": "image", "caption": "text", "site": "table", "weather": "series"}
    assert (data.schema.target, data.schema.classes) == ("multiclass", tuple(CLASSES))
    modalities = data.schema.modalities
    assert (modalities["image"].gsd, modalities["image"].bands) == (10.0, tuple(BANDS))
    assert modalities["weather"].bands == ("ndvi", "temperature")
    assert modalities["weather"].temporal
    assert modalities["site"].categories == {"season": tuple(SEASONS)}
    assert type(data.schema).from_dict(json.loads(json.dumps(data.schema.to_dict()))) == data.schema


def test_batches_hold_every_kind_and_augmentation_leaves_words_alone(manifest):
    data = manifest_data(manifest, augment=True, place="place", drop_last=False)
    data.setup("fit")
    plain = {s["sample_id"]: s for s in samples(manifest_data(manifest, augment=False))}
    moved = 0
    for batch in data.train_dataloader():
        for i, name in enumerate(batch["sample_id"]):
            inputs = plain[name]["inputs"]
            assert batch["inputs"]["caption"][i] == inputs["caption"]
            assert equal(batch["inputs"]["site"][i], inputs["site"])
            assert equal(batch["inputs"]["weather"].values[i], inputs["weather"].values)
            image = batch["inputs"]["image"][i]
            moved += not torch.equal(image, inputs["image"])
            ordered = (x.int().flatten(1).sort(dim=1).values for x in (image, inputs["image"]))
            assert torch.equal(*ordered)
    assert moved


def test_parquet_and_csv_deliver_the_same(manifest, tmp_path):
    rows = read_rows(manifest)
    numeric = ("latitude", "longitude", "elevation", "height")
    columns = {
        name: [float(row[name]) if name in numeric else row[name] or None for row in rows]
        for name in rows[0]
    }
    table = pa.table(columns)
    season = table.schema.get_field_index("season")  # as pandas writes its categories
    table = table.set_column(season, "season", table.column("season").dictionary_encode())
    pq.write_table(table, tmp_path / "m.parquet")
    options = {"augment": False, "series": {"weather": {"column": "weather"}, "ndvi": WIDE}}
    ours = manifest_data(tmp_path / "m.parquet", root=str(manifest.parent), **options)
    theirs = manifest_data(manifest, **options)
    assert ours.schema == theirs.schema
    assert all(equal(a, b) for a, b in zip(samples(ours), samples(theirs), strict=True))


def test_spreadsheets_of_other_countries_are_read(manifest, tmp_path):
    rows = [{**row, "caption": "“Wälder, Seen”\nund 田"} for row in read_rows(manifest)]
    lines = [";".join(rows[0])]
    lines += [";".join('"' + row[name] + '"' for name in row) for row in rows]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    data = manifest_data(path, root=str(manifest.parent))
    assert samples(data)[0]["inputs"]["caption"] == "“Wälder, Seen”\nund 田"


@pytest.mark.parametrize("empty", ["", "NaN", "  "])
def test_empty_cells_are_missing_modalities(own, empty):
    change(own, 1, image=empty, caption=empty, weather=empty)
    change(own, 2, latitude=empty)
    change(own, 3, latitude=empty, longitude=empty, elevation=empty, season=empty)
    first, second, third = samples(manifest_data(own, augment=False))[1:4]
    there = {name: flag.item() for name, flag in first["available"].items()}
    assert there == {"image": False, "caption": False, "site": True, "weather": False}
    assert not first["inputs"]["image"].any()
    assert first["inputs"]["image"].dtype == torch.uint16
    assert first["inputs"]["caption"] == ""
    assert not first["inputs"]["weather"].valid.any()
    assert second["available"]["site"]
    assert second["inputs"]["site"].isnan().tolist() == [True, False, False, False]
    assert not third["available"]["site"]
    assert not third["inputs"]["site"].any()


def test_a_batch_with_missing_modalities_has_the_shapes_of_any_other(own):
    for row in range(8):
        change(own, row, image="" if row % 2 else f"images/p{row:03d}.tif", weather="")
    data = manifest_data(own, images={"image": {"column": "image"} | {"bands": BANDS}, "s": STACK})
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"]["image"].shape == (4, 4, 16, 16)
    assert batch["inputs"]["weather"].values.shape[2] == 2
    assert batch["available"]["image"].sum() < 4


def test_missing_takes_any_kind_away(manifest):
    data = manifest_data(manifest, missing=["caption", "site", "weather"])
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch["inputs"]["caption"] == [""] * len(batch["sample_id"])
    assert not batch["inputs"]["site"].any()
    assert not batch["inputs"]["weather"].valid.any()
    assert batch["available"]["image"].all()
    assert not any(batch["available"][n].any() for n in ("caption", "site", "weather"))


def test_modality_dropout_drops_words_and_numbers(manifest):
    data = manifest_data(manifest, modality_dropout={"caption": 1.0, "site": 1.0, "weather": 1.0})
    for sample in samples(data):
        assert sample["inputs"]["caption"] == ""
        assert [n for n, there in sample["available"].items() if there] == ["image"]


def test_statistics_are_of_the_training_split_and_computed_once(own, monkeypatch):
    data = manifest_data(own)
    train = samples(manifest_data(own, augment=False))
    site, weather = data.schema.modalities["site"], data.schema.modalities["weather"]
    image = data.schema.modalities["image"]
    pixels = torch.stack([s["inputs"]["image"] for s in train]).double()
    assert image.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert image.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())
    cells = torch.stack([s["inputs"]["site"] for s in train]).double()
    assert site.mean[:3] == pytest.approx(cells.mean(dim=0)[:3].tolist(), rel=1e-6)
    assert site.std[:3] == pytest.approx(cells.std(dim=0, correction=0)[:3].tolist(), rel=1e-4)
    assert (site.mean[3], site.std[3]) == (0.0, 1.0)
    values = torch.cat([s["inputs"]["weather"].values for s in train]).double()
    assert weather.mean == pytest.approx(values.nanmean(dim=0).tolist(), rel=1e-6)

    def never(*_args, **_options):
        pytest.fail("statistics are computed again")

    monkeypatch.setattr(images_of, "file_moments", never)
    assert manifest_data(own).schema == data.schema


def test_statistics_follow_the_files(own):
    before = manifest_data(own, **ONLY_IMAGE).schema.modalities["image"].mean
    with rasterio.open(own.parent / "images/p000.tif", "r+") as file:
        file.write(file.read() + 500)
    after = manifest_data(own, **ONLY_IMAGE).schema.modalities["image"].mean
    assert np.subtract(after, before) == pytest.approx([500 / 9] * 4)


def test_given_statistics_win(manifest):
    weather = {"column": "weather", "mean": [1.0, 2.0], "std": [3.0, 4.0]}
    site = {"columns": ["latitude", "elevation"], "mean": {"latitude": 45}, "std": {"latitude": 9}}
    data = manifest_data(manifest, series={"weather": weather}, tables={"site": site})
    assert data.schema.modalities["weather"].mean == (1.0, 2.0)
    assert data.schema.modalities["weather"].std == (3.0, 4.0)
    assert data.schema.modalities["site"].mean[0] == 45
    assert data.schema.modalities["site"].std[1] > 100


def test_workers_deliver_the_same_without_reading_the_manifest_again(manifest):
    batches = []
    for workers in (0, 2):
        options = {"images": {"image": {"column": "image"}, "radar": RADAR, "s": STACK}}
        options["images"]["image"]["bands"] = BANDS
        data = manifest_data(manifest, num_workers=workers, **options)
        data.setup("test")
        moved = manifest.with_suffix(".moved")
        manifest.rename(moved)
        try:
            batches.append(list(data.test_dataloader()))
        finally:
            moved.rename(manifest)
    assert len(batches[0]) == len(batches[1])
    assert all(equal(dict(a), dict(b)) for a, b in zip(*batches, strict=True))


def test_datasets_pickle(manifest):
    dataset = manifest_data(manifest, place="place").dataset("test")
    assert equal(pickle.loads(pickle.dumps(dataset))[1], dataset[1])


def test_samples_of_one_place_have_one_number(own):
    change(own, 3, place="")
    change(own, 2, place="")
    places = [s["place"].item() for s in samples(manifest_data(own, place="place"))]
    assert places[0] == places[1]
    assert len(set(places)) == len({*range(0, 9, 2)}) + 1


def test_data_without_a_target_deliver_none(manifest):
    data = manifest_data(manifest, target=None)
    assert "target" not in samples(data)[0]
    assert data.schema.classes == ()


def test_only_what_is_used_is_read(manifest):
    (manifest.parent / "other.csv").write_bytes(manifest.read_bytes())
    data = manifest_data(manifest, use=["caption", "site"])
    assert list(samples(data)[0]["inputs"]) == ["caption", "site"]


def test_prediction_needs_neither_labels_nor_splits(manifest, tmp_path):
    rows = [
        {k: v for k, v in row.items() if k not in ("split", "land_use")}
        for row in read_rows(manifest)
    ]
    path = write_csv(tmp_path / "new.csv", rows)
    data = manifest_data(path, root=str(manifest.parent), predict_split="all")
    found = samples(data, "predict")
    assert len(found) == len(rows)
    assert "target" not in found[0]
    assert "placement" not in found[0]


def test_rows_to_predict_may_lack_labels_until_they_are_tested(own):
    rows = read_rows(own)
    unlabelled = [i for i, row in enumerate(rows) if row["split"] == "test"]
    for i in unlabelled:
        change(own, i, land_use="")
    data = manifest_data(own)
    data.setup("fit")
    data.setup("predict")
    assert len(data.predict_dataloader().dataset) == len(unlabelled)
    rows = ", ".join(str(i + 1) for i in unlabelled)
    with pytest.raises(InputError, match=rf"rows {rows}, land_use: no class"):
        data.setup("test")
