"""Use a trained model: `tlrun predict RUN_DIR IMAGES`, and `load(RUN_DIR)` for Python.

model = load("outputs/.../...")
logits = model(images)                      # uint8 or float in [0, 1], (B, C, H, W) -> (B, K)
for p in model.predict_files(["a.png"]):
    print(p.path, p.label, p.confidence)
"""

from __future__ import annotations

import logging
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.config.trust import trusting
from tlrun.data.examples.image_files import UNOPENED, LeftOut, find_images, list_folder, text_of
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.sets.listing import refuse_two_labels, scan
from tlrun.engine import checkpoint as checkpoints
from tlrun.errors import ConfigError, DataError, RunError, did_you_mean
from tlrun.evaluate.selection import TASK
from tlrun.files import csv_file
from tlrun.inference.descriptions import handicap, with_classes
from tlrun.messages import plural
from tlrun.methods.base import Method
from tlrun.methods.build import build_method, build_trained_net
from tlrun.methods.query import Query, Support
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger("tlrun")

ROWS_SHOWN = 20
ERRORS_SHOWN = 3
NO_LABEL = "none of these"


class Prediction(NamedTuple):
    """One line of the result. confidence: softmax probability of the label, in [0, 1].

    note: how the method came to it, where it can tell.
    """

    path: str
    label: str
    confidence: float
    note: str = ""


class Box(NamedTuple):
    """One line of a task that says where: sides in shares of the image as the net sees it."""

    path: str
    left: float
    top: float
    right: float
    bottom: float


class Model(nn.Module):
    """A trained net with its preprocessing: raw images (or features) -> logits (B, K).

    classes: names of the K logits. preprocess: what makes the net's input. task: which of several
    tasks. boxes: whether it is one of those that give boxes (B, 4) instead.
    """

    def __init__(
        self,
        net: Net,
        method: Method,
        preprocess: Preprocess,
        classes: Sequence[str],
        task: str | None,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.method, self.preprocess = net, method, preprocess
        self.classes, self.task, self.boxes = tuple(classes), task, boxes
        self.feature_names: tuple[str, ...] | None = None  # columns of features, where named
        self.support: Support | None = None  # labelled images of new classes (learn)
        self.handicap: Tensor | None = None  # (K,), taken off the scores; inf: no candidate
        self.unknown_below = 0.0  # confidence under which the answer is NO_LABEL
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) uint8, or float in [0, 1], of any size; or (B, D) float features."""
        size = self.preprocess.raw_shape[1:]
        if size and tuple(x.shape[-2:]) != tuple(size):
            unit = x.float() / 255 if x.dtype == torch.uint8 else x.float()
            x = F.interpolate(unit, size=size, mode="bilinear", antialias=True, align_corners=False)
        query = Query(self.task, support=self.support)
        out = self.method.predict(self.net, self.preprocess(x), query)
        scores = out.boxes if self.boxes else out.scores
        if scores is None:
            raise ConfigError(self._why_no_scores())
        return scores if self.handicap is None else scores - self.handicap.to(scores)

    def learn(self, folder: str | Path) -> None:
        """Classify into new classes from here on: FOLDER/<class>/ holds a few images of each.

        Raises ConfigError for a method that cannot, DataError for a folder without classes.
        """
        from tlrun.methods.few_shot.episodic import FewShot

        if not isinstance(self.method, FewShot):
            raise ConfigError(
                "--support is for runs of a few-shot method, such as method=protonet; this one "
                "knows its own classes only"
            )
        root, left_out = Path(folder), LeftOut()
        if not root.is_dir() or len(list_folder(root, left_out)[1]) < 2:
            raise DataError(f"--support {folder}: give a folder that holds one folder per class")
        listing = scan(root, left_out).with_prints()
        if listing.labels is None:
            raise DataError(f"--support {folder}: give a folder that holds one folder per class")
        refuse_two_labels({"support": listing}, f"--support {folder}")
        names = sorted(set(listing.labels))
        device = self._device()
        images = self.preprocess.read_files(listing.files)
        y = torch.tensor([names.index(label) for label in listing.labels], device=device)
        self.support = Support(self.preprocess(images.to(device)), y)
        self.classes = tuple(names)

    def _device(self) -> torch.device:
        tensors = chain(self.parameters(), self.buffers())  # texts alone have no weights
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def _why_no_scores(self) -> str:
        if self.support is not None:
            return (
                f"this run's head cannot tell {len(self.classes)} classes apart: give as many "
                "class folders as its training had (data.train.way)"
            )
        if self.task is not None:
            return f"this run did not learn the task '{self.task}': choose one that it did"
        if not self.classes:
            return (
                "this run was given no target labels, so it knows no classes: fine-tune from it, "
                "method=finetune init=RUN_DIR, and predict with that run"
            )
        return (
            "this run's method gives no class scores, so there are no labels to predict, and "
            "nothing to export; of a few-shot one: tlrun predict --support FOLDER, a folder per "
            "class"
        )

    @torch.no_grad()
    def predict_files(
        self,
        paths: Iterable[str | Path],
        batch_size: int = 256,
        bad: list[DataError] | None = None,
    ) -> list[Prediction]:
        """Label and confidence of image files, in order.

        bad: takes the error of each file that cannot be read, which is passed over. Without it the
        first such file raises DataError.
        """
        predictions: list[Prediction] = []
        for chunk, images in self._batches(paths, batch_size, bad):
            confidence, index = self(images).float().softmax(1).max(1)
            explanations = self.method.explain_predictions(
                self.net, self.preprocess(images), self.classes
            )
            for k, path in enumerate(chunk):
                sure, label = float(confidence[k]), self.classes[int(index[k])]
                note = f"{explanations[k]} -> nearest: {label}" if explanations else ""
                label = label if sure >= self.unknown_below else NO_LABEL
                predictions.append(Prediction(text_of(path), label, sure, note))
        return predictions

    @torch.no_grad()
    def locate_files(
        self,
        paths: Iterable[str | Path],
        batch_size: int = 256,
        bad: list[DataError] | None = None,
    ) -> list[Box]:
        """The box in each image file, in order. bad: as of `predict_files`."""
        located: list[Box] = []
        for chunk, images in self._batches(paths, batch_size, bad):
            boxes = self(images).float().tolist()
            located += [
                Box(text_of(path), *sides) for path, sides in zip(chunk, boxes, strict=True)
            ]
        return located

    def _batches(
        self, paths: Iterable[str | Path], size: int, bad: list[DataError] | None
    ) -> Iterator[tuple[list[str | Path], Tensor]]:
        """Paths of files that can be read, with their images (n, C, H, W) uint8 on the device."""
        device = self._device()
        for chunk in _chunks(paths, size):
            good, images = [], []
            for path in chunk:
                try:
                    images.append(self.preprocess.read_files([path]))
                except DataError as error:
                    if bad is None or not self.preprocess.images:
                        raise
                    bad.append(error)
                else:
                    good.append(path)
            if good:
                yield good, torch.cat(images).to(device)


def load(
    run_dir: str | Path,
    checkpoint: str = "selected",
    task: str | None = None,
    classes: str | Path | None = None,
    trust: Sequence[str] = (),
    candidates: Literal["all", "unseen"] | None = None,
    gamma: float | None = None,
) -> Model:
    """The model of a run folder, on the CPU, in eval mode.

    trust: modules of your own that its config.yaml may name (docs/security.md).

    checkpoint: "selected" (what the run's rule chose, the last step if it chose none), "last", or a
    selector's name. task: of a run with several; "selected" is then the best checkpoint of that
    task. classes: a csv of further classes by their attributes. candidates, gamma: of a zero-shot
    run, which classes may be the answer and what is taken off the scores of the seen ones. Raises
    ConfigError, DataError or RunError if the folder does not hold one.
    """
    run = RunDir.open(run_dir)
    with trusting(trust):
        cfg: dict[str, Any] = plain(load_config(run.config))
    if not run.label_space.is_file():
        raise RunError(
            f"{run.path} has no label_space.json: the run stopped before its data were read"
        )
    space = LabelSpace.from_json(run.read_label_space())
    space = space if classes is None else with_classes(space, classes)
    if task is not None and task not in space.tasks:
        raise ConfigError(f"no task '{task}' in this run: {did_you_mean(task, space.tasks)}")
    preprocess = Preprocess.from_spec(dict(space.preprocess))
    method = build_method(cfg)
    data: Any = space  # all that a method may ask of its data when it plans and builds
    net = build_trained_net(cfg, method, method.phases(data), data, preprocess.output_shape)
    for part in net.parts.keys() & set(method.training_parts):
        del net.parts[part]
    best_of_task = run.checkpoints / f"{TASK}{task}.pt"
    best = checkpoint == "selected" and task is not None and best_of_task.is_file()
    _restore(net, method, best_of_task if best else checkpoint_path(run, checkpoint), alone=best)
    judged = space.tasks[task or space.main_task]
    model = Model(net, method, preprocess, judged.classes, task, boxes=judged.kind == "box")
    model.feature_names = space.feature_names
    model.handicap = handicap(space, run.read_summary(), gamma, candidates)
    return model


def checkpoint_path(run: RunDir, name: str) -> Path:
    """checkpoints/<name>.pt; for "selected" the one of the run's selection rule, else last.pt."""
    if name == "selected":
        chosen = run.checkpoints / f"{run.read_summary().get('selection_rule')}.pt"
        return chosen if chosen.is_file() else run.checkpoints / "last.pt"
    path = run.checkpoints / f"{name}.pt"
    if not path.is_file():
        names = [p.stem for p in run.checkpoints.glob("*.pt")]
        raise ConfigError(
            f"no checkpoint '{name}' in {run.path}: {did_you_mean(name, ['selected', *names])}"
        )
    return path


def main(
    run_dir: str | Path,
    images: Sequence[str | Path],
    task: str | None = None,
    output: str | Path | None = None,
    checkpoint: str = "selected",
    support: str | Path | None = None,
    classes: str | Path | None = None,
    unknown_below: float = 0.0,
    candidates: Literal["all", "unseen"] | None = None,
    gamma: float | None = None,
) -> list[Prediction] | list[Box]:
    """`tlrun predict`: print a short table; write path,label,confidence to `output` if given.

    task: of a run with several; one that says where gives path,left,top,right,bottom. support: a
    folder per new class, for a few-shot run. classes: a csv of further classes, for a zero-shot
    run. unknown_below: confidence under which the answer is "none of these". candidates, gamma: as
    of `load`.
    """
    if not 0 <= unknown_below <= 1:
        raise ConfigError(f"--unknown-below {unknown_below}: give a confidence from 0 to 1")
    left_out = LeftOut(skip_unreadable=True)
    bad: list[DataError] = []
    paths = image_files(images, left_out, bad)
    places = len(paths) + len(bad)
    if not left_out.only_hidden:
        log.warning("left out: %s", left_out)
    model = load(run_dir, checkpoint, task, classes, candidates=candidates, gamma=gamma)
    model.unknown_below = unknown_below
    if support is not None:
        model.learn(support)
    rows: list[Prediction] | list[Box]
    header: Sequence[str]
    if model.boxes:
        boxes = rows = model.locate_files(paths, bad=bad)
        texts = [" ".join(f"{side:.3f}" for side in box[1:]) for box in boxes]
        header = Box._fields
    else:
        predictions = rows = model.predict_files(paths, bad=bad)
        texts = [f"{p.label}  {p.confidence:.3f}  {p.note}".rstrip() for p in predictions]
        header = Prediction._fields[: 4 if any(p.note for p in predictions) else 3]
    for error in bad:
        log.warning("%s", error)
    if not rows:
        raise DataError(f"none of the {plural(places, 'file')} can be read: {bad[0]}")
    show(rows, texts)
    if not model.boxes and len(rows) > ROWS_SHOWN:
        counts = Counter(p.label for p in predictions).most_common()
        print(f"... {len(rows)} images: " + ", ".join(f"{label} {n}" for label, n in counts))
    if output is not None:
        write_csv(Path(output), header, rows)
    unopened = sum(reason == UNOPENED for reason in left_out.reasons.values())
    if bad or unopened:
        raise RunError(
            f"{len(bad)} of {plural(places, 'file')} could not be read"
            f"{f', {unopened} files or folders not opened' if unopened else ''}; the others are "
            "predicted"
        )
    return rows


def show(rows: Sequence[Prediction | Box], texts: Sequence[str]) -> None:
    """The first rows, with a text each."""
    width = max(len(row.path) for row in rows[:ROWS_SHOWN])
    for row, text in zip(rows[:ROWS_SHOWN], texts, strict=False):
        print(f"{row.path:<{width}}  {text}")


def image_files(
    places: Sequence[str | Path],
    left_out: LeftOut | None = None,
    bad: list[DataError] | None = None,
) -> list[Path]:
    """Files as given; a folder stands for the images in and below it. DataError if none.

    left_out: takes what lies in the folders and is not read. bad: takes the error of each place
    that holds no image, which is passed over where another does; without it the first is raised.
    """
    left_out = LeftOut() if left_out is None else left_out
    files: list[Path] = []
    for path in map(Path, places):
        try:
            files += _files_at(path, left_out)
        except DataError as error:
            if bad is None:
                raise
            bad.append(error)
    if not files:
        told = [str(error) for error in (bad or ())[:ERRORS_SHOWN]]
        more = [f"and {len(bad) - len(told)} more"] if bad and len(bad) > len(told) else []
        none_given = "no image given: tlrun predict RUN_DIR IMAGE_OR_FOLDER..."
        raise DataError("; ".join([*told, *more]) or none_given)
    return files


def _files_at(path: Path, left_out: LeftOut) -> list[Path]:
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = "" if missing else f" that can be opened ({error.strerror})"
        raise DataError(f"there is no file or folder {text_of(path)}{why}") from error
    if kind == stat.S_IFREG:
        return [path]
    if kind != stat.S_IFDIR:
        raise DataError(f"'{text_of(path)}' is a pipe, a socket or a device, not an image")
    images = find_images(path, left_out)
    if not images:
        beside = str(left_out.below(path)) or "it is empty"
        raise DataError(f"no image in '{text_of(path)}' ({beside})")
    return images


def write_csv(path: Path, header: Sequence[str], found: Sequence[Prediction | Box]) -> None:
    """Write a row each, numbers with six digits. Raises RunError if the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv_file.Writer(file)
            rows.writerow(header)
            for row in found:
                cells = row[: len(header)]
                rows.writerow([f"{c:.6f}" if isinstance(c, float) else c for c in cells])
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror}): choose another --output"
        ) from error
    print(f"written: {path}")


def _restore(net: Net, method: Method, path: Path, alone: bool = False) -> None:
    """alone: parts that came later are not needed (a task's best may be of an earlier phase)."""
    saved = checkpoints.load(path)
    missing = set(net.parts) - set(saved["parts"])
    if alone:
        for part in missing:
            del net.parts[part]
    elif missing:
        raise RunError(
            f"{path} lacks the parts {', '.join(sorted(missing))}: it is of an earlier phase"
        )
    try:
        for part in net.parts:  # the others are for training alone
            net[part].load_state_dict(saved["parts"][part])
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise RunError(f"{path} does not fit the net that config.yaml describes: {why}") from error
    method.load_state_dict(saved["method"])


def _chunks(items: Iterable[str | Path], size: int) -> Iterator[list[str | Path]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
