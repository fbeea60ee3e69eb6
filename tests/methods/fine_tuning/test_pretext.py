"""A start without labels, whatever the pretext task: no label is read, the model can be loaded."""

import pytest
import torch

from helpers import small
from tlrun.config.compose import compose
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import load

pytestmark = pytest.mark.parametrize("method", ["rotation", "simclr"])


def test_labels_of_the_source_change_nothing(method, tmp_path):
    words = (f"method={method}", "target_labels=2", "backbone.dropout=0")
    nets = []
    for name in ("a", "b"):
        session = small.session(tmp_path / name, *words)
        source = session.data.role("source_train")
        if name == "b":
            source.labels = source.labels.flip(0)
        session.trainer().fit()
        nets.append(session.net.state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_the_model_can_be_loaded(method, tmp_path):
    words = [*small.QUICK, f"method={method}", "target_labels=2", "report=none"]
    run_dir = create_run_folder(compose(words), tmp_path / "run", words)
    run_experiment(run_dir)
    assert load(run_dir.path)(torch.zeros(2, 3, 28, 28)).shape == (2, 10)
