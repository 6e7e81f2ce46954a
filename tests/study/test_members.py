"""Members: read as fit reads them, before anything is trained, and only if they are comparable."""

import copy
from pathlib import Path

import pytest
import yaml
from cli_runs import QUICK
from study_runs import fusion, write_study

from fusionlab.errors import InputError
from fusionlab.study.agreement import require_agreement, require_one_seed
from fusionlab.study.members import chosen_members, read_members, runs_of
from fusionlab.study.study_file import read_study

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = {"aerial": ["aerial.yaml"], "sentinel2": ["sentinel2.yaml"], "late": ["late.yaml"]}


@pytest.fixture(scope="module")
def written(tmp_path_factory, flair2_root):
    file = write_study(tmp_path_factory.mktemp("study"), flair2_root)
    study = read_study(file)
    return study, read_members(study)


def refused(folder: Path, root: Path, says: str, **changes) -> str:
    study = read_study(write_study(folder, root, **changes))
    with pytest.raises(InputError, match=says) as caught:
        read_members(study)
    return str(caught.value)


def test_members_are_read_as_fit_reads_them(written):
    _, members = written
    late = members["late"].config
    model = late["model"]["init_args"]["model"]
    assert model["class_path"] == "fusionlab.models.LateFusion"
    checkpoint = model["init_args"]["experts"]["aerial"]["init_args"]["checkpoint"]
    assert checkpoint == "{runs}/aerial/best.ckpt"
    assert late["trainer"]["max_epochs"] == 2  # of the study's overlay
    assert late["data"]["init_args"]["drop_last"] is True  # of the class
    assert late["output"] == late["checkpoint"]["dirpath"] == "{runs}/late"
    assert [member.needs for member in members.values()] == [(), (), ("aerial", "sentinel2")]


def test_runs_of_every_seed_have_their_own_folders(written):
    study, members = written
    runs = runs_of(members, study, (4, 7))
    assert [run.key for run in runs] == [f"{m}/{s}" for s in (4, 7) for m in members]
    last = runs[-1]
    assert last.folder == study.output / "seed_7" / "late"
    assert last.config["seed_everything"] == 7
    assert last.config["output"] == last.config["trainer"]["default_root_dir"] == str(last.folder)
    experts = last.config["model"]["init_args"]["model"]["init_args"]["experts"]
    expected = str(study.output / "seed_7" / "aerial" / "best.ckpt")
    assert experts["aerial"]["init_args"]["checkpoint"] == expected
    assert len({run.digest for run in runs}) == len(runs)


def digests(tmp_path, root, **changes) -> dict[str, str]:
    study = read_study(write_study(tmp_path, root, **changes))
    return {run.key: run.digest for run in runs_of(read_members(study), study, study.seeds)}


def test_digests_change_with_what_is_learned_and_nothing_else(tmp_path, flair2_root):
    before = digests(tmp_path, flair2_root)
    trainer = {**QUICK, "max_epochs": 2}
    shown = {**trainer, "enable_progress_bar": True, "log_every_n_steps": 7, "logger": False}
    overlay = {"trainer": shown, "data": {"init_args": {"num_workers": 2}}}
    assert digests(tmp_path, flair2_root, overlay=overlay, output=str(tmp_path / "b")) == before
    narrow = {"model": {"init_args": {"model": {"init_args": {"width": 4}}}}}
    after = digests(tmp_path, flair2_root, members={**FILES, "aerial": ["aerial.yaml", narrow]})
    # Who uses the run of another member changes with it.
    assert {key for key in after if after[key] != before[key]} == {"aerial/0", "late/0"}


def test_members_with_those_they_need(written):
    _, members = written
    assert list(chosen_members(members, ["late"])) == ["aerial", "sentinel2", "late"]
    assert list(chosen_members(members, ["sentinel2"])) == ["sentinel2"]
    assert list(chosen_members(members, None)) == list(members)
    with pytest.raises(InputError, match=r"--members: no member 'lat'. Did you mean late\?"):
        chosen_members(members, ["lat"])


def test_a_mistake_in_the_last_member_is_found_at_once(tmp_path, flair2_root):
    (tmp_path / "odd.yaml").write_text("trainer: {max_epoch: 3}\n")
    said = refused(
        tmp_path, flair2_root, r"no option 'max_epoch'. Did you mean max_epochs",
        members={**FILES, "late": ["late.yaml", "odd.yaml"]},
    )  # fmt: skip
    assert "members.late: " in said
    assert "odd.yaml" in said
    assert said.count("\n") <= 2


def test_a_mistake_beside_a_placeholder_names_its_file(tmp_path, flair2_root):
    file = write_study(tmp_path, flair2_root)
    late = yaml.safe_load((tmp_path / "late.yaml").read_text())
    late["model"]["init_args"]["model"]["init_args"]["fusion"]["class_path"] = "ClassWeigted"
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(late))
    content = yaml.safe_load(file.read_text())
    content["members"]["late"] = ["bad.yaml"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(InputError, match=r"members\.late: bad\.yaml: .*ClassWeighted\?"):
        read_members(read_study(file))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"a": {"model": {"init_args": {"model": fusion()}}}},
         r"members\.a: \S+ uses \{runs\}/sentinel2, but there is no member 'sentinel2'"),
        ({"aerial": {"model": {"init_args": {"model": fusion()}}}, "sentinel2": {}},
         r"uses the member's own run, \{runs\}/aerial"),
        ({"aerial": {"ckpt_path": "last"}}, r"ckpt_path"),
        ({"aerial": {"trainer": {"fast_dev_run": True}}}, r"trainer\.fast_dev_run leaves no"),
        ({"aerial": {"trainer": {"enable_checkpointing": False}}}, r"leaves no checkpoint"),
    ],
)  # fmt: skip
def test_members_that_cannot_be_run(tmp_path, flair2_root, changes, says):
    members = {name: ["aerial.yaml", overlay] for name, overlay in changes.items()}
    members.setdefault("aerial", ["aerial.yaml"])
    refused(tmp_path, flair2_root, says, members=members)


def test_members_that_need_each_other(tmp_path, flair2_root):
    def using(name: str) -> dict:
        model = {"class_path": "small_models.PixelExpert", "init_args": {}}
        return {"model": {"init_args": {"model": model}}, "data": {"init_args": {
            "centroids": f"{{runs}}/{name}/x"}}}  # fmt: skip

    refused(
        tmp_path, flair2_root, r"need each other's runs: b needs c needs b",
        members={"a": ["aerial.yaml", using("b")], "b": ["aerial.yaml", using("c")],
                 "c": ["aerial.yaml", using("b")]},
    )  # fmt: skip


# ---- what may differ ----------------------------------------------------------------------------


@pytest.fixture
def configs(written) -> dict[str, dict]:
    return {name: copy.deepcopy(member.config) for name, member in written[1].items()}


def change(config: dict, key: str, value: object) -> None:
    *path, last = key.split(".")
    for name in path:
        config = config[name]
    config[last] = value


def agreed(configs: dict, *allowed: str) -> list[str]:
    return require_agreement(configs, allowed=allowed, where="study.yaml")


def test_members_of_other_modalities_are_comparable(configs):
    assert agreed(configs) == []
    change(configs["late"], "data.init_args.num_workers", 4)
    change(configs["late"], "data.init_args.pin_memory", True)
    assert agreed(configs) == []


def test_other_seeds_are_refused_unless_allowed(configs):
    def seeds(*allowed: str) -> list[str]:
        return require_one_seed(configs, allowed=allowed, where="study.yaml")

    assert seeds() == []
    change(configs["late"], "seed_everything", 7)
    with pytest.raises(InputError, match=r"seed_everything  \d+ \(aerial, sentinel2\) \| 7 \(late"):
        seeds()
    (remark,) = seeds("seed_everything")
    assert "the study's are used" in remark


def test_modalities_of_other_bands_are_not(configs):
    bands = {"aerial": {"s1": ["VV"]}, "sentinel2": {"s2": ["B02"]},
             "late": {"s1": ["VV"], "s2": ["B02"]}}  # fmt: skip
    for name, config in configs.items():
        config["data"]["init_args"]["modalities"] = bands[name]
    assert agreed(configs) == []
    change(configs["late"], "data.init_args.modalities", None)  # all there are
    assert agreed(configs) == []
    change(configs["late"], "data.init_args.modalities", {"s1": ["VV", "VH"]})
    with pytest.raises(InputError, match=r'modalities\.s1  \["VV"\] \(aerial\) \| \["VV", "VH"\]'):
        agreed(configs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.init_args.root", "elsewhere"),
        ("data.init_args.augment", False),
        ("data.init_args.missing", ["aerial"]),
        ("data.class_path", "my.DataModule"),
        ("trainer.limit_test_batches", 3),
        ("trainer.limit_train_batches", 3),
    ],
)
def test_other_data_are_refused_unless_allowed(configs, key, value):
    change(configs["late"], key, value)
    with pytest.raises(InputError, match="members differ in data") as caught:
        agreed(configs)
    first, table, last = str(caught.value).splitlines()
    assert first.startswith("study.yaml: ")
    assert table.startswith(f"  {key}  ")
    assert "(aerial, sentinel2) | " in table
    assert table.endswith(" (late)")
    assert last.endswith(f"--allow-differences {key}")
    with pytest.raises(InputError):
        agreed(configs, "data.init_args.aug")
    for allowed in (key, key.replace(".init_args", ""), key.split(".")[0]):
        (remark,) = agreed(configs, allowed)
        assert remark.startswith(f"Data differ, as allowed: {key}: ")


def test_other_training_is_remarked(configs):
    change(configs["late"], "model.init_args.optimizer.init_args.lr", 0.5)
    change(configs["late"], "trainer.max_epochs", 9)
    change(configs["late"], "trainer.precision", "bf16-mixed")
    change(configs["late"], "data.init_args.batch_size", 4)
    change(configs["late"], "trainer.logger", False)  # changes nothing that is learned
    lr = configs["aerial"]["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert agreed(configs) == [
        f"Not identical: model.init_args.optimizer.init_args.lr: {lr} (aerial, sentinel2) | 0.5 "
        "(late)",
        'Not identical: trainer.precision: null (aerial, sentinel2) | bf16-mixed (late)',
        "Not identical: trainer.max_epochs: 2 (aerial, sentinel2) | 9 (late)",
        "Not identical: data.init_args.batch_size: 2 (aerial, sentinel2) | 4 (late)",
    ]  # fmt: skip


def test_what_most_have_is_not_listed(configs):
    many = {f"m{i}": configs["late"] for i in range(5)}
    other = copy.deepcopy(configs["late"])
    change(other, "trainer.max_epochs", 9)
    (remark,) = agreed({**many, "odd": other})
    assert remark.endswith("2 (the others) | 9 (odd)")
