"""The pages in headless Chromium: no error, nothing fetched, fit for a phone, and they sort."""

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


def browse(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    environment = {**os.environ, "HOME": str(profile)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=True
    )


def probe(page: Path, profile: Path, width: int) -> dict[str, str]:
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    done = browse(probed, profile, f"--window-size={width},900", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
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


def test_sweep_page_sorts(tmp_path: Path) -> None:
    page = write_report(make_sweep(tmp_path / "sweep"))
    found = probe(page, tmp_path / "profile", width=1200)
    assert (found["broken"], found["fetched"], found["wide"]) == ("0", "0", "false")
    values = found["order"].split(",")
    assert values[-1] == ""  # no result: last, in either direction
    numbers = [float(value) for value in values[:-1]]
    assert numbers == sorted(numbers)
    assert len(numbers) == 6
