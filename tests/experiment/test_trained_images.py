"""What a run was trained on is no test of it, however the data are cut anew."""

import numpy as np
import pytest
from PIL import Image

from helpers import small
from tlrun.cli.main import main

QUICK = [*small.QUICK, "method=source_only", "trainer.steps=2", "trainer.eval_every=2"]


@pytest.fixture
def own_run(in_tmp, monkeypatch):
    """A short run on a folder of two classes whose test part is cut by the seed."""
    monkeypatch.setenv("TLRUN_CACHE", str(in_tmp / "cache"))
    draws = np.random.default_rng(0)
    for domain in ("a", "b"):
        for name in ("cat", "dog"):
            (in_tmp / domain / name).mkdir(parents=True)
            for k in range(20):
                pixels = draws.integers(0, 255, (28, 28, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(in_tmp / domain / name / f"{k}.png")
    words = ["data=folder", "data.size=28", "data.source.root=a", "data.target.root=b"]
    assert main([*QUICK, *words, "report=none", "baseline=false", "hydra.run.dir=run"]) == 0
    return in_tmp / "run"


@pytest.mark.usefixtures("no_pages")
def test_a_test_that_is_cut_anew_is_refused_where_it_holds_what_the_run_learned_from(
    own_run, capsys
):
    for verb in ("evaluate", "features"):
        for word in ("seed=3", "data.source.test_fraction=0.6"):
            assert main([verb, "run", word]) == 2
            said = " ".join(capsys.readouterr().err.split())
            assert "are images that the run was trained on" in said
            assert f"would be no test ({word})" in said
    assert main(["evaluate", "run"]) == 0
    assert main(["evaluate", "run", "evaluate.batch_size=7"]) == 0
