"""The page of a report as a browser shows it: screenshots, places of tables, sorting."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from finished_runs import STRATEGIES, study
from matplotlib.image import imread

from fusionlab.study.report import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium to open the page (apt install chromium)"
)

# Runs in the page once all is loaded, and leaves what it finds in the document.
PROBE = """
<script>
addEventListener("load", () => {
  const place = (e) => { const r = e.getBoundingClientRect();
    return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}; };
  const found = {
    width: document.documentElement.scrollWidth, window: innerWidth,
    height: document.documentElement.scrollHeight,
    images: Object.fromEntries([...document.images].map((i) => [i.id,
      {...place(i), natural: i.naturalWidth, complete: i.complete}])),
    tables: [...document.querySelectorAll("table")].map(place),
    background: getComputedStyle(document.body).backgroundColor,
  };
  const table = document.querySelector("table.sortable");
  const names = () => [...table.tBodies[0].rows].map((r) => r.cells[0].textContent);
  found.before = names();
  const button = table.tHead.rows[0].cells[2].querySelector("button");
  button.click(); found.ascending = names();
  button.click(); found.descending = names();
  table.tHead.rows[0].cells[0].querySelector("button").click(); found.byName = names();
  document.body.dataset.found = JSON.stringify(found);
});
</script>
"""


def browse(url: str, folder: Path, *options: str) -> str:
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", *options, url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def probed(page: Path, folder: Path, *options: str) -> dict:
    """What the page says of itself once it is loaded."""
    copy = folder / "probed.html"
    copy.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    dom = browse(copy.as_uri(), folder, "--dump-dom", *options)
    (found,) = re.findall(r'data-found="([^"]*)"', dom)
    return json.loads(found.replace("&quot;", '"').replace("&amp;", "&"))


def screenshot(url: str, folder: Path, size: tuple[int, int], *options: str) -> np.ndarray:
    """Pixels ``(H, W, 3)`` in [0, 1]."""
    path = folder / "screenshot.png"
    window = f"--window-size={size[0]},{size[1]}"
    browse(url, folder, f"--screenshot={path}", window, *options)
    return imread(path)[..., :3]


def part(pixels: np.ndarray, place: dict) -> np.ndarray:
    x, y = round(place["x"]), round(place["y"])
    return pixels[y : y + round(place["height"]), x : x + round(place["width"])]


def share_of(color: str, pixels: np.ndarray) -> float:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(pixels - rgb).max(axis=-1) < 0.06).mean())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_report(study(), folder, title="Early and late fusion").files["html"]


def test_table_and_curves_take_their_place(page, tmp_path):
    found = probed(page, tmp_path, "--window-size=1280,1000")
    assert found["window"] == 1280
    assert found["width"] == 1280  # nothing reaches beyond the window
    assert set(found["images"]) == {
        f"figure-{name}" for name in ("curves", "per_class", "shares", "trade_off", "seeds")
    }
    for image in found["images"].values():
        assert image["complete"]
        assert image["natural"] > 600
        assert 600 < image["width"] <= 1280
        assert image["height"] > 200
    pixels = screenshot(page.as_uri(), tmp_path, (1280, found["height"]))
    assert pixels.shape[:2] == (found["height"], 1280)
    # Not blank: writing and lines everywhere, on white.
    assert 0.02 < (pixels.min(axis=-1) < 0.5).mean() < 0.5
    assert share_of("#ffffff", pixels) > 0.5
    for table in (t for t in found["tables"] if t["height"]):  # some are folded away
        assert 0.01 < (part(pixels, table).max(axis=-1) < 0.6).mean() < 0.3
    curves = part(pixels, found["images"]["figure-curves"])
    for color in ("#0072B2", "#E69F00", "#009E73", "#D55E00"):
        assert share_of(color, curves) > 5e-4
    bars = part(pixels, found["images"]["figure-per_class"])
    assert share_of("#0072B2", bars) > 0.02


def test_tables_are_sorted_by_their_headings(page, tmp_path):
    found = probed(page, tmp_path)
    assert found["before"] == list(STRATEGIES)
    # Scores rise with the order of the members, but for the spread of seeds.
    assert found["ascending"][0] == "rgb"
    assert found["ascending"][-1] == "late"
    assert found["descending"] == found["ascending"][::-1]
    assert found["byName"] == sorted(STRATEGIES, key=str.casefold)


@pytest.mark.slow
def test_a_phone(page, tmp_path):
    """Browsers have windows no narrower than 500 pixels: the page is put into a frame."""
    found = probed(page, tmp_path, "--window-size=500,900")
    assert found["width"] == found["window"]
    frame = tmp_path / "phone.html"
    frame.write_text(
        '<body style="margin:0;background:#0f0"><iframe style="border:0;width:390px;height:3000px"'
        f' src="{page.as_uri()}"></iframe>'
    )
    pixels = screenshot(frame.as_uri(), tmp_path, (500, 3000))
    phone = pixels[:, :390]
    assert share_of("#00ff00", phone) == 0
    assert share_of("#ffffff", phone) > 0.5
    assert 0.01 < (phone.max(axis=-1) < 0.6).mean() < 0.3


@pytest.mark.slow
def test_dark(page, tmp_path):
    dark = "--blink-settings=preferredColorScheme=0"
    found = probed(page, tmp_path, dark)
    if found["background"] == "rgb(255, 255, 255)":
        pytest.skip("this browser takes no colour scheme from its command line")
    pixels = screenshot(page.as_uri(), tmp_path, (1280, 1500), dark)
    assert np.median(pixels) < 0.2
    assert (pixels.min(axis=-1) > 0.8).mean() > 0.005  # the writing


@pytest.mark.slow
def test_print(page, tmp_path):
    browse(page.as_uri(), tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
