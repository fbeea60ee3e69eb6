"""What the command does today, written down, and what differs from it later.

For changes that should change nothing:

    python scripts/golden.py record golden.json      # before the change
    python scripts/golden.py compare golden.json     # after it; exit code 1 if anything differs
    python scripts/golden.py compare golden.json --without config_hash     # but for these keys

Short runs of every family on bundled data (fp32, one thread) with their weights, metrics,
predictions and summaries, and the messages of wrong commands. Wall-clock figures are left out. Only
the command line and the files of run folders are used, no module of the package, so the package may
change as it likes. About eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Keys of a summary or a metrics row that hold wall-clock time, memory or where the run took place.
CLOCK = re.compile(
    r"(^|/)(time|train_seconds|seconds|images_per_second|peak_memory_mb|wall_.*)(/|$)"
)

COMMON = (
    "trainer.precision=fp32 trainer.threads=1 trainer.device=cpu trainer.steps=20 "
    "trainer.batch_size=16 trainer.eval_every=10 trainer.log_every=5 baseline=false"
).split()

RUNS = {
    "source_only": "method=source_only",
    "dann with its baseline": "method=dann baseline=true",
    "dann_alternating": "method=dann_alternating batch_norm=separate_forward",
    "cdan with terms": "method=cdan terms=[mcc,vat]",
    "mcd": "method=mcd optimizer=sgd schedule=step",
    "dan": "method=dan batch_norm=joint",
    "deep_jdot": "method=deep_jdot",
    "fixmatch_da": "method=fixmatch_da data.augment.target_strong={shift:0.1}",
    "dirt_t": "method=dirt_t",
    "shot": "method=shot select=last",
    "tent": "method=tent",
    "osbp": "method=osbp data.label_spaces=open data.source_classes=[0,1,2,3,4]",
    "finetune": "method=finetune terms=[l2_sp,bss,co_tuning] target_labels=5 init=source "
    "optimizer.weight_decay=0",
    "layer transfer": "method=finetune target_labels=5 transfer.cut=2 transfer.freeze_carried=true",
    "lp_ft": "method=lp_ft target_labels=5",
    "lora": "method=lora target_labels=5",
    "simclr": "method=simclr target_labels=5",
    "multitask": "experiment=bundled/multitask baseline=true balance=uncertainty",
    "canvas": "method=multitask data=digits_canvas backbone=dann_cnn balance=dwa",
    "progressive": "experiment=bundled/progressive",
    "sequential": "experiment=bundled/progressive method=sequential",
    "eszsl": "method=eszsl data=digits_attributes backbone=dann_cnn select=source_accuracy",
    "conse": "method=conse data=digits_attributes backbone=dann_cnn select=source_accuracy",
    "protonet": "experiment=bundled/protonet",
    "maml": "experiment=bundled/maml",
    "baseline_pp": "data=digits_episodes method=baseline_pp",
    "group_dro": "method=group_dro data=digits_styles_digitsm",
    "multi_source_dann": "method=multi_source_dann data=digits_styles_digitsm",
}
SWEEP = "-m method=source_only,dann seed=0,1"

WRONG = """
method=dan_n
data=nowhere
backbone=lenett
experiment=bundled/nothing
optimizer=adamm
terms=[nothing]
trainer.steps=0
trainer.steps=ten
trainer.stepz=5
trainer.batch_size=-1
trainer.precision=fp8
trainer.device=tpu
optimizer.lr=-1
optimizer.lr=nan
seed=-1
seed=x
method.trade_off=x
method.nothing=1
select=best
selectors=[nothing]
select.source_floor=2
target_labels=some
target_labels=5 method=dann init=source
data.size=0
data.normalize=never
data.augment.source.twist=1
data.source_classes=[eleven]
data.label_spaces=closed
transfer.carry=[nowhere] method=finetune
phases.nothing.steps=5
balance=dwa
batch_norm=none
logger=paper
launcher=cluster -m seed=0,1
data=folder
data=folder data.source.root=/nonexistent data.target.root=/nonexistent
data=features data.source.path=/nonexistent.npz
init=/nonexistent method=finetune
resume /nonexistent
reproduce /nonexistent
predict /nonexistent a.png
evaluate /nonexistent
export /nonexistent --to onnx
report /nonexistent
list nothing
train
--nothing
"""


def wrong_commands() -> list[str]:
    return WRONG.strip().splitlines()


def call(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, one thread, without the user's data."""
    own = {"OMP_NUM_THREADS": "1", "TLRUN_CACHE": str(folder.parent / "cache"), "COLUMNS": "200"}
    environment = {k: v for k, v in os.environ.items() if k != "TLRUN_DATA"} | own
    command = [sys.executable, "-m", "tlrun", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


# ---- what is written down -----------------------------------------------------------------------


def without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if not CLOCK.search(k)}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def facts_of(run: Path) -> dict[str, Any]:
    """All that a run left, but for clocks, places and pictures."""
    summary = json.loads((run / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    return {
        "weights": sha256(run / "model.safetensors"),
        "predictions": sha256(run / "predictions.csv"),
        "label_space": json.loads((run / "label_space.json").read_text()),
        "summary": without_clock({k: v for k, v in summary.items() if k != "run_dir"}),
        "metrics": [without_clock(row) for row in rows],
        "files": sorted(f for f in files if not f.startswith(".hydra/")),
    }


def run_facts(name: str, command: str, root: Path) -> dict[str, Any]:
    folder = root / re.sub(r"\W", "_", name)
    folder.mkdir()
    result = call([*COMMON, *command.split(), "hydra.run.dir=run"], folder)
    if result.returncode:
        return {"exit": result.returncode, "message": plain(result.stderr, root)}
    facts = facts_of(folder / "run")
    baselines = sorted((folder / "run").glob("*/summary.json"))
    facts |= {f"baseline {path.parent.name}": facts_of(path.parent) for path in baselines}
    evaluated = call(["evaluate", "run"], folder)
    return {**facts, "evaluate": plain(evaluated.stdout, root)}


def sweep_facts(root: Path) -> dict[str, Any]:
    """The leaderboard of a small sweep, and which job has which weights."""
    folder = root / "sweep"
    folder.mkdir()
    result = call([*SWEEP.split(), *COMMON, "hydra.sweep.dir=sweep"], folder)
    leaderboard = folder / "sweep" / "leaderboard.csv"
    lines = leaderboard.read_text().splitlines() if leaderboard.is_file() else []
    clocks = [
        i for i, key in enumerate(lines[0].split(",")) if CLOCK.search(key) or "minutes" in key
    ]
    return {
        "exit": result.returncode,
        "leaderboard": [
            ",".join(v for i, v in enumerate(line.split(",")) if i not in clocks) for line in lines
        ],
        "weights": {
            str(path.parent.relative_to(folder)): sha256(path)
            for path in sorted(folder.rglob("model.safetensors"))
        },
    }


def plain(text: str, root: Path) -> list[str]:
    """Lines without this machine's paths."""
    return text.replace(str(root), "ROOT").splitlines()


def message(command: str, root: Path) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(dir=root))
    result = call(command.split(), folder)
    left = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    return {"exit": result.returncode, "message": plain(result.stderr, folder), "left": left}


def observe(jobs: int, only: str | None) -> dict[str, Any]:
    """{title: facts} of every run, the sweep and the wrong commands."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        root = Path(name)
        work = {title: pool.submit(run_facts, title, cmd, root) for title, cmd in RUNS.items()}
        work |= {"sweep": pool.submit(sweep_facts, root)}
        work |= {f"tlrun {cmd}": pool.submit(message, cmd, root) for cmd in wrong_commands()}
        if only:
            for title in [t for t in work if only not in t]:
                work.pop(title).cancel()
        found = {}
        for title, job in work.items():
            found[title] = job.result()
            print(f"  {title}: {found[title].get('exit', 'ran')}", flush=True)
        return found


# ---- comparison ---------------------------------------------------------------------------------


def without_names(value: Any) -> Any:
    """The same with dates and hashes in names of folders as DATE and HASH: they differ each day."""
    if isinstance(value, dict):
        return {without_names(k): without_names(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_names(item) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"\d{4}-\d\d-\d\d[/_T ]\d\d[-:]\d\d[-:]\d\d[\w.,]*", "DATE", value)
    value = re.sub(r"\d{4}-\d\d-\d\d", "DATE", value)
    return re.sub(r"(?<=_)[0-9a-f]{6,8}(?=/|$|,)", "HASH", value)


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """One line per leaf that differs; long lists of lines as a diff."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        missing = "(absent)"
        return [
            line
            for key in keys
            for line in differences(
                before.get(key, missing), after.get(key, missing), f"{where}/{key}"
            )
        ]
    if isinstance(before, list) and isinstance(after, list):
        if len(before) == len(after) and all(isinstance(item, dict) for item in before):
            pairs = enumerate(zip(before, after, strict=True))
            return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}/{i}")]
        diff = difflib.unified_diff(
            [str(v) for v in before], [str(v) for v in after], lineterm="", n=0
        )
        return [f"{where}: {line}" for line in list(diff)[2:] if not line.startswith("@@")]
    return [f"{where}: {before!r} -> {after!r}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--jobs", type=int, default=2, help="commands at once")
    parser.add_argument("--only", help="those whose title holds this word")
    parser.add_argument("--without", metavar="REGEX", help="keys that may differ")
    options = parser.parse_args()
    found = observe(options.jobs, options.only)
    if options.what == "record":
        options.file.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{len(found)} commands written to {options.file}")
        return 0
    before = without_names(json.loads(options.file.read_text(encoding="utf-8")))
    found = without_names(json.loads(json.dumps(found)))
    unequal = {t: differences(before.get(t), facts, t) for t, facts in found.items()}
    if options.without:
        expected = re.compile(options.without)
        unequal = {
            title: [line for line in lines if not expected.search(line.partition(": ")[0])]
            for title, lines in unequal.items()
        }
    unequal = {title: lines for title, lines in unequal.items() if lines}
    for lines in unequal.values():
        print("\n".join(lines[:40]))
    print(
        f"{len(found)} commands, {len(unequal)} differ"
        + (f": {', '.join(unequal)}" if unequal else "")
    )
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
