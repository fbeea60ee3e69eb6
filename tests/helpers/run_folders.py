"""Writes synthetic run and sweep folders, laid out as a real run leaves them."""

from __future__ import annotations

import csv
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = tuple("0123456789")
# learning rate, value of the selector, target test: the selector and the test disagree
TRIALS = ((0.0001, 1.0, 0.6), (0.001, 2.0, 0.8), (0.01, 1.9, 0.9), (0.1, None, None))


def make_run(
    path: Path,
    *,
    method: str = "dann",
    data: str = "mnist_mnistm",
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    classes: tuple[str, ...] = DIGITS,
    final: float = 0.93,
    evaluations: int = 20,
    state: str = "completed",
    error: str | None = None,
    labelled: bool = True,
    baseline: bool = True,
    saw_labels: bool = False,
    images: int = 600,
) -> Path:
    """A run whose target accuracy climbs from 0.55 to `final`; a failed one has no summary."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(
        f"seed: {seed}\nmethod:\n  _target_: tlrun.methods.{method}.Method\n  trade_off: 1.0\n"
        f"data:\n  name: {data}\n  size: 28\n"
        "optimizer:\n  name: sgd\n  lr: 1e-2\ntrainer:\n  steps: 2000\n"
    )
    given = [f"method={method}", f"data={data}", f"seed={seed}", *overrides]
    (path / "overrides.yaml").write_text("".join(f"- {json.dumps(item)}\n" for item in given))
    _json(path / "status.json", {"state": state, "step": 2000, "error": error})
    _json(path / "label_space.json", {"classes": list(classes), "input_shape": [3, 28, 28]})
    _json(path / "environment.json", _environment())
    _metrics(path, final, evaluations, labelled, seed)
    if state in ("failed", "running"):
        return path
    rng = np.random.default_rng(seed)
    _json(
        path / "summary.json",
        _summary(method, data, seed, classes, final, labelled, baseline, saw_labels, state),
    )
    _predictions(path / "predictions.csv", rng, classes, final, images, labelled)
    _features(path / "features.npz", rng, len(classes), shift=0.8, labelled=labelled)
    if baseline:
        before = make_run(
            path / "baseline",
            method="source_only",
            data=data,
            seed=seed,
            classes=classes,
            final=0.55,
            labelled=labelled,
            baseline=False,
            images=images,
        )
        _features(before / "features.npz", rng, len(classes), shift=6.0, labelled=labelled)
    return path


def make_sweep(path: Path) -> Path:
    """2 data sets x 3 seeds x (source_only, dann at 2 learning rates): one failed, one runs yet."""
    methods = (("source_only", "0.01", 0.62), ("dann", "0.01", 0.9), ("dann", "0.03", 0.9))
    lost = {"0.03": (0.04, 0.052, 0.047)}  # by a larger learning rate, of each seed
    axes = product((("mnist_usps", 0.0), ("usps_mnist", 0.12)), methods, (0, 1, 2))
    for number, ((data, gap), (method, lr, final), seed) in enumerate(axes, 1):
        failed = (data, lr, seed) == ("usps_mnist", "0.03", 2)
        make_run(
            path / f"job{number:02d}",
            method=method,
            data=data,
            seed=seed,
            overrides=(f"optimizer.lr={lr}",) if method == "dann" else (),
            final=final - gap - 0.01 * seed - lost.get(lr, (0, 0, 0))[seed],
            state="failed" if failed else "completed",
            error="The loss 'domain' became NaN at step 812: lower optimizer.lr."
            if failed
            else None,
            baseline=False,
            images=60,
        )
    make_run(path / "job99", method="dann", data="usps_mnist", seed=7, state="running")
    return path


def make_search(path: Path, **changed: Any) -> Path:
    """Four trials of one learning rate each, the last failed, and their search.json."""
    trials: list[dict[str, Any]] = []
    for k, (lr, value, test) in enumerate(TRIALS):
        state = "completed" if test else "failed"
        make_run(
            path / f"job{k}",
            data="mnist_usps",
            overrides=(f"optimizer.lr={lr}",),
            final=test or 0.5,
            state=state,
            error=None if test else "The loss became NaN at step 3.",
            baseline=False,
            images=10,
            evaluations=3,
        )
        trials.append(
            {"number": k, "job": f"job{k}", "params": {"optimizer.lr": lr, "net": "a"}}
            | {"value": value, "state": state}
        )
    whole = {"sampler": "tpe", "direction": "maximize", "metric": "information_maximization"}
    (path / "search.json").write_text(json.dumps(whole | {"trials": trials} | changed))
    return path


def _environment() -> dict[str, Any]:
    def domain(name: str, train: int) -> dict[str, Any]:
        held = {"count": train, "checksum": "9f2c" * 16}
        if name == "mnist":
            held["count_by_class"] = {digit: train // 10 + int(digit) for digit in DIGITS}
        return {
            "name": name,
            "citation": "LeCun et al. (1998)",
            "licence": "CC BY-SA 3.0",
            "url": "https://example.org/mnist",
            "root": "/data/mnist",
            "notes": ["20,000 of 60,000 training images are on this machine"],
            "splits": {"train": held, "test": {"count": 600, "checksum": "07ab" * 16}},
        }

    domains = {"source": domain("mnist", 20000), "target": domain("mnistm", 18000)}
    return {
        "versions": {"python": "3.12.4", "torch": "2.15.0", "tlrun": "0.1.0"},
        "platform": "Linux-6.1-x86_64",
        "cpu": {"model": "Xeon", "cores": 2, "memory_gb": 24.0},
        "git": {"working_folder": None, "tlrun": {"sha": "0123456789abcdef", "dirty": True}},
        "devices": ["cpu"],
        "data": {"name": "mnist_mnistm", "target_labels_seen": 0, "domains": domains},
    }


def _metrics(path: Path, final: float, evaluations: int, labelled: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = []
    for k in range(evaluations):
        for part in range(5):
            step = 100 * k + 20 * (part + 1)
            t = step / 2000
            row = {
                "step": step,
                "phase": "adapt",
                "split": "train",
                "loss/classification": 2.3 * math.exp(-4 * t) + 0.05 + 0.03 * rng.random(),
                "loss/domain": 0.69 - 0.3 * math.exp(-6 * t) + 0.03 * rng.random(),
                "metric/domain_accuracy": 0.5 + 0.4 * math.exp(-6 * t) + 0.05 * rng.random(),
                "metric/lambda": 2 / (1 + math.exp(-10 * t)) - 1,
                "lr": 0.01 / (1 + 10 * t) ** 0.75,
                "time": 0.1 * step,
            }
            lines.append(json.dumps(row))
        target = 0.55 + (final - 0.55) * (1 - math.exp(-4 * t)) + 0.008 * rng.normal()
        row = {
            "step": 100 * (k + 1),
            "phase": "adapt",
            "split": "eval",
            "source_val/accuracy": 0.99 - 0.3 * math.exp(-8 * t),
            "source_val/loss": None,
            "target_val/effective_classes": 9.5,
            "validator/source_accuracy": 0.99 - 0.3 * math.exp(-8 * t),
            "validator/entropy": -0.9 * math.exp(-3 * t) + 0.03 * rng.normal(),
            "validator/information_maximization": 2.0 * target + 0.02 * rng.normal(),
            "validator/bnm": 0.8 * target + 0.03 * rng.normal(),
            "validator/snd": 4.0 - t + 0.1 * rng.normal(),
            "validator/mcc": 0.4 * target - 0.5 + 0.01 * rng.normal(),
            "validator/iwcv": 0.7 - 0.3 * t + 0.1 * rng.normal(),
            "validator/dev": 0.6 + 0.3 * target + 0.03 * rng.normal(),
            "validator/reverse_validation": 0.97 - 0.2 * math.exp(-20 * t),
            "validator/class_cluster": 0.2 + 0.3 * t,
            "time": 10.0 * (k + 1),
        }
        if labelled:
            row["oracle/target_test_accuracy"] = target
        lines.append(json.dumps(row))
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n" if lines else "")


def _summary(
    method: str,
    data: str,
    seed: int,
    classes: tuple[str, ...],
    final: float,
    labelled: bool,
    baseline: bool,
    saw_labels: bool,
    state: str,
) -> dict[str, Any]:
    def figures(step: int, target: float) -> dict[str, Any]:
        accuracy = target if labelled else None
        return {
            "step": step,
            "source_test/accuracy": 0.991,
            "source_test/balanced_accuracy": 0.990,
            "source_test/macro_f1": 0.990,
            "target_test/accuracy": accuracy,
            "target_test/balanced_accuracy": accuracy and accuracy - 0.004,
            "target_test/macro_f1": accuracy and accuracy - 0.006,
        }

    summary = {
        "schema": 1,
        "status": state,
        "method": method,
        "data": data,
        "backbone": "dann_cnn",
        "seed": seed,
        "steps": 2000,
        "updates": 2000,
        "images_seen": 512000,
        "config_hash": "0123456789abcdef",
        "target_labels_seen": 0,
        "selection_rule": "oracle" if saw_labels else "information_maximization",
        "selection_saw_target_labels": saw_labels,
        "selection_guard": {
            "num_classes": len(classes),
            "source_floor": 0.9,
            "min_effective_classes": 0.5,
        },
        "selected": figures(1800, final),
        "last": figures(2000, final - 0.004),
        "train_seconds": 201.3,
        "wall_seconds": {
            "total": 262.4,
            "start": 8.1,
            "training": 201.3,
            "evaluations": 30.0,
            "baseline": 0.0,
            "report": 12.0,
            "other": 11.0,
        },
        "images_per_second": 5200.0,
        "peak_memory_mb": 812.0,
    }
    if labelled:
        summary["oracle"] = {"step": 1900, "target_test/accuracy": final + 0.006}
        by_class = {
            name: max(0.0, min(1.0, final + 0.02 * math.sin(k))) for k, name in enumerate(classes)
        }
        summary["selected"]["target_test/accuracy_by_class"] = by_class
    if baseline:
        before = figures(1000, 0.55)
        if labelled:
            before["target_test/accuracy_by_class"] = {
                name: 0.55 + 0.25 * math.sin(2 * k) for k, name in enumerate(classes)
            }
        summary["before"] = before
    return summary


def _predictions(
    path: Path,
    rng: np.random.Generator,
    classes: tuple[str, ...],
    accuracy: float,
    images: int,
    labelled: bool,
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["index", "path", "label", "prediction", "confidence"])
        for index in range(images):
            true = index % len(classes)
            right = rng.random() < accuracy
            # Errors are not uniform: a class is mostly taken for the one five further on.
            guess = (
                true
                if right
                else (true + (5 if rng.random() < 0.5 else int(rng.integers(1, 10)))) % len(classes)
            )
            confidence = 0.99 if right else 0.4 + 0.5 * rng.random()
            out.writerow(
                [index, "", classes[true] if labelled else "", classes[guess], f"{confidence:.4f}"]
            )


def _features(
    path: Path, rng: np.random.Generator, classes: int, shift: float, labelled: bool
) -> None:
    n = 500
    centres = rng.normal(size=(classes, 48)) * 2
    move = rng.normal(size=48) * shift / 4
    label = np.tile(rng.integers(0, classes, n), 2)
    domain = np.repeat([0, 1], n)
    x = centres[label] + rng.normal(size=(2 * n, 48)) + domain[:, None] * move
    x[3] = np.nan  # a row of NaN must not spoil the map
    if not labelled:
        label = np.where(domain == 1, -1, label)
    np.savez(path, features=x.astype(np.float32), label=label, domain=domain)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
