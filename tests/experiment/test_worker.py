"""What a process of several says when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlrun.experiment import worker

RESET = "[pair.cc:545] Read error [127.0.0.1]:28053: Connection reset by peer. gloo says so"


@pytest.mark.parametrize(("sentence", "is_traced"), [(RESET, False), ("shapes differ", True)])
def test_a_process_that_lost_another_shows_no_traceback(
    sentence: str,
    is_traced: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError(sentence)

    monkeypatch.setattr(worker, "train_worker", fail)
    monkeypatch.setattr(worker, "_watch_parent", lambda parent: None)
    assert worker.main([f"{tmp_path}", "1", "2", "0.0"]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert ("Traceback" in said) is is_traced
    assert ("process 1 of 2 lost another" in said) is not is_traced
