"""Run the presets of conf/experiment over their seeds and write docs/results.md from the summaries.

    TLRUN_DATA=... python scripts/results.py [--out outputs/results] [--only mnist_mnistm/dann ...]
    python scripts/results.py --write      # the table alone, from what is there

Each run is `tlrun experiment=<preset> seed=<k> baseline=false` in OUT/<preset>/seed<k>. A finished
one is skipped, an interrupted one resumed, so it can be stopped and started at will.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRESETS = ROOT / "conf" / "experiment"
TABLE = ROOT / "docs" / "results.md"


def seeds_of(preset: str) -> list[int]:
    """The seeds in the preset's own command."""
    text = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")
    found = re.search(r"seed=([\d,]+)", text)
    return [int(seed) for seed in found[1].split(",")] if found else [0]


def published_of(preset: str) -> str:
    text = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")
    found = re.search(r"^# published: +([\d.]+)", text, re.MULTILINE)
    return found[1] if found else "–"


def state_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "status.json").read_text())["state"])
    except (OSError, ValueError, KeyError):
        return "absent"


def run(preset: str, seed: int, folder: Path, overrides: list[str]) -> None:
    state = state_of(folder)
    if state == "completed":
        return
    if state == "absent":
        words = [
            f"experiment={preset}",
            f"seed={seed}",
            "baseline=false",
            f"hydra.run.dir={folder}",
            *overrides,
        ]
    else:
        words = ["resume", str(folder)]
    print(f"{preset} seed {seed}: {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "tlrun", *words], capture_output=True, text=True)
    print("\n".join(done.stderr.splitlines()[-14:]) if done.returncode else "  done", flush=True)


def spread(values: list[float]) -> str:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * std:.1f}"


def row(preset: str, out: Path) -> str | None:
    summaries = [
        json.loads((folder / "summary.json").read_text())
        for seed in seeds_of(preset)
        if state_of(folder := out / preset / f"seed{seed}") == "completed"
    ]
    if not summaries:
        return None
    key = "target_test/accuracy"
    rules = [spread([s[rule][key] for s in summaries]) for rule in ("selected", "last", "oracle")]
    sources = [s["selected"].get("source_test/accuracy") for s in summaries]
    source = "–" if None in sources else spread(sources)
    minutes = statistics.mean(s["train_seconds"] for s in summaries) / 60
    seen = summaries[0]["images_seen"]
    cells = [f"`{preset}`", str(len(summaries)), rules[0], rules[1], rules[2], source]
    return "| " + " | ".join([*cells, published_of(preset), f"{seen:,}", f"{minutes:.1f}"]) + " |"


def write(out: Path) -> None:
    """docs/results.md: the part between the markers."""
    presets = sorted(str(p.relative_to(PRESETS).with_suffix("")) for p in PRESETS.rglob("*.yaml"))
    titles = (
        "preset | n | selected | last | oracle | source test | published | images seen | minutes"
    )
    begin, end = "<!-- table -->", "<!-- end of table -->"
    text = TABLE.read_text(encoding="utf-8")
    head, tail = text.split(begin)[0], text.split(end)[1]
    known = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    lines = [f"| {titles} |", "|" + "---|" * len(titles.split("|"))]
    for preset in presets:  # a row whose runs lie elsewhere stays as it is
        if found := row(preset, out) or known.get(preset):
            lines.append(found)
    TABLE.write_text(head + "\n".join([begin, *lines, end]) + tail, encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "results")
    parser.add_argument("--only", nargs="*", help="presets to run, all by default")
    parser.add_argument("--set", nargs="*", default=[], help="overrides, as trainer.threads=1")
    parser.add_argument("--write", action="store_true", help="only write the table")
    options = parser.parse_args()
    known = sorted(str(p.relative_to(PRESETS).with_suffix("")) for p in PRESETS.rglob("*.yaml"))
    for preset in [] if options.write else options.only or known:
        for seed in seeds_of(preset):
            run(preset, seed, options.out / preset / f"seed{seed}", options.set)
    write(options.out)


if __name__ == "__main__":
    main()
