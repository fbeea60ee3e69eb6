"""Optional loggers get the rows of metrics.jsonl, each step once, and the closing figures."""

from __future__ import annotations

import importlib
import struct
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers import small
from helpers.hooks import crash_at_call, in_every_trainer
from tlrun.cli.main import main
from tlrun.config.compose import compose
from tlrun.engine.distributed import Process
from tlrun.engine.metrics_log import MetricsLog
from tlrun.errors import ConfigError
from tlrun.loggers import make as loggers
from tlrun.loggers.base import Logger
from tlrun.loggers.make import Guarded, check_installed, make_logger
from tlrun.run_folder.run_dir import RunDir

WORDS = (*small.QUICK[:-1], "method=source_only", "hydra.run.dir=run")


def test_tensorboard_gets_every_figure(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tlrun[tensorboard]"
    )
    session = small.session(tmp_path / "run", "logger=tensorboard")
    session.trainer().fit()
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss/classification")] == [2, 4, 6]
    assert [e.step for e in events.Scalars("eval/source_val/accuracy")] == [0, 3, 6]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "tlrun.loggers.tensorboard", raising=False)
    with pytest.raises(ConfigError, match=r"pip install tensorboard"):
        make_logger({"name": "tensorboard"}, None)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named_before_any_work(name, in_tmp, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf'pip install "tlrun\[{name}\]"'):
        check_installed(name)
    assert main([*WORDS, f"logger={name}"]) == 2
    assert f'pip install "tlrun[{name}]"' in capsys.readouterr().err
    assert not Path("run").exists()


def test_keys_of_a_logger_are_checked():
    with pytest.raises(ConfigError, match=r"logger\.mode=on"):
        compose(["logger=wandb", "logger.mode=on"])
    with pytest.raises(ConfigError, match="mode"):
        compose(["logger=mlflow", "+logger.mode=online"])
    folder = compose(["logger=mlflow", "logger.folder=shared"]).logger.folder
    assert folder == str(Path("shared").absolute())


def test_a_logger_that_fails_does_not_end_the_run(caplog):
    class Full(Logger):
        def __call__(self, row):
            raise OSError(28, "No space left on device")

    logger = Guarded("full", Full())
    with caplog.at_level("WARNING", logger="tlrun"):
        logger({"step": 1})
        logger({"step": 2})
    logger.summary({})
    logger.close()
    assert caplog.text.count("logger=full failed") == 1


def test_only_the_first_process_logs(monkeypatch, tmp_path):
    opened = []
    record = importlib.import_module("tlrun.engine.metrics_log")
    monkeypatch.setattr(record, "make_logger", lambda *given: opened.append(given) or Logger())
    monkeypatch.setattr(Process, "wait", lambda self: None)
    for rank in (1, 0):
        process = Process(rank=rank, world=2)
        opening = MetricsLog(RunDir(tmp_path), process, torch.device("cpu"), [])
        opening.open({"name": "wandb"}, None)
        assert len(opened) == (rank == 0)


# ---- the real ones -----------------------------------------------------------------------------


@pytest.fixture
def stopped_and_resumed(in_tmp, monkeypatch):
    """Runs the command with a fault after an evaluation past the last checkpoint, and goes on."""
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)
    # rows of 2, 3 and 4 are there, the checkpoint is of 3
    in_every_trainer(monkeypatch, crash_at_call(6, RuntimeError("power cut")))

    def train(*words):
        assert main([*WORDS, *words]) == 1
        assert main(["resume", "run"]) == 0
        return RunDir("run")

    return train


def wandb_records(file):
    """The records of a .wandb file: blocks of 32 KiB, records of (checksum, length, kind, data)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def finished_records(file):
    """Once the last of them is there: W&B's own process writes them, and may be a moment late."""
    for _ in range(100):
        records = list(wandb_records(file))
        if records and records[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    return records


def test_wandb_offline_begins_anew_from_the_rows_that_count(tmp_path):
    pytest.importorskip("wandb", reason="needs tlrun[wandb]")
    run, cfg = RunDir(tmp_path), compose(["logger=wandb"]).logger
    for rows in ([0, 2, 4], [0, 2]):  # the second time from an earlier checkpoint
        run.metrics.write_text("")
        for step in rows:
            run.append_metrics({"step": step, "split": "train", "loss/a": 0.5, "time": 1.0})
        logger = make_logger(cfg, run)
    logger({"step": 3, "split": "train", "loss/a": 0.25, "time": 1.0})
    logger.close()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = [
        r.history for r in finished_records(file) if r.WhichOneof("record_type") == "history"
    ]
    rows = [{"/".join(i.nested_key) or i.key: i.value_json for i in r.item} for r in records]
    assert [(int(r["_step"]), r["train/loss/a"]) for r in rows] == [
        (0, "0.5"),
        (2, "0.5"),
        (3, "0.25"),
    ]


@pytest.mark.slow
def test_wandb_offline_has_each_step_once(stopped_and_resumed, monkeypatch):
    pytest.importorskip("wandb", reason="needs tlrun[wandb]")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run = stopped_and_resumed("logger=wandb", "tags=[mine]")
    (file,) = run.path.glob("wandb/offline-run-*/run-*.wandb")
    records = finished_records(file)
    (about,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (about.project, about.display_name, list(about.tags)) == ("tlrun", "run", ["mine"])
    assert "seed" in {item.key for item in about.config.update}
    rows = [
        {i.key or "/".join(i.nested_key): i.value_json for i in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    assert [int(row["_step"]) for row in rows] == [0, 2, 3, 4, 6]
    assert {"train/loss/classification", "eval/source_val/accuracy"} <= rows[-1].keys()
    closing = {
        i.key or "/".join(i.nested_key): i.value_json
        for r in records
        if r.WhichOneof("record_type") == "summary"
        for i in r.summary.update
    }
    expected = run.read_json(run.summary)["selected"]["target_test/accuracy"]
    assert float(closing["selected/target_test/accuracy"]) == expected


def test_wandb_online_without_a_key_does_not_ask_for_one(in_tmp, monkeypatch, capsys):
    pytest.importorskip("wandb", reason="needs tlrun[wandb]")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(in_tmp / "none"))
    monkeypatch.setenv("HOME", str(in_tmp))
    assert main([*WORDS, "logger=wandb", "logger.mode=online"]) == 2
    assert "log without an account, logger.mode=offline" in capsys.readouterr().err


@pytest.mark.slow  # the tables of a new store alone take seconds
def test_mlflow_has_each_step_once_and_a_store_is_shared(stopped_and_resumed):
    pytest.importorskip("mlflow", reason="needs tlrun[mlflow]")
    from mlflow.tracking import MlflowClient

    run = stopped_and_resumed("logger=mlflow", "logger.folder=shared")
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('shared/mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("tlrun")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["seed"] == "0"
    history = client.get_metric_history(found.info.run_id, "train/loss/classification")
    assert [m.step for m in history] == [2, 4, 6]
    history = client.get_metric_history(found.info.run_id, "eval/source_val/accuracy")
    assert [m.step for m in history] == [0, 3, 6]
    rows = [r for r in run.read_metrics() if r["split"] == "eval"]
    assert [m.value for m in history] == [r["source_val/accuracy"] for r in rows]
    expected = run.read_json(run.summary)["selected"]["target_test/accuracy"]
    assert found.data.metrics["summary/selected/target_test/accuracy"] == expected
    other = [word for word in WORDS if not word.startswith("hydra")]
    assert main([*other, "logger=mlflow", "logger.folder=shared", "hydra.run.dir=other"]) == 0
    names = {r.info.run_name for r in client.search_runs([experiment.experiment_id])}
    assert names == {"run", "other"}
    assert main(["reproduce", "other"]) == 0  # which is not counted there
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_closing_figures_that_cannot_be_logged_do_not_fail_the_run(tmp_path, monkeypatch, caplog):
    def broken(*given):
        raise ConfigError("no account")

    monkeypatch.setattr(loggers, "make_logger", broken)
    with caplog.at_level("WARNING", logger="tlrun"):
        loggers.log_summary({"name": "wandb"}, RunDir(tmp_path), {"steps": 3})
    assert "did not reach the logger: no account" in caplog.text
