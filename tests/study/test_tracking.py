"""The comparison goes where runs are tracked; trackers that cannot be made are refused."""

import json

import pytest
from finished_runs import study

from fusionlab.errors import InputError
from fusionlab.study import tracking
from fusionlab.study.report import write_report
from fusionlab.study.tracking import check_trackers, log_report

BOARD = {
    "class_path": "TensorBoardLogger",
    "init_args": {"save_dir": "{output}", "name": "tensorboard"},
}
OFFLINE = {
    "class_path": "lightning.pytorch.loggers.WandbLogger",
    "init_args": {"save_dir": "{output}", "project": "p", "name": "{output}", "offline": True},
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    runs = study(("rgb", "late, both", "early"), (0, 1), ("cubes", "spheres"))
    return write_report(runs, tmp_path_factory.mktemp("tracked"), title="t")


def test_tensorboard(report):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check_trackers([BOARD])
    log_report(report, [BOARD])
    (folder,) = (report.folder / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    best = report.comparison.rows[1].values["miou"].mean
    (score,) = events.Scalars("comparison/miou/late_both")
    assert score.value == pytest.approx(best)
    figures = ("curves", "per_class", "shares", "trade_off", "seeds")
    assert sorted(tags["images"]) == sorted(f"comparison/{name}" for name in figures)
    (picture,) = events.Images("comparison/curves")
    assert picture.width > 600
    (text,) = events.Tensors("comparison/table/text_summary")
    assert "late, both" in text.tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_weights_and_biases_offline(report, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    check_trackers([OFFLINE])
    log_report(report, [OFFLINE])
    assert wandb.run is None
    (offline,) = (report.folder / "wandb").glob("offline-run-*")
    media = offline / "files" / "media"
    (table,) = (media / "table" / "comparison").glob("table*.json")
    content = json.loads(table.read_text())
    row = dict(zip(content["columns"], content["data"][1], strict=True))
    assert row["member"] == "late, both"
    assert row["miou_mean"] == pytest.approx(report.comparison.rows[1].values["miou"].mean)
    (page,) = media.rglob("report*.html")
    assert page.read_text() == report.files["html"].read_text()
    assert len(list((media / "images" / "comparison").glob("*.png"))) == 5


@pytest.mark.slow
def test_mlflow_in_a_local_store(report, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no local store")
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = {"experiment_name": "e", "run_name": "study", "tracking_uri": uri}
    log_report(report, [{"class_path": "MLFlowLogger", "init_args": options}])
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    best = report.comparison.rows[1].values["miou"].mean
    assert run.data.metrics["comparison/miou/late_both"] == pytest.approx(best)
    files = {f.path for f in client.list_artifacts(run.info.run_id, "comparison")}
    assert {"comparison/report.html", "comparison/comparison.csv"} <= files
    images = [f.path for f in client.list_artifacts(run.info.run_id, "images")]
    assert sum("comparison~" in path and path.endswith(".png") for path in images) == 5


def test_a_tracker_that_fails_is_warned_of_and_the_rest_goes_on(report, monkeypatch):
    pytest.importorskip("tensorboard")

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    logged = []
    broken = {"class_path": "test_tracking.Broken"}
    table = {"class_path": "CSVLogger", "init_args": {"save_dir": "{output}"}}
    monkeypatch.setattr(Broken, "log_metrics", unreachable)
    monkeypatch.setattr(tracking, "_log_files", lambda logger, *_: logged.append(logger))
    with pytest.warns(UserWarning, match="not logged with Broken: no route to host"):
        log_report(report, [broken, table])
    assert [type(logger).__name__ for logger in logged] == ["CSVLogger"]


class Broken(tracking.TensorBoardLogger):
    def __init__(self):
        super().__init__("unused")


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ("WandbLogger", "`trackers:` is a list of loggers"),
        (["WandbLogger"], r"trackers\[0\] needs a class_path"),
        ([{"class_path": "WandLogger"}], "is no logger. Name one of .*WandbLogger"),
        ([{"class_path": "torch.nn.Linear"}], "'torch.nn.Linear' is no logger"),
        ([{"class_path": "nowhere.Logger"}], "'nowhere.Logger' is no logger"),
        ([BOARD, {**BOARD, "args": {}}], r"trackers\[1\] has class_path and init_args"),
        (
            [{"class_path": "CSVLogger", "init_args": {"save_dri": "x"}}],
            "CSVLogger takes no save_dri. It takes save_dir",
        ),
        ([{"class_path": "CSVLogger"}], "CSVLogger: missing a required argument: 'save_dir'"),
    ],
)
def test_trackers_that_cannot_be_made_are_refused(specs, message):
    with pytest.raises(InputError, match=message):
        check_trackers(specs)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "fusionlab\[wandb\]"'):
        check_trackers([OFFLINE])
