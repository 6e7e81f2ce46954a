"""Maps of values: a model that answers with its inputs, so that every pixel is known."""

from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import rasterio
import torch
from map_predictions import predict_map, read
from matplotlib.image import imread
from raster_scenes import SCHEMA, TinyTask, series, smooth_image, write

from fusionlab.callbacks.map_layers import ValueLayer
from fusionlab.callbacks.map_stream import MapStream
from fusionlab.callbacks.quicklook import _value_figure
from fusionlab.callbacks.value_colors import color_limits, error_limits
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.tasks import RegressionTask
from fusionlab.types import Schema

VALUES = Schema(
    SCHEMA.modalities,
    target="regression",
    variables=("Höhe über Grund", "slope", "roughness"),
    units=("m", "%", ""),
)


class ValueTask(pl.LightningModule):
    """Answers with the first bands in other units, on which no window has any influence."""

    def __init__(self, *, tilt: float = 0.0) -> None:
        super().__init__()
        self.schema = VALUES
        self.model = torch.nn.Module()
        self.model.modalities = ("aerial",)
        self.explain = False
        self.tilt = tilt
        self.seen: list = []

    def predict_step(self, batch, batch_idx):
        self.seen.append(batch)
        bands = batch["inputs"]["aerial"][:, :3].float()
        values = bands * torch.tensor([0.5, -3, 1000]).view(1, 3, 1, 1) - 7
        # An error that grows to the borders of a window, as that of networks does.
        ramp = torch.linspace(-1, 1, bands.shape[-1]).abs() ** 8
        answer = {"values": values + self.tilt * ramp}
        if self.explain:
            share = torch.full_like(bands[:, 0], 0.25)
            answer["shares"] = {"aerial": share, "sentinel2": 1 - share}
        return answer


def expected(path):
    bands = read(path)[:3].astype(np.float32)
    return bands * np.array([0.5, -3, 1000], np.float32)[:, None, None] - 7


def test_values_are_written_with_their_names_and_units(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path / "maps", task=ValueTask())
    path = tmp_path / "maps" / "zone_values.tif"
    with rasterio.open(aerial) as source, rasterio.open(path) as file:
        assert (file.crs, file.transform, file.shape) == (
            source.crs, source.transform, source.shape,
        )  # fmt: skip
        assert file.dtypes == ("float32",) * 3
        assert np.isnan(file.nodata)
        assert file.descriptions == VALUES.variables
        assert [unit or "" for unit in file.units] == list(VALUES.units)
        assert file.block_shapes == [(256, 256)] * 3
        assert file.compression.name == "deflate"
        assert "CLASS_NAMES" not in file.tags()
        values = file.read()
    np.testing.assert_allclose(values, expected(aerial), rtol=1e-5)
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["zone_values.tif"]


class ThreeBands(Expert):
    """Answers with normalised bands."""

    def logits(self, values):
        return self.inputs(values)[:, :3]


def test_what_a_task_answers_is_written(aerial, tmp_path):
    task = RegressionTask(VALUES, partial(ThreeBands, modality="aerial"))
    predict_map({"aerial": aerial}, tmp_path / "maps", task=task)
    values = read(tmp_path / "maps" / "zone_values.tif")
    np.testing.assert_allclose(values, (read(aerial)[:3] - 100.0) / 50, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compress", ["lzw", "zstd"])
def test_other_compressions_hold_the_same(aerial, tmp_path, compress):
    predict_map({"aerial": aerial}, tmp_path, task=ValueTask(), writer={"compress": compress})
    with rasterio.open(tmp_path / "zone_values.tif") as file:
        assert file.compression.name == compress
        np.testing.assert_allclose(file.read(), expected(aerial), rtol=1e-5)


def test_overlapping_windows_are_blended(aerial, tmp_path):
    error = {}
    for overlap in (0, 64):
        output = tmp_path / str(overlap)
        data = {"overlap": overlap}
        predict_map({"aerial": aerial}, output, task=ValueTask(tilt=40.0), data=data)
        written = read(output / "zone_values.tif")[0, :, 64:300]
        error[overlap] = np.abs(written - expected(aerial)[0, :, 64:300]).max()
    assert error[0] > 39
    assert error[64] < 5


def test_nodata_of_the_raster_is_nan_in_the_map(tmp_path):
    image = smooth_image(150, 140)
    image[image == 0] = 1
    image[:, 40:90, 20:70] = 0
    path = write(tmp_path / "a.tif", image, gsd=0.2, nodata=0)
    predict_map({"aerial": path}, tmp_path / "maps", task=ValueTask())
    values = read(tmp_path / "maps" / "a_values.tif")
    hole = np.zeros((150, 140), bool)
    hole[40:90, 20:70] = True
    assert np.array_equal(np.isnan(values), np.broadcast_to(hole, values.shape))
    np.testing.assert_allclose(values[:, ~hole], expected(path)[:, ~hole], rtol=1e-5)


def test_an_answer_to_nothing_counts_for_nothing(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(30, 40), gsd=0.2)
    layers = [ValueLayer(("height",), ("m",))]
    stream = MapStream(path, tmp_path, window_height=30, layers=layers, answers=1, band_counts=[5])
    stream.add(0, 0, np.full((1, 30, 20), -12.5, np.float32))
    stream.add(0, 10, np.full((1, 30, 30), 99, np.float32), present=False)
    stream.close()
    assert stream.map == tmp_path / "a_values.tif"
    values = read(stream.map)[0]
    np.testing.assert_allclose(values[:, :20], -12.5, rtol=1e-6)
    assert np.isnan(values[:, 20:]).all()


def test_contributions_and_a_quick_look_are_written_on_request(aerial, tmp_path):
    s2 = tmp_path / "s2"
    write(s2 / "S2_20210110.tif", series(1, 60)[0], gsd=10, x=-250, y=-250)
    rasters = {"aerial": aerial, "sentinel2": str(s2)}
    options = {"contributions": True, "quicklook": True}
    predict_map(rasters, tmp_path / "maps", task=ValueTask(), writer=options)
    with rasterio.open(tmp_path / "maps" / "zone_contributions.tif") as file:
        assert file.descriptions == ("aerial", "sentinel2")
        assert (file.read() == [[[25]], [[75]]]).all()
    picture = imread(tmp_path / "maps" / "zone_quicklook.png")
    assert max(picture.shape) <= 1024
    assert picture.std() > 0.05
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["zone_contributions.tif", "zone_quicklook.png", "zone_values.tif"]


def test_probabilities_of_values_are_refused(aerial, tmp_path):
    task = ValueTask()
    writer = {"probabilities": "uint8"}
    with pytest.raises(InputError, match=r"gives values \(Höhe.*`probabilities: uint8`. Leave it"):
        predict_map({"aerial": aerial}, tmp_path / "maps", task=task, writer=writer)
    assert not task.seen
    assert not (tmp_path / "maps").exists()


def test_a_map_of_the_other_kind_does_not_stay(aerial, tmp_path):
    maps = tmp_path / "maps"
    everything = {"probabilities": "uint8", "quicklook": True}
    predict_map({"aerial": aerial}, maps, task=TinyTask(), writer=everything)
    (maps / "zone_values.tif.aux.xml").write_text("statistics of an earlier map")
    predict_map({"aerial": aerial}, maps, task=ValueTask())
    assert [path.name for path in maps.iterdir()] == ["zone_values.tif"]
    predict_map({"aerial": aerial}, maps)
    assert sorted(p.name for p in maps.iterdir()) == [
        "zone_classes.tif",
        "zone_classes.tif.aux.xml",
    ]


@pytest.mark.parametrize("variables", [1, 2, 3, 5])
def test_a_quick_look_has_a_bar_with_unit_for_every_variable(variables):
    names = [f"v{i}" for i in range(variables)]
    layer = ValueLayer(names, ["m"] * variables)
    values = np.random.default_rng(0).normal(size=(variables, 20, 30)).astype(np.float32)
    values[1:][-1:] = np.nan  # nothing was predicted
    figure, beside = _value_figure(values, layer)
    assert not beside.images
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == names
    bars = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert bars == [f"{name} [m]" for name in names]
    shown = maps[0].images[0]
    low, high = shown.get_clim()
    assert values[0].min() < low < high < values[0].max()  # but for outliers
    assert max(figure.get_size_inches()) * figure.dpi <= 1024


def test_colours_leave_outliers_out_and_always_have_a_range():
    values = np.linspace(0, 100, 1000, dtype=np.float32)
    values[7] = 1e6
    values[8:11] = np.nan, np.inf, -np.inf
    assert color_limits(values) == pytest.approx((2, 98), abs=0.5)
    flat = np.full(1000, 3, np.float32)
    low, high = color_limits(flat)
    assert low < 3 < high
    flat[0] = 5  # one in a thousand, and all there is to tell apart
    assert color_limits(flat) == (3, 5)
    assert color_limits(np.full(4, np.nan, np.float32)) == (0, 1)
    # Few known values are not outliers of many others.
    assert color_limits(values, np.float32([180, np.nan, 200])) == pytest.approx((2, 200), abs=0.5)
    low, high = error_limits(np.array([-1, 2, np.nan], np.float32))
    assert -low == high > 1.9
