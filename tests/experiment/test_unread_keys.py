"""Evaluation refuses what only training reads, and takes the keys that it reads itself."""

import pytest

from tlrun.errors import ConfigError
from tlrun.experiment.evaluate import evaluate, refuse_unread
from tlrun.experiment.features import of_run
from tlrun.run_folder.run_dir import RunDir


@pytest.mark.parametrize("word", ["trainer.steps=3", "optimizer.lr=5", "optimizer=sgd"])
def test_a_key_of_training_alone_is_refused(tmp_path, word):
    run = RunDir.create(tmp_path / "run")
    run.config.write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="only training reads"):
        evaluate(run.path, [word])
    with pytest.raises(ConfigError, match="only training reads"):
        of_run(run.path, [word], None)


def test_keys_that_evaluation_reads_stay():
    keys = ("batch_size=8", "device=cpu", "precision=fp32", "threads=1", "workers=0")
    refuse_unread([f"trainer.{key}" for key in keys])
    refuse_unread(["evaluate.batch_size=7", "select=last", "data.gamma=0.5"])
