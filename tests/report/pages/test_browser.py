"""The pages in headless Chromium: no error, nothing fetched, fit for a phone, and they sort."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.run_folders import make_run, make_search, make_sweep
from tlrun.report.pages.write import write_comparison, write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --enable-logging=stderr"
).split()

# Runs in the loaded page; what it finds goes into the title, where --dump-dom shows it.
PROBE = """<script>
addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const head = all("#leaderboard th").find((th) => th.textContent === "Selected");
  let order = [];
  if (head) {
    head.querySelector("button").click();
    head.querySelector("button").click();
    const column = [...head.parentNode.cells].indexOf(head);
    order = all("#leaderboard tbody tr").map((tr) => tr.cells[column].dataset.value);
  }
  const sorted = head ? head.getAttribute("aria-sort") : "";
  const unreachable = all(".sortable th button").filter((button) => button.tabIndex !== 0).length;
  let kept = "";
  const box = document.querySelector("label.filter input");
  if (box) {
    box.value = "source mnist_USPS";
    box.dispatchEvent(new Event("input"));
    const rows = all("#leaderboard tbody tr");
    kept = rows.filter((tr) => tr.checkVisibility()).map((tr) => tr.cells[0].textContent).join();
  }
  const oracle = document.querySelector("#rule-oracle");
  if (oracle) oracle.click();
  const shown = all(".switch > .scroll").filter((table) => table.checkVisibility());
  const tables = shown.map((table) => table.className.replace(" ", ".")).join();
  const broken = [...document.images].filter((image) => image.naturalWidth === 0).length;
  const entries = performance.getEntriesByType("resource");
  const fetched = entries.filter((entry) => !entry.name.startsWith("data:")).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = `broken=${broken} fetched=${fetched} wide=${wide} order=${order.join(",")} ` +
    `sorted=${sorted} unreachable=${unreachable} kept=${kept} tables=${tables} `;
});
</script></body>"""


# Headless Chromium opens no window below 500 pixels; a frame may be narrower.
FRAME = """<iframe style="width: 400px; border: 0" srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const root = document.querySelector("iframe").contentDocument.documentElement;
  const fitted = root.querySelector(".plot img").clientWidth;
  const sizes = `client=${{root.clientWidth}} scroll=${{root.scrollWidth}} picture=${{fitted}} `;
  root.querySelector(".plot").focus();
  const enlarged = root.querySelector(".plot img").clientWidth;
  document.title = sizes + `enlarged=${{enlarged}} then=${{root.scrollWidth}} `;
}});
</script>"""


def browse(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    environment = {**os.environ, "HOME": str(profile)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=True
    )


def probe(page: Path, profile: Path, width: int) -> dict[str, str]:
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    return title_of(probed, profile, width)


def widths_in_a_narrow_frame(page: Path, profile: Path) -> dict[str, str]:
    framed = page.with_name("framed.html")
    source = html.escape(page.read_text(encoding="utf-8"))
    framed.write_text(FRAME.format(page=source), encoding="utf-8")
    return title_of(framed, profile, width=500)


def title_of(page: Path, profile: Path, width: int) -> dict[str, str]:
    """The `key=value` pairs that a script of the page left in its title."""
    done = browse(page, profile, f"--window-size={width},900", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>([^<]*=[^<]*)</title>", done.stdout)
    assert title is not None
    return dict(re.findall(r"(\w+)=(\S*)", title[1]))


@pytest.mark.usefixtures("no_map")
def test_run_page(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", images=100))
    found = probe(
        page, tmp_path / "profile", width=500
    )  # the narrowest window headless Chromium opens
    assert (found["broken"], found["fetched"], found["wide"]) == ("0", "0", "false")
    shot = tmp_path / "shot.png"
    browse(page, tmp_path / "profile", "--window-size=1200,900", f"--screenshot={shot}")
    assert shot.stat().st_size > 20_000


@pytest.mark.usefixtures("no_map")
def test_nothing_scrolls_sideways_on_a_phone(tmp_path: Path) -> None:
    long = "a_name_without_a_space_" * 6
    run = make_run(tmp_path / "run", data=long, classes=(long, "b"), images=40, error=long)
    table = {"name": "t", "title": long, "columns": [long] * 9, "rows": [[long] * 9]}
    (run / "tables.json").write_text(json.dumps([table, {"name": "left_out", "title": long}]))
    bars = {"name": "b", "title": long, "text": long, "kind": "bars", "labels": [long]}
    bars["series"] = [{"name": long, "values": [1]}]
    (run / "pictures.json").write_text(json.dumps([bars]))
    for page in (write_report(run), write_report(make_sweep(tmp_path / "sweep"))):
        found = widths_in_a_narrow_frame(page, tmp_path / "profile")
        assert found["client"] == "400"
        assert max(int(found[key]) for key in ("scroll", "picture", "then")) <= 400
        assert int(found["enlarged"]) > 800  # a tap makes the names in a picture readable


def test_sweep_page_sorts(tmp_path: Path) -> None:
    page = write_report(make_sweep(tmp_path / "sweep"))
    found = probe(page, tmp_path / "profile", width=1200)
    assert (found["broken"], found["fetched"], found["wide"]) == ("0", "0", "false")
    values = found["order"].split(",")
    assert values[-1] == ""  # no result: last, in either direction
    numbers = [float(value) for value in values[:-1]]
    assert numbers == sorted(numbers)
    assert len(numbers) == 6
    assert (found["sorted"], found["unreachable"]) == ("ascending", "0")
    assert found["kept"] == "source_only"  # the filter: both words, in any case
    assert found["tables"] == "scroll.for-oracle"  # the switch shows one rule at a time


def test_comparison_and_search_page(tmp_path: Path) -> None:
    search = make_search(tmp_path / "search")
    page = write_comparison([search, make_sweep(tmp_path / "sweep")], tmp_path / "out")
    found = probe(page, tmp_path / "profile", width=1200)
    assert (found["broken"], found["fetched"], found["wide"]) == ("0", "0", "false")
    numbers = [float(value) for value in found["order"].split(",") if value]
    assert numbers == sorted(numbers)
    assert len(numbers) == 9


def test_nothing_is_cut_in_print(tmp_path: Path) -> None:
    """In print nothing scrolls: a table that is wider than the paper would lose its right side."""
    page = write_report(make_sweep(tmp_path / "sweep"))
    rules = page.read_text(encoding="utf-8").replace("@media print", "@media screen")
    printed = page.with_name("printed.html")
    printed.write_text(rules.replace("</body>", PROBE), encoding="utf-8")
    # A4 across less its margins, at 96 pixels an inch.
    assert title_of(printed, tmp_path / "profile", width=1030)["wide"] == "false"
