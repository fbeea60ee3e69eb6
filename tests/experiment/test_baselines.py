"""A model that is trained for comparison, beside a run that is stopped."""

from types import SimpleNamespace

import pytest

from helpers.small import composed
from tlrun.errors import Interrupted
from tlrun.experiment.baselines import train_baselines
from tlrun.run_folder.run_dir import RunDir


def test_a_signal_in_the_baseline_names_the_run_to_go_on_with(tmp_path):
    """`tlrun resume RUN/baseline`, which its trainer names, leaves the run itself unfinished."""
    run = RunDir(tmp_path / "run")

    def execute(path):
        raise Interrupted(f"stopped at step 3; go on with: tlrun resume {path}", 143)

    method = SimpleNamespace(baselines=lambda data: {"baseline": {"method": "source_only"}})
    session = SimpleNamespace(run_dir=run, method=method, data=None)
    with pytest.raises(Interrupted) as stop:
        train_baselines(session, composed("method=dann", "data=digits_digitsm"), {}, execute)
    assert str(stop.value) == f"stopped in the baseline; go on with: tlrun resume {run.path}"
    assert stop.value.exit_code == 143
    assert RunDir(run.path / "baseline").read_status()["state"] == "interrupted"
