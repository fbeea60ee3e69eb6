"""Whatever is typed, saved or damaged: exit code 0, 1 or 2, one sentence, nothing left behind.

Examples of what scripts/prove_commands.py and scripts/prove_kills.py do by the thousand.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hostile import (
    DAMAGES,
    DRY,
    SMALL,
    VALUES,
    Command,
    Pool,
    bases,
    finished_run,
    hostile_commands,
    keys_of,
    saved_values,
    typed,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.errors import TlrunError

SCRIPTS = Path(__file__).parents[2] / "scripts"
VERBS = [("resume", "run"), ("evaluate", "run"), ("predict", "run", "image.png")]  # the quick ones

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.sampled_from(list(VALUES.values())) | scalars | st.lists(scalars, max_size=3)
KEYS = sorted(keys_of(plain(compose())))


@pytest.fixture(scope="session")
def pool() -> Pool:
    return Pool(jobs=1)


@pytest.fixture(scope="session")
def run(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be damaged in copies."""
    return finished_run(tmp_path_factory.mktemp("finished"), pool)


def check(pool: Pool, command: Command) -> None:
    outcome = pool.run(command)
    assert outcome.fault == "", f"{command}\n{outcome.said}\nleft: {outcome.left}"


@settings(max_examples=30)
@given(key=st.sampled_from(KEYS), value=values)
def test_any_value_of_a_key_composes_or_is_refused(key: str, value: object) -> None:
    said = "accepted"
    try:
        compose([f"{key}={typed(value)}"])
    except TlrunError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said


@settings(max_examples=8)
@given(base=st.sampled_from(bases()), data=st.data())
def test_a_dry_run_with_a_bad_value(base: tuple[str, ...], data: st.DataObject, pool: Pool) -> None:
    key = data.draw(st.sampled_from(sorted(keys_of(plain(compose(base))))))
    value = data.draw(st.sampled_from(list(VALUES.values())))
    check(pool, Command((*base, *SMALL, *DRY, f"{key}={typed(value)}")))


def test_the_first_commands_of_the_proof(pool: Pool) -> None:
    for command in islice(hostile_commands(0), 6):
        check(pool, command)


@settings(max_examples=10)
@given(data=st.data(), verb=st.sampled_from(VERBS))
def test_a_bad_value_in_a_saved_config(
    data: st.DataObject, verb: tuple[str, ...], pool: Pool, run: Path
) -> None:
    key = data.draw(st.sampled_from(sorted(keys_of(saved_values(run)))))
    value = data.draw(st.sampled_from(list(VALUES.values())))
    check(pool, Command(verb, run, key=key, value=value))


@settings(max_examples=10)
@given(data=st.data(), damage=st.sampled_from(sorted(DAMAGES)), verb=st.sampled_from(VERBS))
def test_a_damaged_file_of_a_run(
    data: st.DataObject, damage: str, verb: tuple[str, ...], pool: Pool, run: Path
) -> None:
    files = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    files = [name for name in files if not name.endswith(".png")]
    check(pool, Command(verb, run, file=data.draw(st.sampled_from(files)), damage=damage))


def test_the_pool_tells_what_is_wrong(pool: Pool, run: Path) -> None:
    """A refusal is no fault; a command without end, a signal, a file that stays are."""
    assert pool.run(Command(("data=nix", *DRY))).fault == ""
    endless = Command(("method=source_only", "trainer.steps=100000000", "hydra.run.dir=run"))
    assert Pool(jobs=1, timeout=3).run(endless).fault == "hangs"
    outcome = pool.run(Command(("--version",)))
    assert (outcome.code, outcome.fault) == (0, "")
    assert replace(outcome, code=-9).fault == "killed by SIGKILL"
    assert replace(outcome, code=2, left=("run",)).fault == "leaves files"
    assert replace(outcome, code=1, said="oops\n").fault == "no single sentence"
    raw = "tlrun: error: KeyError: 'x' (cli.py:3); run with --debug for the traceback\n"
    assert replace(outcome, code=1, said=raw).fault == "raw Python error"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("prove_commands.py", "--count", "40"), ("prove_kills.py", "--count", "2")]
)
def test_a_part_of_the_proofs(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / words[0]), *words[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
