"""What is wrong with a manifest is said before a run, all at once, with rows and columns."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from manifest_files import (
    BANDS,
    CLASSES,
    HEIGHT,
    LABELS,
    MASK,
    STACK,
    WIDE,
    change,
    manifest_data,
    read_rows,
    write_csv,
    write_manifest,
    write_raster,
)

from fusionlab.errors import InputError


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("small"), rows=12)


@pytest.fixture
def own(small, tmp_path) -> Path:
    """A manifest that a test may damage."""
    shutil.copytree(small.parent, tmp_path / "own")
    return tmp_path / "own" / small.name


def refusal(manifest: Path, stage: str = "fit", **options) -> str:
    with pytest.raises(InputError) as caught:
        manifest_data(manifest, **options).setup(stage)
    return str(caught.value)


def test_all_that_is_wrong_with_cells_is_said_at_once(own):
    change(own, 0, image="images/gone.tif")
    change(own, 2, elevation="high", latitude="47,5")
    change(own, 3, weather="weather/gone.csv")
    change(own, 4, land_use="")
    change(own, 6, split="trian")
    change(own, 7, **dict.fromkeys(("image", "caption", "weather"), ""))
    change(own, 7, **dict.fromkeys(("latitude", "longitude", "elevation", "season"), ""))
    said = refusal(own)
    root = own.parent
    for line in (
        "has 7 problems (the first row below the header is row 1)",
        f"row 1, image: there is no file {root}/images/gone.tif.",
        "row 3, elevation: expected a number, got 'high'.",
        "row 3, latitude: expected a number, got '47,5'.",
        f"row 4, weather: there is no file {root}/weather/gone.csv.",
        "row 5, land_use: no class.",
        "row 7, split: 'trian' is none of train, val and test.",
        "row 8, none of ['image', 'caption', 'site', 'weather'] is there.",
    ):
        assert line in said
    assert said.index("row 1,") < said.index("row 3,") < said.index("row 8,")


def test_all_that_is_wrong_with_files_is_said_at_once(own):
    root = own.parent
    (root / "images/p001.tif").write_bytes(b"no image")
    write_raster(root / "images/p002.tif", np.ones((3, 16, 16), np.uint16))
    write_raster(root / "images/p003.tif", np.ones((4, 16, 15), np.uint16))
    write_raster(root / "images/p004.tif", np.ones((4, 16, 16), np.uint16), gsd=20)
    (root / "weather/p005.csv").write_text("day,ndvi,temperature\n2023-01-01,1,2\n")
    (root / "weather/p006.csv").write_text("date,ndvi,temperature\n2023-01-01,high,2\n")
    (root / "weather/p009.csv").write_text("date,ndvi,temperature\nsoon,1,2\n")
    said = refusal(own)
    for line in (
        "row 2, image: ", "images/p001.tif cannot be read as an image (",
        "row 3, image: ", "p002.tif has 3 band(s), expected the 4 bands ['red', 'green', 'blue'",
        "row 4, image: ", "p003.tif has 16 × 15 pixels, the first 16 × 16: set images.image.size",
        "row 5, image: ", "p004.tif has pixels of 20 × 20 m, the first of 10 m",
        "row 6, weather: ", "p005.csv has the columns ['day', 'ndvi', 'temperature']: ['date']",
        "row 7, weather: ", "invalid value 'high'",
        "row 10, weather: ", "p009.csv has a date that is none: 'soon'.",
    ):  # fmt: skip
        assert line in said


def test_files_are_checked_again_where_statistics_are_known(own):
    manifest_data(own)
    for row in range(9, 12):  # of the other splits
        (own.parent / f"images/p{row:03d}.tif").write_bytes(b"no image")
    splits = [row["split"] for row in read_rows(own)]
    data = manifest_data(own)
    with pytest.raises(InputError) as caught:
        data.setup("fit")
    said = str(caught.value)
    assert said.count("cannot be read as an image") == splits[9:].count("val")
    data = manifest_data(own)
    with pytest.raises(InputError) as caught:
        data.setup("test")
    assert str(caught.value).count("cannot be read") == splits[9:].count("test")


def test_many_problems_are_counted(own):
    rows = [dict(row) for row in read_rows(own) * 2]
    for i, row in enumerate(rows[:-1]):
        row["elevation"] = row["longitude"] = f"{i}?"
    write_csv(own, rows)
    said = refusal(own)
    assert "has 46 problems" in said
    assert said.count("\n  row ") == 20
    assert "and 26 more." in said


def test_what_is_wrong_in_a_whole_column_is_one_line(own):
    rows = read_rows(own)
    for i, row in enumerate(rows):
        row["land_use"] = "crop" if i in (2, 4, 6, 7) else row["land_use"]
        row["caption"] = "" if i < 2 else row["caption"]
        row["height"] = "tall"
    write_csv(own, rows)
    site = {"columns": ["latitude", "season"]}
    target = {"column": "land_use", "classes": CLASSES}
    lines = refusal(
        own, tables={"site": site}, target=target, allow_missing=["image", "site", "weather"]
    ).splitlines()
    assert "has 18 problems" in lines[0]
    assert lines[1:4] == [
        "  rows 1, 2, 3 … (12 rows), season: expected a number, got 'autumn' and no number in any "
        "row. Is it one of `categories:`?",
        "  rows 1, 2, no caption. Fill it in, or allow it to be missing (allow_missing).",
        "  rows 3, 5, 7 … (4 rows), land_use: 'crop' is none of the classes ['crops', 'forest', "
        "'water'], nor an index of one.",
    ]
    assert "no number in any row. Is it another column?" in refusal(own, target=HEIGHT)


def test_many_files_with_one_problem_are_one_line(own):
    for row in range(9):
        change(own, row, image=f"elsewhere/p{row:03d}.tif")
    for row in range(3):
        change(own, row, weather=f"elsewhere/p{row:03d}.csv")
    lines = refusal(own).splitlines()
    folder = own.parent / "elsewhere"
    assert "has 12 problems" in lines[0]
    assert lines[1] == (f"  rows 1, 2, 3 … (9 rows), image: there is no file {folder}/p000.tif.")
    assert lines[2:5] == [
        f"  row {row + 1}, weather: there is no file {folder}/p{row:03d}.csv." for row in range(3)
    ]


def test_rows_in_no_split_may_hold_anything(own):
    for row in range(2):
        change(own, row, split="", elevation="high", image="gone.tif", weather="gone.csv")
        change(own, row, stack="gone.npz", mask="gone.tif", height="tall", ndvi_02="much")
    options = {
        "images": {"image": {"column": "image", "bands": BANDS}, "s": STACK},
        "series": {"weather": {"column": "weather"}, "ndvi": WIDE},
    }
    for target in ({"column": "land_use"}, HEIGHT, MASK):
        data = manifest_data(own, **options, target=target)
        data.setup("fit")
        assert data.schema.modalities["weather"].bands == ("ndvi", "temperature")
        assert len(data.dataset("train")) == 7
    change(own, 0, split="trian")
    assert "row 1, split: 'trian' is none of train, val and test" in refusal(own, **options)
    assert "elevation: expected a number, got 'high'" in refusal(own, predict_split="all")


def test_missing_is_refused_where_it_is_not_allowed(own):
    change(own, 1, image="", caption="")
    assert "row 2, no image. Fill it in" in refusal(own, allow_missing=False)
    said = refusal(own, allow_missing=["image", "weather"])
    assert "row 2, no caption." in said
    assert "no image" not in said
    assert "no modality 'radar'" in refusal(own, allow_missing=["radar"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"image": {"column": "imag"}}}, r"no column 'imag'. Did you mean 'image'"),
        ({"tables": {"site": {"columns": ["height2"]}}}, r"tables.site: .* no column 'height2'"),
        ({"splits": {"column": "part"}}, r"splits.column: .* no column 'part'"),
        ({"target": {"column": "use"}}, r"target.column: .* no column 'use'"),
        ({"place": "places"}, r"data.place: .* no column 'places'. Did you mean 'place'"),
        ({"name": "place"}, r"row 2, place: 'place 0' is the name of row 1, too"),
        ({"texts": {"caption": {"column": "caption", "vocabulary": 100}}}, r"at least 260"),
        ({"texts": {"image": {"column": "caption"}}}, r"'image' is the name of another modality"),
        ({"tables": {"site": {"columns": ["season"]}}}, r"season: expected a number, got 'autumn'"),
        (
            {"tables": {"site": {"columns": ["latitude"], "categories": ["season"]}}},
            r"\['season'\] are not among its columns",
        ),
        ({"series": {"s": {"variables": ["a"]}}}, r"series.s: name the column of its files, or"),
        ({"series": {"s": {**WIDE, "wide": {"a": "ndvi"}}}}, r"with \* in place of its number"),
        ({"series": {"s": {**WIDE, "wide": {"a": "b_*"}}}}, r"no column of .* fits 'b_\*'"),
        ({"series": {"s": {**WIDE, "start": "soon"}}}, r"'soon' is neither a date \(2021-04-15"),
        ({"series": {"s": {**WIDE, "start": None}}}, r"columns need the date of the first"),
        ({"series": {"s": {"column": "weather", "mean": [1.0], "std": [1.0]}}}, r"1 numbers for"),
        ({"images": {"s": {**STACK, "bands": None}}}, r"name the bands of a series of images"),
        ({"images": {"image": {"column": "image", "size": 0}}}, r"rows and columns, at least 1"),
        ({"images": {"image": {"column": "image"}}}, r"Say what the files' bands are"),
        ({"images": {"image": {"column": "image", "bands": BANDS, "mean": [1.0] * 3,
                               "std": [1.0] * 4}}}, r"3 numbers for 4 bands"),
        ({"images": {"image": {"column": "image", "bands": BANDS, "mean": [1.0] * 4}}},
         r"images.image: give both mean and std"),
        ({"images": {"image": {"column": "image", "bands": BANDS, "std": [1.0] * 4}}},
         r"images.image: give both mean and std"),
        ({"images": {"image": {"column": "image", "gsd": 0.0}}}, r"image.gsd: a pixel size in"),
        ({"images": {"image": {"column": "image", "gsd": -2}}}, r"above 0, got -2"),
        ({"crop": 8}, r"crop: 8 is of windows of images with a mask.* Leave it out"),
        ({"use": ["radar"]}, r"use: there is no modality 'radar'"),
        ({"images": None, "texts": None, "tables": None, "series": None}, r"at least one modality"),
        ({"target": {**MASK, "classes": None}}, r"give classes"),
        ({"target": {"columns": ["land_use"]}}, r"`columns` are for the kinds"),
        ({"target": {**HEIGHT, "classes": CLASSES}}, r"\['classes'\] say nothing of a target"),
        ({"target": {**HEIGHT, "units": ["m", "m"]}}, r"1 variables and 2 units for 1 columns"),
        ({"target": {**LABELS, "classes": ["crops"]}},
         r"rows 2, 3, 5 … \(7 rows\), labels: 'forest' is none of"),
        ({"target": {"column": "land_use", "classes": ["crops"]}}, r"'forest' is none of the"),
        ({"target": {"columns": ["height"], "kind": "classes"}}, r"expected 0 or 1, got"),
        ({"missing": ["radar"]}, r"data.missing: \['radar'\]"),
        ({"target": None, "crop": 8, "overlap": 8}, r"smaller than crop"),
        ({"predict_split": "tset"}, r"predict_split: there is no split 'tset'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(small, changes, message):
    with pytest.raises(InputError, match=message):
        manifest_data(small, **changes)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        manifest_data(tmp_path / "m.csv")
    for name, content, message in (
        ("m.csv", b"", "cannot be read"),
        ("m.csv", b"image,caption\n", "has no rows"),
        ("m.csv", b"image,image\na,b\n", r"\['image'\] more than once"),
        ("m.csv", b"image,caption\na\n", "cannot be read"),
        ("m.csv", b"image,caption\na,\xe4\xf6\n", "UTF-8"),
        ("m.parquet", b"PAR1", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            manifest_data(tmp_path / name)


def test_stacks_that_do_not_fit_are_refused(own):
    root = own.parent / "stacks"
    good = dict(np.load(root / "p000.npz"))
    np.savez(root / "p001.npz", **{**good, "dates": good["dates"][:3]})
    np.savez(root / "p002.npz", **{**good, "values": good["values"][:, :1]})
    np.savez(root / "p003.npz", values=good["values"], dates=good["dates"])
    np.savez(root / "p004.npz", **{**good, "clouds": good["clouds"][..., :3]})
    (root / "p005.npz").write_bytes(b"nothing")
    said = refusal(own, images={"s": STACK})
    for line in (
        "p001.npz has 5 images and 3 dates.",
        "p002.npz has 'values' of the shape (5, 1, 16, 16), expected (dates, 2 bands, rows,",
        "row 4, stack: ",
        "p004.npz has 'clouds' of the shape",
        "p005.npz cannot be read",
    ):
        assert line in said


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_arrays_of_other_names_are_listed(own, suffix):
    for row, cells in enumerate(read_rows(own)):
        held = dict(np.load(own.parent / cells["stack"]))
        if suffix == "h5":
            with h5py.File(own.parent / f"stacks/{row}.h5", "w") as file:
                file["optical/values"], file["clouds"] = held["values"], held["clouds"]
            change(own, row, stack=f"stacks/{row}.h5")
    names = {"npz": r"\['values', 'dates', 'clouds'\]", "h5": r"\['clouds', 'optical/values'\]"}
    for wrong in ("value", "optical"):  # a group is no array
        stack = {**STACK, "temporal": {"values": wrong}}
        with pytest.raises(InputError, match=rf"no array '{wrong}' among {names[suffix]}"):
            manifest_data(own, images={"s": stack})
    right = {"npz": "values", "h5": "optical/values"}[suffix]
    stack = {**STACK, "temporal": {"values": right, "dates": "day"}}
    with pytest.raises(
        InputError, match=rf"\(12 rows\), stack: .*no array 'day' among {names[suffix]}"
    ):
        manifest_data(own, images={"s": stack}).setup("fit")


def test_a_mask_is_of_classes_or_of_values_and_nothing_else_is_suggested(small):
    for wrong in ({"classes": None}, {"variables": ["height"]}):
        with pytest.raises(InputError, match="of a mask, give classes") as caught:
            manifest_data(small, target={**MASK, **wrong})
        assert "per_sample" not in str(caught.value)


def test_a_crop_of_whole_rows_is_refused(small):
    assert "here samples are whole rows" in refusal(small, target=None, crop=8)


def test_a_split_without_rows_is_named(own):
    write_csv(own, [{**row, "split": "train"} for row in read_rows(own)])
    assert "The split 'val' has no row" in refusal(own)
    assert "has no target, so there is nothing to compare with" in refusal(
        own, target={"column": "unknown"}, predict_split="all"
    )
