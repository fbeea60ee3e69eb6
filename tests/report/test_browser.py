"""The pages in headless Chromium: no error, nothing fetched, fit for a phone, and they sort."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from make_run import make_run, make_sweep

from tlrun.report.page import write_report

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
  const broken = [...document.images].filter((image) => image.naturalWidth === 0).length;
  const entries = performance.getEntriesByType("resource");
  const fetched = entries.filter((entry) => !entry.name.startsWith("data:")).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = `broken=${broken} fetched=${fetched} wide=${wide} order=${order.join(",")} `;
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
