"""What several configurations, a checkpoint and flags say together: one test per rule."""

from pathlib import Path

import pytest
import yaml

from fusionlab.cli import run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

EXPERT = {"class_path": "FrozenExpert", "init_args": {"checkpoint": "a.ckpt", "strict": False}}
BASE = {
    "model": {
        "class_path": "SegmentationTask",
        "init_args": {
            "model": {
                "class_path": "LateFusion",
                "init_args": {
                    "experts": {"aerial": EXPERT, "sentinel2": EXPERT},
                    "fusion": {
                        "class_path": "FixedWeighted",
                        "init_args": {"weights": {"aerial": 0.7, "sentinel2": 0.3}},
                    },
                },
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.5, "eps": 1e-5}},
            "parameter_groups": {"model.fusion.*": {"lr": 1e-3}, "model.experts.*": {"lr": 1e-5}},
        },
    },
    "data": {
        "class_path": "Flair2DataModule",
        "init_args": {
            "root": "data",
            "modality_dropout": {"aerial": 0.1, "sentinel2": 0.2},
            "bands": {"aerial": ["red", "green"], "sentinel2": ["B02"]},
        },
    },
    "trainer": {
        "max_epochs": 3,
        "callbacks": [
            {"class_path": "EarlyStopping", "init_args": {"monitor": "val/miou", "patience": 9}}
        ],
    },
}


@pytest.fixture
def printed(tmp_path, capsys):
    """What a run would have: of files in this order, each given as its content, and flags."""

    def would_have(*files: dict | str, flags: tuple[str, ...] = (), base: dict = BASE) -> dict:
        args = []
        for number, content in enumerate((base, *files)):
            path = tmp_path / f"{number}.yaml"
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
            args += ["--config", str(path)]
        with pytest.raises(SystemExit):
            run(["fit", *args, *flags, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)

    return would_have


def model(**options) -> dict:
    """An overlay for arguments of the model inside the task."""
    return {"model": {"init_args": {"model": {"init_args": options}}}}


def data(**options) -> dict:
    return {"data": {"init_args": options}}


def inside(config: dict, *names: str) -> dict:
    """Arguments of the model inside the task, or of a part of it."""
    part = config["model"]["init_args"]["model"]["init_args"]
    for name in names:
        part = part[name]
    return part


# ---- key by key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overlay",
    [
        model(experts={"aerial": {"init_args": {"checkpoint": "x.ckpt"}}}),
        model(experts={"aerial": {**EXPERT, "init_args": {"checkpoint": "x.ckpt"}}}),
        model(experts={"aerial": {"checkpoint": "x.ckpt"}}),
        {"model": {"model": {"experts": {"aerial": {"checkpoint": "x.ckpt"}}}}},
        {"fit": model(experts={"aerial": {"init_args": {"checkpoint": "x.ckpt"}}}), "test": {}},
    ],
    ids=["whole", "class named", "short", "all short", "section"],
)  # fmt: skip
def test_one_argument_of_one_expert(printed, overlay):
    before, after = printed(), printed(overlay)
    assert inside(after, "experts", "aerial", "init_args").pop("checkpoint") == "x.ckpt"
    assert inside(before, "experts", "aerial", "init_args").pop("checkpoint") == "a.ckpt"
    assert after == before


@pytest.mark.parametrize(
    "flag",
    [
        "--model.model.experts.aerial.checkpoint",
        "--model.init_args.model.init_args.experts.aerial.init_args.checkpoint",
    ],
)
def test_a_flag_says_the_same(printed, flag):
    overlay = model(experts={"aerial": {"init_args": {"checkpoint": "x.ckpt"}}})
    assert printed(flags=(flag, "x.ckpt")) == printed(overlay)


def test_one_entry_of_a_dictionary_of_plain_values(printed):
    found = printed(data(modality_dropout={"aerial": 0.5}, bands={"sentinel2": ["B03", "B04"]}))
    options = found["data"]["init_args"]
    assert options["modality_dropout"] == {"aerial": 0.5, "sentinel2": 0.2}
    assert options["bands"] == {"aerial": ["red", "green"], "sentinel2": ["B03", "B04"]}


def test_one_entry_of_a_dictionary_in_a_dictionary(printed):
    overlay = {"model": {"init_args": {"parameter_groups": {"model.fusion.*": {"lr": 0.25}}}}}
    groups = printed(overlay)["model"]["init_args"]["parameter_groups"]
    assert groups == {"model.fusion.*": {"lr": 0.25}, "model.experts.*": {"lr": 1e-5}}


def test_an_entry_more(printed):
    found = printed(model(experts={"lidar": EXPERT}), data(modality_dropout={"lidar": 1e-3}))
    assert list(inside(found, "experts")) == ["aerial", "sentinel2", "lidar"]
    assert found["data"]["init_args"]["modality_dropout"]["lidar"] == 0.001


def test_later_ones_win_over_earlier_ones_whether_files_or_flags(printed, tmp_path, capsys):
    one = data(modality_dropout={"aerial": 0.4})
    two = data(modality_dropout={"aerial": 0.6})
    for files, expected in (((one, two), 0.6), ((two, one), 0.4)):
        found = printed(*files)["data"]["init_args"]["modality_dropout"]
        assert found == {"aerial": expected, "sentinel2": 0.2}
    found = printed(one, flags=("--data.modality_dropout.aerial", "0.9"))
    assert found["data"]["init_args"]["modality_dropout"]["aerial"] == 0.9
    # A file after flags wins over them where it says something, and nowhere else.
    flags = ("--data.modality_dropout.aerial", "0.8", "--data.modality_dropout.sentinel2", "0.7",
             "--model.model.experts.aerial.checkpoint", "flag.ckpt")  # fmt: skip
    last = {**one, **model(experts={"sentinel2": {"init_args": {"checkpoint": "file.ckpt"}}})}
    found = printed(flags=(*flags, "--config", yaml.safe_dump(last, default_flow_style=True)))
    assert found["data"]["init_args"]["modality_dropout"] == {"aerial": 0.4, "sentinel2": 0.7}
    for name, checkpoint in (("aerial", "flag.ckpt"), ("sentinel2", "file.ckpt")):
        options = inside(found, "experts", name, "init_args")
        assert options["checkpoint"] == checkpoint
        assert options["strict"] is False


def test_a_dictionary_given_as_a_flag_replaces_the_whole(printed):
    found = printed(flags=("--model.model.fusion.weights", '{"s1": 0.5, "s2": 0.5}'))
    assert inside(found, "fusion", "init_args", "weights") == {"s1": 0.5, "s2": 0.5}


def test_a_section_before_the_command_comes_first(tmp_path, capsys):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(yaml.safe_dump({"fit": BASE}))
    second.write_text(yaml.safe_dump(data(modality_dropout={"aerial": 0.5})))
    with pytest.raises(SystemExit):
        run(["--config", str(first), "fit", "--config", str(second), "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["modality_dropout"]
    assert found == {"aerial": 0.5, "sentinel2": 0.2}


# ---- what is replaced whole ------------------------------------------------------------------


def test_lists_are_replaced(printed):
    assert printed(data(bands={"aerial": ["blue"]}))["data"]["init_args"]["bands"]["aerial"] == [
        "blue"
    ]
    # Nothing stays of a callback because another has its place in the list.
    overlay = {
        "trainer": {
            "callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]
        }
    }
    (callback,) = printed(overlay)["trainer"]["callbacks"]
    assert (callback["init_args"]["monitor"], callback["init_args"]["patience"]) == ("val/loss", 3)


def test_another_class_keeps_only_the_arguments_that_it_takes_too(printed):
    overlay = {"model": {"init_args": {"optimizer": {"class_path": "torch.optim.SGD"}}}}
    assert printed(overlay) == printed(flags=("--model.optimizer", "torch.optim.SGD"))
    optimizer = printed(overlay)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert optimizer["init_args"]["lr"] == 0.5
    assert "eps" not in optimizer["init_args"]
    expert = {"class_path": "small_models.PixelExpert"}
    found = inside(printed(model(experts={"aerial": expert})), "experts")
    assert "checkpoint" not in found["aerial"]["init_args"]
    assert found["sentinel2"]["init_args"]["checkpoint"] == "a.ckpt"


@pytest.mark.parametrize("given", ["file", "flag"])
def test_another_class_has_its_own_defaults(printed, given):
    """AdamW is the default, with a weight decay of 0.01: nobody asked for one with Adam."""
    task = {k: v for k, v in BASE["model"]["init_args"].items() if k != "optimizer"}
    base = {**BASE, "model": {**BASE["model"], "init_args": task}}
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.5}}
    overlay = {"model": {"init_args": {"optimizer": adam}}}
    flags = ("--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.5")
    said = {"file": {"files": (overlay,)}, "flag": {"flags": flags}}[given]
    optimizer = printed(*said.pop("files", ()), **said, base=base)["model"]["init_args"][
        "optimizer"
    ]
    assert optimizer["class_path"] == "torch.optim.Adam"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["weight_decay"]) == (0.5, 0)
    default = printed(base=base)["model"]["init_args"]["optimizer"]
    assert default["init_args"]["weight_decay"] == 0.01


def test_what_is_said_of_another_class_is_not_mixed_with_the_earlier_one(printed):
    weighted = {"class_path": "Weighted", "init_args": {"weights": {"s1": 0.5, "s2": 0.5}}}
    overlay = model(fusion=weighted)
    overlay["model"]["init_args"]["model"]["class_path"] = "FeatureFusion"
    assert inside(printed(overlay), "fusion", "init_args", "weights") == {"s1": 0.5, "s2": 0.5}


@pytest.mark.parametrize("name", ["FixedWeighted", "fusionlab.fusion.FixedWeighted"])
def test_a_class_may_be_written_with_or_without_its_module(printed, name):
    fusion = {"class_path": name, "init_args": {"weights": {"aerial": 0.9}}}
    found = inside(printed(model(fusion=fusion)), "fusion", "init_args", "weights")
    assert found == {"aerial": 0.9, "sentinel2": 0.3}


# ---- null ------------------------------------------------------------------------------------


def test_null_takes_an_entry_out(printed):
    overlay = {
        **model(
            experts={"sentinel2": None},
            fusion={"init_args": {"weights": {"aerial": 1, "sentinel2": None}}},
        ),
        **data(modality_dropout={"sentinel2": None}),
    }
    found = printed(overlay)
    assert list(inside(found, "experts")) == ["aerial"]
    assert inside(found, "fusion", "init_args", "weights") == {"aerial": 1}
    assert found["data"]["init_args"]["modality_dropout"] == {"aerial": 0.1}
    assert list(inside(printed(overlay, model(experts={"sentinel2": EXPERT})), "experts")) == [
        "aerial",
        "sentinel2",
    ]


def test_null_is_the_value_of_an_option(printed):
    found = printed({"trainer": {"callbacks": None}}, data(modality_dropout=None))
    assert found["trainer"]["callbacks"] is None
    assert found["data"]["init_args"]["modality_dropout"] is None
    found = printed(data(modality_dropout=None), data(modality_dropout={"aerial": 0.5}))
    assert found["data"]["init_args"]["modality_dropout"] == {"aerial": 0.5}


@pytest.mark.parametrize("place", ["file", "flag"])
def test_null_for_what_is_not_there_is_a_mistake(tmp_path, place):
    file = tmp_path / "base.yaml"
    file.write_text(yaml.safe_dump(BASE))
    nothing = {
        "file": ("--config", yaml.safe_dump(model(experts={"sentinel": None}))),
        "flag": ("--model.model.experts.sentinel2", "null"),
    }[place]
    with pytest.raises(InputError, match=r"model.model.experts: expected a class, got null\."):
        run(["fit", "--config", str(file), *nothing, "--output", str(tmp_path / "out")])


# ---- a checkpoint comes first ----------------------------------------------------------------


@pytest.fixture(scope="module")
def fused(runs) -> Path:
    return runs / "fused" / "best.ckpt"


def test_an_overlay_changes_one_thing_of_a_checkpoint(fused, capsys):
    args = ["test", "--ckpt_path", str(fused), "--data", "Flair2DataModule", "--print_config"]
    found = []
    overlay = yaml.safe_dump(model(experts={"aerial": {"init_args": {"strict": False}}}))
    for more in ([], ["--config", overlay]):
        with pytest.raises(SystemExit):
            run([*args, *more])
        found.append(yaml.safe_load(capsys.readouterr().out))
    before, after = found
    assert inside(before, "experts", "aerial", "init_args", "expert") is not None
    assert inside(before, "experts", "aerial", "init_args").pop("strict") is True
    assert inside(after, "experts", "aerial", "init_args").pop("strict") is False
    assert after == before


def test_the_experts_of_a_checkpoint_stay_where_a_file_names_one(fused, flair2_root, tmp_path):
    overlay = {
        **model(experts={"aerial": {"init_args": {"checkpoint": "gone.ckpt"}}}),
        "data": {"class_path": "Flair2DataModule",
                 "init_args": {"root": str(flair2_root), "sen_crop_size": 12, "batch_size": 2}},
    }  # fmt: skip
    cli = run([
        "validate", "--ckpt_path", str(fused), "--config", yaml.safe_dump(overlay),
        "--output", str(tmp_path), "--trainer.accelerator", "cpu",
    ])  # fmt: skip
    assert list(cli.model.model.experts) == ["aerial", "sentinel2"]


# ---- mistakes name their file ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        (model(experts={"aerial": {"init_args": {"chekpoint": "x"}}}),
         "model.model.experts: no option 'chekpoint'. Did you mean checkpoint?"),
        (data(batchsize=3), "data: no option 'batchsize'. Did you mean batch_size?"),
        ({"model": {"init_args": {"loss": "Dicee"}}}, "model.loss: no class 'Dicee'. Did you mea"),
        ({"trainer": {"max_epochs": "ten"}}, "trainer.max_epochs: expected int or null, got ten."),
        ({"fit": data(root="x"), "trainer": {}}, "`trainer:` stands beside a section `fit:`."),
    ],
    ids=["expert", "data", "class", "type", "section"],
)  # fmt: skip
def test_a_mistake_in_one_of_several_files(tmp_path, overlay, says):
    base, second, third = (tmp_path / name for name in ("base.yaml", "second.yaml", "third.yaml"))
    for path, content in ((base, BASE), (second, overlay), (third, {"trainer": {"devices": 1}})):
        path.write_text(yaml.safe_dump(content))
    files = [arg for path in (base, second, third) for arg in ("--config", str(path))]
    with pytest.raises(InputError) as raised:
        run(["fit", *files, "--output", str(tmp_path / "out")])
    assert str(raised.value).startswith(f"{second}: {says}")


def test_a_model_beside_a_section_is_not_called_missing(tmp_path):
    file = tmp_path / "mixed.yaml"
    file.write_text(yaml.safe_dump({"model": BASE["model"], "fit": data(root="x")}))
    with pytest.raises(InputError, match="`model:` stands beside a section `fit:`"):
        run(["fit", "--config", str(file), "--output", str(tmp_path / "out")])


def test_a_long_configuration_on_the_command_line(printed):
    overlay = yaml.safe_dump(data(root="x" * 300), default_flow_style=True)
    assert printed(flags=("--config", overlay))["data"]["init_args"]["root"] == "x" * 300


def test_a_file_named_in_a_file_lies_beside_it(tmp_path, capsys):
    """The first file's folder, whatever folder the next one lies in."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "task.yaml").write_text(yaml.safe_dump(BASE["model"]))
    (tmp_path / "one" / "base.yaml").write_text(yaml.safe_dump({**BASE, "model": "task.yaml"}))
    overlay = model(experts={"aerial": {"init_args": {"checkpoint": "x.ckpt"}}})
    (tmp_path / "two" / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    files = [str(tmp_path / name) for name in ("one/base.yaml", "two/overlay.yaml")]
    with pytest.raises(SystemExit):
        run(["fit", "--config", files[0], "--config", files[1], "--print_config"])
    experts = inside(yaml.safe_load(capsys.readouterr().out), "experts")
    found = [experts[name]["init_args"]["checkpoint"] for name in ("aerial", "sentinel2")]
    assert found == ["x.ckpt", "a.ckpt"]
