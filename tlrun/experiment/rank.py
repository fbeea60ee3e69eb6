"""`tlrun rank`: which net, and which of its stages, suits the target? Scored without training.

    tlrun rank data=pacs data.source=photo data.target=sketch backbone=resnet18,efficientnet_lite0
    tlrun rank RUN_DIR [RUN_DIR ...] [data=...]

Each net sees the target's labelled images once: those of training and validation, or as many as
`target_labels=5` has drawn, and never one of its test set. Every stage's output is averaged over
space and scored (`evaluate.transferability`); the last one of the backbone is taken as the head is
given it.
"""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tlrun.config.data_names import data_title
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.streams import images_per_pass
from tlrun.data.problems.pair import Data
from tlrun.engine.precision import autocast
from tlrun.errors import ConfigError
from tlrun.evaluate import transferability
from tlrun.experiment.assemble import device_of
from tlrun.experiment.features import each_once, rows_in
from tlrun.experiment.rank_nets import Candidate, of_configs, of_runs
from tlrun.models.pooled import pooled_outputs
from tlrun.report.figures.rank import draw_rank
from tlrun.report.pages.write import find_jobs, write_report
from tlrun.report.read.rank import FILE, StageScores, read_scores, table, write_scores
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.groups import group_jobs, primary_metric
from tlrun.report.statistics.rank_correlation import rank_correlations

log = logging.getLogger(__name__)

MOST_IMAGES = 5000
BACKBONE = "backbone"


@dataclass
class Scored:
    """What was seen of the target by one net. labels: (n,); stages: name -> (n, D), in forward
    order; probabilities: (n, Z) or None."""

    labels: np.ndarray
    stages: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None
    splits: dict[str, int] = field(default_factory=dict)


def rank(
    words: Sequence[str], config_dir: Path | None, output: Path | None, most: int | None
) -> list[StageScores]:
    """Score all nets that the words name; writes and prints the table. Raises ConfigError.

    words: folders of runs, then key=value. most: images, None = MOST_IMAGES.
    """
    runs = [Path(word) for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    candidates = of_runs(runs, overrides) if runs else of_configs(overrides, config_dir)
    scores: list[StageScores] = []
    first: Scored | None = None
    title = ""
    for candidate in candidates:
        seen = look(candidate, MOST_IMAGES if most is None else most)
        if first is None:
            first, title = seen, data_title(candidate.config)
            print(_what_is_seen(title, seen))
        elif not np.array_equal(first.labels, seen.labels):
            raise ConfigError(
                f"{candidate.name} would be scored on other images than {scores[0].net}: give the "
                "data of all nets, data=..., and one seed"
            )
        scores += score(candidate, seen)
    assert first is not None
    folder = output or Path("outputs/rank") / _slug(title, scores)
    _write(folder, scores, title, first, words)
    return scores


# ---- the images ---------------------------------------------------------------------------------


def scored_sets(data: Data) -> dict[str, ImageSet]:
    """{train, val}: the target's images with labels, without any that its test set holds."""
    test = data.role("target_test")
    labelled = {
        split: examples
        for split in ("train", "val")
        if (examples := data.role(f"target_{split}")) is not None and examples.labels is not None
    }
    sets = each_once(labelled, set() if test is None else set(rows_in(test)))
    if not sets:
        raise ConfigError(
            f"the target of '{data.name}' has no labelled image outside its test set: set "
            "data.transductive=false, which keeps the test apart"
            if test is not None
            else f"the target of '{data.name}' has no labels: rank scores by them"
        )
    return sets


def look(candidate: Candidate, most: int) -> Scored:
    """One pass of a net over the labelled images, at most so many, drawn by the seed."""
    config, data, net = candidate.config, candidate.data, candidate.net
    device = device_of(config, 0, 1)
    size = images_per_pass(int(config["evaluate"]["batch_size"]), data.input_shape)
    sets = _drawn(scored_sets(data), most, int(config["seed"]))
    blocks: dict[str, list[Tensor]] = {}
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with (
        torch.no_grad(),
        autocast(config["trainer"]["precision"], device),
        pooled_outputs(net, [*net.path(), BACKBONE]) as pooled,
    ):
        for split, examples in sets.items():
            passed = data.batches(examples, device, size)
            steps = -(-len(examples) // size)
            for x, y, _ in tqdm(
                passed, f"{candidate.name} {split}", steps, leave=False, disable=None
            ):
                out = candidate.forward(x)
                for stage, block in pooled.items():
                    blocks.setdefault(stage, []).append(block)
                if out is not None:
                    logits.append(out.float().cpu())
                assert y is not None
                labels.append(y.cpu())
    last = net.path(BACKBONE)[-1]
    if BACKBONE in blocks:  # as the head is given it: pooled in the net's own way, or flattened
        blocks[last] = blocks[BACKBONE]
    return Scored(
        torch.cat(labels).numpy(),
        {stage: torch.cat(blocks[stage]).numpy() for stage in net.path() if stage in blocks},
        torch.cat(logits).double().softmax(1).numpy() if logits else None,
        {split: len(examples) for split, examples in sets.items()},
    )


def _drawn(sets: dict[str, ImageSet], most: int, seed: int) -> dict[str, ImageSet]:
    """The sets themselves, or `most` images of them all."""
    total = sum(map(len, sets.values()))
    if total <= most:
        return sets
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:most].sort()[0]
    drawn, start = {}, 0
    for split, examples in sets.items():
        inside = chosen[(chosen >= start) & (chosen < start + len(examples))] - start
        start += len(examples)
        if len(inside):
            drawn[split] = examples.subset(inside)
    return drawn


# ---- the scores ---------------------------------------------------------------------------------


def score(candidate: Candidate, seen: Scored) -> list[StageScores]:
    """A line for each stage; LEEP and NCE are of the whole net and stand in the last one."""
    order = candidate.net.path()
    seed = int(candidate.config["seed"])
    lines: list[StageScores] = []
    try:
        for stage, x in tqdm(
            seen.stages.items(), f"{candidate.name} scores", leave=False, disable=None
        ):
            values: dict[str, float | None] = {
                "logme": transferability.logme(x, seen.labels),
                "h_score": transferability.h_score(x, seen.labels),
                "h_score_shrunk": transferability.h_score_shrunk(x, seen.labels),
                "logistic": transferability.logistic_probe(x, seen.labels, seed),
                "knn": transferability.knn_probe(x, seen.labels, seed),
                "leep": None,
                "nce": None,
            }
            where = order.index(stage) + 1
            lines.append(StageScores(candidate.name, stage, where, x.shape[1], values))
        if seen.probabilities is not None:
            lines[-1].values["leep"] = transferability.leep(seen.probabilities, seen.labels)
            lines[-1].values["nce"] = transferability.nce(seen.probabilities, seen.labels)
        else:
            lines[-1].note = candidate.note
    except ValueError as error:
        raise ConfigError(f"{candidate.name} cannot be scored: {error}") from error
    return lines


def _what_is_seen(title: str, seen: Scored) -> str:
    count, classes = len(seen.labels), len(np.unique(seen.labels))
    parts = ", ".join(f"{n:,} of {split}" for split, n in seen.splits.items())
    return (
        f"{title}: scored by the labels of {count:,} target images of {classes} classes ({parts}); "
        "no label of its test set is looked at"
    )


def _slug(title: str, scores: Sequence[StageScores]) -> str:
    nets = "+".join(dict.fromkeys(line.net for line in scores))
    text = re.sub(r"[^\w.+-]+", "_", f"{title} {nets}".replace("→", "-"))
    return text[:100].strip("._-")


def _write(
    folder: Path, scores: list[StageScores], title: str, seen: Scored, words: Sequence[str]
) -> None:
    about = {
        "command": f"tlrun rank {shlex.join(words)}",
        "data": title,
        "images": seen.splits,
        "classes": len(np.unique(seen.labels)),
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder, scores, about)
        draw_rank(scores, folder / "rank.png")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; set --output") from error
    print(table(scores))
    print(f"{folder / 'rank.csv'} and {folder / 'rank.png'}")


def beside_trained(sweep: Path) -> None:
    """Print the rank correlations of the scores that lie in a sweep's folder; write its page."""
    records = [read_record(job) for job in find_jobs(sweep)]
    found = rank_correlations(
        read_scores(sweep / FILE), group_jobs(records), primary_metric(records)
    )
    if not found:
        raise ConfigError(
            f"{sweep} has not three values of transfer.cut with a result whose stages were scored"
        )
    print(
        "Spearman's correlation of a score of stage k and the trained figure with transfer.cut=k:"
    )
    for row in found:
        rho = "undefined" if row.spearman is None else f"{row.spearman:+.2f}"
        print(f"  {row.net}, {row.line}: {row.score} {rho} (n={row.n})")
    print(write_report(sweep))
