from pathlib import Path

import numpy as np
import pytest
from map_predictions import predict_map
from raster_scenes import TinyTask, series, write

from fusionlab.callbacks.map_stream import MapStream
from fusionlab.errors import InputError


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interruption_leaves_nothing_behind(aerial, tmp_path, interrupt):
    task = TinyTask(fail_at=3)
    task.interrupt = interrupt
    options = {"probabilities": "uint8", "quicklook": True}
    with pytest.raises((SystemExit, RuntimeError)):
        predict_map({"aerial": aerial}, tmp_path / "maps", task=task, writer=options)
    assert list((tmp_path / "maps").iterdir()) == []


def test_an_interruption_keeps_the_map_of_an_earlier_run(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path / "maps")
    before = {p.name: p.read_bytes() for p in (tmp_path / "maps").iterdir()}
    task = TinyTask(fail_at=2)
    task.interrupt = RuntimeError()
    with pytest.raises(RuntimeError):
        predict_map({"aerial": aerial}, tmp_path / "maps", task=task)
    assert {p.name: p.read_bytes() for p in (tmp_path / "maps").iterdir()} == before


def test_a_map_with_missing_windows_is_not_written(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path / "maps", limit_predict_batches=2)
    assert list((tmp_path / "maps").iterdir()) == []


def test_unusable_input_leaves_nothing_behind(aerial, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        predict_map({"aerial": str(tmp_path / "no.tif")}, tmp_path / "maps")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="output folder"):
        predict_map({"aerial": aerial}, blocked)


def test_a_file_that_breaks_in_the_middle_is_named(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (5, 600, 600), np.uint8)
    path = Path(write(tmp_path / "a.tif", image, gsd=0.2, compress="deflate", interleave="band"))
    content = bytearray(path.read_bytes())
    late = len(content) - 4000  # the middle is looked at before anything is predicted
    content[late : late + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif cannot be read"):
        predict_map({"aerial": str(path)}, tmp_path / "maps")
    assert list((tmp_path / "maps").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(aerial, tmp_path, monkeypatch):
    def full(stream, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MapStream, "_write_rows", full)
    with pytest.raises(InputError, match="No space left on device"):
        predict_map({"aerial": aerial}, tmp_path / "maps")
    assert list((tmp_path / "maps").iterdir()) == []


def test_contributions_of_a_model_without_them_are_refused(aerial, tmp_path):
    class Mute(TinyTask):
        def predict_step(self, batch, batch_idx):
            return {"probabilities": super().predict_step(batch, batch_idx)["probabilities"]}

    with pytest.raises(InputError, match="cannot say what each modality contributes"):
        predict_map({"aerial": aerial}, tmp_path / "m", task=Mute(), writer={"contributions": True})
    assert list((tmp_path / "m").iterdir()) == []


def test_nothing_of_an_earlier_run_stays_beside_a_new_map(aerial, tmp_path):
    s2 = tmp_path / "s2"
    write(s2 / "S2_20210110.tif", series(1, 60)[0], gsd=10, x=-250, y=-250)
    rasters = {"aerial": aerial, "sentinel2": str(s2)}
    everything = {"probabilities": "uint8", "contributions": True, "quicklook": True}
    maps = tmp_path / "maps"
    predict_map(rasters, maps, writer=everything)
    for name in ("zone_probabilities.tif.aux.xml", "other_probabilities.tif", "zone_notes.txt"):
        (maps / name).write_text("")
    assert len(list(maps.iterdir())) == 8
    task = TinyTask(fail_at=2)
    task.interrupt = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):  # nothing goes before the new map is whole
        predict_map(rasters, maps, task=task)
    assert len(list(maps.iterdir())) == 8
    predict_map(rasters, maps, writer={"contributions": True})
    assert sorted(path.name for path in maps.iterdir()) == [
        "other_probabilities.tif",
        "zone_classes.tif",
        "zone_classes.tif.aux.xml",
        "zone_contributions.tif",
        "zone_notes.txt",
    ]
