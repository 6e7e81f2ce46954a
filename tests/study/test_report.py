"""A report is written whole or not at all, and its page holds everything."""

import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished_runs import LAND_COVER, STRATEGIES, config, finished, study, write_run

from fusionlab.errors import InputError
from fusionlab.study.figures import comparison_figures, drawn_class_score
from fusionlab.study.finished import read_runs
from fusionlab.study.report import Report, write_report
from fusionlab.study.settings import config_text, differences, terms
from fusionlab.study.table import compare

COMMAND = "fusionlab compare --config study.yaml"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text, links to elsewhere and unclosed tags of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.words, self.elsewhere, self.ids, self.links = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in named:
            self.ids.append(named["id"])
        for key in ("src", "href", "srcset", "data", "action"):
            if key in named and named[key].startswith("#"):
                self.links.append(named[key][1:])
            elif key in named and not named[key].startswith("data:image/png;base64,"):
                self.elsewhere.append(named[key])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(" ".join(data.split()))

    @property
    def text(self):
        return " ".join(word for word in self.words if word)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """Eight members, three seeds, nineteen classes."""
    return write_report(
        study(),
        tmp_path_factory.mktemp("study"),
        title="Early & late <fusion>",
        failed={"iaff, seed 1": "the loss is not a number"},
        remarks=["augment differs: allowed"],
        command=COMMAND,
    )


def test_all_files_are_there(report):
    assert {path.name for path in report.folder.iterdir()} == {
        "comparison.md", "comparison.csv", "per_class.csv", "comparison.json", "report.html",
        "curves.png", "per_class.png", "shares.png", "trade_off.png", "seeds.png",
    }  # fmt: skip
    assert {path.name for path in report.files.values()} == {
        path.name for path in report.folder.iterdir()
    }
    for kind, path in report.files.items():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG"), kind
    content = json.loads(report.files["json"].read_text())
    assert content["failed"] == {"iaff, seed 1": "the loss is not a number"}
    assert content["significance"]["best"] == report.comparison.best.member
    assert "augment differs: allowed" in content["remarks"]


def test_the_page_has_everything_and_needs_nothing(report):
    html = report.files["html"].read_text()
    assert len(html) < 5e6
    page = Page(html)
    assert page.elsewhere == []
    assert "@import" not in html
    assert "url(" not in html
    assert set(page.links) <= set(page.ids)
    assert "prefers-color-scheme: dark" in html
    text = page.text
    assert "Early & late <fusion>" in text
    for row in report.comparison.rows:
        for column in report.comparison.columns:
            assert column.text(row.values[column.key]) in text
    for words in (*report.significance.sentences(), *report.significance.limits()):
        assert " ".join(words.split()) in text
    assert "iaff, seed 1 : the loss is not a number" in text
    assert "augment differs: allowed" in text
    assert f"$ {COMMAND}" in text
    assert "fusionlab 0.1.0, torch 2.6" in text
    assert html.count("<img") == 5
    assert html.count("class_path: fusionlab.models.LateFusion") == len(STRATEGIES)
    for name in ("curves", "per_class", "shares", "trade_off", "seeds"):
        assert f'id="figure-{name}"' in html


def test_names_cannot_write_into_the_page(tmp_path):
    evil = "</script><script>alert(1)</script>\"'&"
    runs = study((evil, "b"), (0, 1), (evil, "x"))
    for run in runs:
        run.config["data"]["init_args"]["root"] = evil
    html = write_report(
        runs, tmp_path, title=evil, failed={evil: evil}, remarks=[evil], command=evil
    ).files["html"].read_text()  # fmt: skip
    assert html.count("<script>") == 1
    assert evil in Page(html).text


def test_a_bare_minimum(tmp_path):
    """One member, one seed, nothing but a score, as a user's own task may leave it."""
    written = write_report([finished("own", None, {"loss": 0.5})], tmp_path / "a" / "b", title="t")
    assert set(written.files) == {"markdown", "csv", "per_class_csv", "json", "html"}
    assert written.significance is None or not written.significance.tests
    page = Page(written.files["html"].read_text())
    assert "own is best of 1 in the test: loss 0.500" in page.text
    assert "Training" not in page.ids


def test_a_later_report_takes_the_place_of_an_earlier_one(tmp_path):
    few = (0, 1), ("x",)
    write_report(study(("a", "b"), *few), tmp_path, title="first")
    assert (tmp_path / "shares.png").exists() is False  # the first two have none
    write_report(study(("a", "b", "c"), *few), tmp_path, title="second")
    assert (tmp_path / "shares.png").exists()
    write_report([finished("own", 0, {"miou": 0.5})], tmp_path, title="third")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "comparison.csv", "comparison.json", "comparison.md", "per_class.csv", "report.html",
    ]  # fmt: skip


def test_what_fails_leaves_the_earlier_report_as_it_was(tmp_path, monkeypatch):
    runs = study(("a", "b"), (0, 1), ("x",))
    write_report(runs, tmp_path, title="first")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(path, content):
        if path.name == "report.html":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot be written into .*No space left on device"):
        write_report(runs, tmp_path, title="second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written into"):
        write_report([finished("a", 0, {"miou": 1.0})], tmp_path / "file", title="t")


def test_an_unknown_score_does_not_lose_the_report(tmp_path):
    runs = study(("a", "b"), (0, 1), ("x",))
    written = write_report(runs, tmp_path, title="t", score="mious")
    said = "No run has the score 'mious': ranked by test/miou instead. Did you mean test/miou?"
    assert said in Page(written.files["html"].read_text()).text
    assert f"- {said}" in written.files["markdown"].read_text()
    assert said in json.loads(written.files["json"].read_text())["remarks"]


def test_caveats_and_failures_are_everywhere(report, capsys):
    report.print()
    for text in (capsys.readouterr().out, report.files["markdown"].read_text()):
        assert "- Not compared: iaff, seed 1: the loss is not a number" in text
        assert "- augment differs: allowed" in text


def test_of_the_best_its_name_and_the_ranking_score_are_bold(report):
    html = report.files["html"].read_text()
    best = report.comparison.best
    ranking = report.comparison.columns[0]
    bold = re.findall(r'<t[hd][^>]* class="best"[^>]*>([^<]*)<', html)
    score = ranking.text(best.values[ranking.key])
    # Scores, cost and all scores.
    assert bold == [best.member, score, best.member, best.member, score]


def test_columns_are_explained(report):
    text = Page(report.files["html"].read_text()).text
    assert "memory (MiB): most that the whole process held" in text
    assert "s per epoch: of training, with the reading of samples, without validation." in text


def test_numbers_of_every_class_are_on_the_page(report):
    text = Page(report.files["html"].read_text()).text
    folded = text[text.index("IoU, % of every class") :]
    assert f"class {' '.join(STRATEGIES)} {LAND_COVER[0]}" in folded
    values = [r.per_class["test/iou"]["Inland waters"] for r in report.comparison.runs["late"]]
    mean, std = statistics.mean(values), statistics.stdev(values)
    assert f"{100 * mean:.2f} ± {100 * std:.2f} Marine waters" in folded


@pytest.mark.parametrize(
    ("ranking", "drawn"),
    [
        ("overall_accuracy", "f1"), ("f1_macro", "f1"), ("ap_micro", "ap"), ("miou", "iou"),
        ("loss", "iou"),
    ],
)  # fmt: skip
def test_the_score_of_classes_is_that_of_the_ranking_one(ranking, drawn):
    scores = {ranking: 0.5, "ap/x": 0.1, "f1/x": 0.2, "iou/x": 0.3, "support/x": 4.0}
    assert drawn_class_score(compare([finished("a", 0, scores)], ranking)) == drawn


def test_curves_of_training_are_means_over_epochs(tmp_path):
    """The loss of single steps is drawn for nobody."""
    epochs = [(1.0, 0.5), (2.0, 0.4)]
    means = finished("means", 0, {"miou": 0.5}, curves={"train/loss_epoch": epochs})
    steps = finished("steps", 0, {"miou": 0.5}, curves={"train/loss": epochs})
    (axes,) = comparison_figures(compare([means, steps]))["curves"].axes
    assert axes.get_title(loc="left") == "training: loss"
    assert len(axes.lines) == 1
    assert "curves" not in comparison_figures(compare([steps]))


@pytest.mark.parametrize(
    ("more", "said"),
    [({}, "1 setting besides the model is not"), ({"size": 9}, "2 settings besides the model are")],
)
def test_one_setting_or_several(tmp_path, more, said):
    runs = [
        finished("a", 0, {"miou": 1.0}),
        finished("b", 0, {"miou": 1.0}, config=config(0, batch_size=4, **more)),
    ]
    html = write_report(runs, tmp_path, title="t").files["html"].read_text()
    assert said in Page(html).text


def test_errors_come_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="are both the run a, seed 0"):
        write_report([finished("a", 0, {"miou": 1.0})] * 2, tmp_path / "new", title="t")
    assert not (tmp_path / "new").exists()


def test_the_report_of_folders(tmp_path):
    """What `fusionlab compare runs/*` does."""
    rows = "epoch,step,train/loss,val/loss\n0,0,0.9,\n0,0,,0.8\n1,1,0.7,\n1,1,,0.6\n"
    folders = [
        write_run(tmp_path / f"{m}_seed{s}", seed=s, rows=rows,
                  scores={"miou": 0.5 + 0.1 * i + 0.01 * s * (i + 1), "iou/water": None})
        for i, m in enumerate(("early", "late")) for s in (0, 1, 2)
    ]  # fmt: skip
    runs, left_out = read_runs([*folders, tmp_path / "nothing"])
    written = write_report(runs, tmp_path / "report", title="t", failed=left_out)
    assert written.comparison.best.member == "late"
    assert written.significance.tests[0].seeds == (0, 1, 2)
    content = json.loads(written.files["json"].read_text())
    assert content["members"][0]["runs"][0]["folder"] == "../early_seed0"
    text = Page(written.files["html"].read_text()).text
    assert re.search(r"nothing : .*is not a folder", text)


def test_terms_are_said_once_where_they_are_the_same():
    runs = {m: [finished(m, seed, {"miou": 1.0}) for seed in (0, 1)] for m in ("a", "b", "c")}
    found = dict(terms(runs))
    assert found["Members"] == "3: a · b · c"
    assert found["Seeds"] == "0, 1"
    assert found["Data"] == "Flair2DataModule"
    assert found["Batch size"] == "8"
    assert found["Optimiser"] == "Adam (lr 0.0001)"
    assert differences(runs) == []


def test_what_differs_is_named_with_its_members():
    runs = {
        "a": [finished("a", 0, {"miou": 1.0})],
        "b": [finished("b", 1, {"miou": 1.0}, config=config(1, batch_size=4, augment=True))],
        "c": [finished("c", 0, {"miou": 1.0})],
    }
    assert dict(terms(runs))["Batch size"] == "8 (a, c); 4 (b)"
    assert dict(terms(runs))["Seeds"] == "0 (a, c); 1 (b)"
    assert differences(runs) == [
        ("data.init_args.batch_size", ["8 (a, c)", "4 (b)"]),
        ("data.init_args.augment", ["not set (a, c)", "true (b)"]),
    ]


def test_passwords_stay_at_home():
    given = config(0, root="https://ann:secret@host/data")
    given["trainer"]["logger"] = {"init_args": {"tracking_uri": "postgresql://u:secret@db:5432/x"}}
    run = finished("a", 0, {"miou": 1.0}, config=given)
    assert "secret" not in config_text(run)
    assert "https://host/data" in config_text(run)
    assert "secret" not in str(terms({"a": [run]}))
