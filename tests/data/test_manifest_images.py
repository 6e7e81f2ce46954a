"""Images of a manifest: rasters, pictures and series of images, at their size or another."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import torch
from manifest_files import (
    BANDS,
    RADAR,
    SIZE,
    STACK,
    change,
    manifest_data,
    read_rows,
    write_manifest,
    write_raster,
)
from PIL import Image

from fusionlab.data import RandomD4
from fusionlab.data.manifest.images import fit
from fusionlab.errors import InputError

ONLY_IMAGES = {"texts": None, "tables": None, "series": None, "augment": False}
IMAGE = {"column": "image", "bands": BANDS}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("small"), rows=12)


@pytest.fixture
def own(small, tmp_path) -> Path:
    """A manifest that a test may change."""
    shutil.copytree(small.parent, tmp_path / "own")
    return tmp_path / "own" / small.name


def images(manifest: Path, *, row: int = 0, **columns: dict) -> dict:
    """The inputs of a training sample."""
    return manifest_data(manifest, **ONLY_IMAGES, images=columns).dataset("train")[row]["inputs"]


def test_modalities_have_resolutions_of_their_own(small):
    data = manifest_data(small, **ONLY_IMAGES, images={"image": IMAGE, "radar": RADAR, "s": STACK})
    gsd = {name: modality.gsd for name, modality in data.schema.modalities.items()}
    assert gsd == {"image": 10.0, "radar": 20.0, "s": 10.0}
    inputs = data.dataset("train")[0]["inputs"]
    assert inputs["image"].shape == (4, SIZE, SIZE)
    assert inputs["radar"].shape == (2, SIZE // 2, SIZE // 2)
    assert inputs["s"].values.shape == (3, 2, SIZE, SIZE)


def test_turns_move_all_images_together(small):
    columns = {"image": IMAGE, "radar": RADAR, "s": STACK}
    sample = manifest_data(small, **ONLY_IMAGES, images=columns).dataset("train")[0]
    torch.manual_seed(1)
    turned = RandomD4()(sample)
    for symmetry in RandomD4().choices(square=True):
        moved = symmetry(sample)["inputs"]
        same = [
            torch.equal(turned["inputs"]["image"], moved["image"]),
            torch.equal(turned["inputs"]["radar"], moved["radar"]),
            torch.equal(turned["inputs"]["s"].values, moved["s"].values),
        ]
        assert all(same) or not any(same)


def test_pictures_are_images(own):
    pixels = np.linspace(0, 250, 20 * 30 * 4).reshape(20, 30, 4).astype(np.uint8)
    folder = own.parent / "pictures"
    folder.mkdir()
    Image.fromarray(pixels[..., :3]).save(folder / "a.png")
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(folder / "b.png")
    Image.fromarray(pixels[..., :3]).save(folder / "c.jpg", quality=100)
    for row in range(12):
        change(own, row, image=f"pictures/{('a.png', 'b.png', 'c.jpg')[row % 3]}")
    data = manifest_data(own, **ONLY_IMAGES, images={"photo": {"column": "image"}})
    modality = data.schema.modalities["photo"]
    assert (modality.bands, modality.gsd) == (("red", "green", "blue"), 1.0)
    first, second, third = (data.dataset("train")[i]["inputs"]["photo"] for i in range(3))
    assert np.array_equal(first.permute(1, 2, 0), pixels[..., :3])
    assert torch.equal(first, second)
    assert (first.float() - third.float()).abs().mean() < 12


def test_transparent_pixels_are_not_observed(own):
    pixels = np.full((SIZE, SIZE, 4), 200, np.uint8)
    pixels[:4, :, 3] = 0
    pixels[:4, :, :3] = 7
    Image.fromarray(pixels).save(own.parent / "images/p000.png")
    for row in range(12):
        change(own, row, image="images/p000.png")
    data = manifest_data(own, **ONLY_IMAGES, images={"photo": {"column": "image"}})
    assert data.schema.modalities["photo"].mean == (200.0,) * 3
    assert data.dataset("train")[0]["inputs"]["photo"].unique().tolist() == [200]


def test_nodata_is_nan_or_the_mean_and_images_without_any_pixel_are_missing(own):
    values = np.full((2, 8, 8), -12.0, np.float32)
    values[0, 0, 0] = -9999
    write_raster(own.parent / "radar/p000.tif", values, gsd=20, nodata=-9999)
    write_raster(own.parent / "radar/p001.tif", np.full_like(values, -9999), gsd=20, nodata=-9999)
    counts = np.full((4, SIZE, SIZE), 500, np.uint16)
    counts[1, 3, 3] = 0
    write_raster(own.parent / "images/p000.tif", counts)
    data = manifest_data(
        own, **ONLY_IMAGES, images={"radar": RADAR, "image": {**IMAGE, "nodata": 0}}
    )
    first, second = data.dataset("train")[0], data.dataset("train")[1]
    assert first["inputs"]["radar"].isnan().nonzero().tolist() == [[0, 0, 0]]
    assert not second["available"]["radar"]
    mean = data.schema.modalities["image"].mean[1]
    assert first["inputs"]["image"][1, 3, 3] == round(mean)
    assert data.schema.modalities["radar"].mean[0] > -25


def test_images_of_any_size_are_resized_or_cropped(own):
    root = own.parent / "images"
    for row, (height, width) in enumerate([(32, 32), (24, 40), (16, 17)]):
        values = np.arange(height * width).reshape(1, height, width).repeat(4, 0)
        write_raster(root / f"p{row:03d}.tif", values.astype(np.float32), gsd=5 + 5 * row)
    small = {**IMAGE, "size": 8}
    data = manifest_data(own, **ONLY_IMAGES, images={"image": small})
    modality = data.schema.modalities["image"]
    assert modality.gsd == 5 * 32 / 8
    assert modality.preparation == {"size": [8, 8], "fitting": "resize"}
    for row in range(3):
        assert data.dataset("train")[row]["inputs"]["image"].shape == (4, 8, 8)
    first = data.dataset("train")[0]["inputs"]["image"]
    assert first.mean() == pytest.approx((32 * 32 - 1) / 2, rel=1e-3)
    cut = {**IMAGE, "size": [8, 16], "fitting": "crop", "gsd": 5.0}
    middle = images(own, row=1, image=cut)["image"]
    with rasterio.open(root / "p001.tif") as file:
        assert np.array_equal(middle, file.read()[:, 8:16, 12:28])
    with pytest.raises(InputError, match=r"row 3, image: .* has 16 × 17 pixels, fewer than"):
        manifest_data(own, **ONLY_IMAGES, images={"image": {**cut, "size": 18}}).setup("fit")


def test_resizing_heeds_what_was_observed():
    values = np.zeros((1, 8, 8), np.float32)
    values[:, :, :6] = 10
    mask = values == 10
    resized, seen = fit(values, mask, (4, 4), how="resize")
    assert seen[0, 0].tolist() == [True, True, True, False]
    assert np.allclose(resized[seen], 10)
    larger, _ = fit(np.full((1, 4, 4), 7, np.uint8), np.ones((1, 4, 4), bool), (9, 6), how="resize")
    assert larger.dtype == np.uint8
    assert (larger == 7).all()


def test_hidden_and_empty_dates_are_left_out_and_the_others_put_in_order(own):
    path = own.parent / "stacks/p000.npz"
    held = dict(np.load(path))
    order = [3, 0, 4, 2, 1]
    np.savez(path, **{name: array[order] for name, array in held.items()})
    series = images(own, s=STACK)["s"]
    kept = [0, 2, 3]
    assert np.array_equal(series.values, held["values"][kept])
    days = held["dates"].astype("datetime64[D]").astype(int)[kept]
    assert series.dates.tolist() == days.tolist()
    all_of = {**STACK, "temporal": {"hidden": "clouds", "hidden_area": None, "max_dates": 2}}
    assert images(own, s=all_of)["s"].dates.tolist() == [19_417, 19_447]
    monthly = images(own, s={**STACK, "temporal": {"monthly_means": True}})["s"]
    assert monthly.dates.tolist() == [np.datetime64("2023-03-15").astype(int)]
    assert torch.allclose(
        monthly.values[0], torch.from_numpy(held["values"][:4].astype(np.float32)).mean(dim=0)
    )


def test_a_series_under_clouds_is_missing(own):
    path = own.parent / "stacks/p000.npz"
    held = dict(np.load(path))
    np.savez(path, **{**held, "clouds": np.full_like(held["clouds"], 100)})
    data = manifest_data(own, **ONLY_IMAGES, images={"s": STACK, "image": IMAGE})
    sample = data.dataset("train")[0]
    assert not sample["available"]["s"]
    assert not sample["inputs"]["s"].valid.any()
    assert sample["inputs"]["s"].values.dtype == torch.uint16


def test_hdf5_files_hold_several_series(own):
    for row, cells in enumerate(read_rows(own)):
        held = dict(np.load(own.parent / cells["stack"]))
        path = own.parent / f"stacks/{row}.h5"
        with h5py.File(path, "w") as file:
            file["optical/data"] = held["values"]
            file["optical/masks"] = np.stack([held["clouds"] * 0, held["clouds"]], axis=1)
            names = [
                f"S2A_MSIL2A_{str(day).replace('-', '')}T102421_N0213_R065_T32UNC".encode()
                for day in held["dates"].astype("datetime64[D]")
            ]
            file["optical/products"] = names
            file["radar"] = held["values"][:2].astype(np.float64)
            file["days"] = np.array([19_000, 19_012])
        change(own, row, stack=str(path))
    optical = {
        **STACK,
        "temporal": {
            "values": "optical/data", "dates": "optical/products", "hidden": "optical/masks",
        },
    }  # fmt: skip
    radar = {**STACK, "temporal": {"values": "radar", "dates": "days"}}
    found = images(own, optical=optical, radar=radar)
    same = np.load(own.parent / "stacks/p000.npz")["values"][[0, 2, 3]]
    assert np.array_equal(found["optical"].values, same)
    assert found["radar"].dates.tolist() == [19_000, 19_012]
    assert found["radar"].values.dtype == torch.float32


def test_statistics_of_series_are_of_what_is_delivered(small):
    data = manifest_data(small, **ONLY_IMAGES, images={"s": STACK})
    dataset = data.dataset("train")
    values = [dataset[i]["inputs"]["s"].values.double() for i in range(len(dataset))]
    pixels = torch.cat(values).transpose(0, 1).flatten(1)
    modality = data.schema.modalities["s"]
    assert modality.temporal
    assert modality.mean == pytest.approx(pixels.mean(dim=1).tolist())
    assert modality.std == pytest.approx(pixels.std(dim=1, correction=0).tolist())


def test_scales_are_of_statistics_too(small):
    plain = manifest_data(small, **ONLY_IMAGES, images={"i": IMAGE}).schema.modalities["i"]
    scaled = manifest_data(small, **ONLY_IMAGES, images={"i": {**IMAGE, "scale": 0.1}})
    modality = scaled.schema.modalities["i"]
    assert modality.scale == (0.1,) * 4
    assert modality.mean == pytest.approx([0.1 * m for m in plain.mean])
    assert modality.std == pytest.approx([0.1 * s for s in plain.std])


def test_images_that_are_kept_are_read_once_and_not_changed(own):
    kept = manifest_data(own, **ONLY_IMAGES, images={"image": {**IMAGE, "keep": True}})
    samples = kept.dataset("train")
    first = samples[0]["inputs"]["image"]
    before = first.clone()
    first[:] = 0  # as a transform in place does
    name = read_rows(own)[0]["image"]
    for path in (own.parent / name).parent.glob("*"):
        path.unlink()
    assert torch.equal(samples[0]["inputs"]["image"], before)
    with pytest.raises(InputError):
        samples[1]
