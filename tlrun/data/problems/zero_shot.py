"""Seen and unseen classes: the `Data` of zero-shot learning, from images (or features) and a table.

Three groups of classes, without overlap:

    training     the method trains on their training images
    validation   seen, but held out of training: hyper-parameters, selection and the calibration of
                 generalized zero-shot learning are chosen on them, as if they were unseen
    unseen       only their test images exist, and only for the final figures and `oracle/*`

source_train: training images of the training classes, less a tenth; source_val: that tenth, and the
training images of the validation classes; source_test: test images of the training classes;
target_test: test images of the unseen classes. Validation classes are left out of the test: they
are neither seen nor unseen. Labels are positions in the list of all classes: training, validation,
unseen.

With `leave_out` every set of so many classes is unseen in turn: all classes are then training
classes of the data, and a method in closed form is fitted anew without each set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tlrun.config.ranges import Count, Interpolation, Normalize, NotNegative, Number, Pixels, Size
from tlrun.data.examples.attribute_table import Table, find, from_mat, read_table
from tlrun.data.examples.decode import GreyRange
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.match import classes_of
from tlrun.data.examples.splits import Card, Splits, carve, cut, draw_per_class
from tlrun.data.pipeline.augment import Augment
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.class_checks import check_trained
from tlrun.data.problems.label_space import AttributeFacts, Task
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, Domain, interpolation_of, preprocess_of
from tlrun.data.sets.folder import Reader
from tlrun.data.sets.listing import Listing, open_folder
from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.files.archives import load_mat
from tlrun.messages import plural

VAL_FRACTION = 0.1
XLSA17_URL = "http://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip"
LEAST_SEEN = 4  # classes: half of them are held out at a time to choose settings on


def seen_unseen(
    *,
    options: Options,
    name: str = "attributes",
    images: Mapping[str, Any] | None = None,
    table: Mapping[str, Any] | None = None,
    unseen: Sequence[str] = (),
    validation: Sequence[str] = (),
    draw_validation: Size = 0,
    leave_out: Size = 0,
    per_class: Count | None = None,
    gamma: Number | None = None,
    size: Pixels | None = None,
    channels: Literal[1, 3] = 3,
    normalize: Normalize = "none",
    interpolation: Interpolation = "auto",
    augment: Mapping[str, Any] | None = None,
) -> Data:
    """images: a data set (`_target_`) with the images of all classes. table: see `read_table`.

    unseen: names of the classes without training images. validation: names of seen classes to
    hold out. draw_validation: how many to draw by seed instead. leave_out: in place of these, every
    set of so many classes is unseen in turn. per_class: at most so many training images of each
    class (null = all). gamma: calibration; null = chosen on held-out classes. The rest: as of other
    data. Raises ConfigError or DataError.
    """
    from tlrun.config.build import build

    if not images:
        raise ConfigError("which images? Give data.images (a data set with its `_target_`).")
    seed = options.seed
    how = interpolation_of(images, interpolation)
    splits = build(images, "data.images", seed=seed, size=size, download=True, **how)
    if not isinstance(splits, Splits) or splits.train.classes is None:
        raise DataError(f"data.images: {images.get('_target_')} must return Splits with labels.")
    if splits.test is None or splits.test.labels is None:
        made = cut(splits.train, splits.card, seed, val=0.0, fit=splits.fit)
        splits = replace(splits, train=made.train, val=None, test=made.test)
    assert splits.test is not None
    conf = {
        "channels": channels,
        "normalize": normalize,
        "interpolation": interpolation,
        "augment": augment,
    }
    classes = classes_of(splits)  # unseen ones may stand in the test set alone
    attributes = read_table(**dict(table or {}), classes=classes)
    if leave_out:
        groups = all_in_turn(classes, leave_out, [*unseen, *validation], draw_validation)
    else:
        groups = class_groups(classes, unseen, validation, draw_validation, seed)
    train = splits.train
    if per_class is not None:
        train = train.subset(draw_per_class(train, per_class, seed))
    sets = {"train": train, "seen": splits.test, "unseen": splits.test}
    data = assemble(
        name,
        attributes,
        groups,
        sets,
        splits.card,
        seed=seed,
        gamma=gamma,
        leave_out=leave_out,
        conf=conf,
        fit=splits.fit,
        grey=splits.grey,
    )
    return replace(data, feature_names=splits.feature_names)


def class_groups(
    classes: Sequence[str], unseen: Sequence[str], validation: Sequence[str], draw: int, seed: int
) -> dict[str, list[str]]:
    """{training, validation, unseen: names}, each in the order of `classes`. Raises ConfigError."""
    chosen = {"unseen": [str(c) for c in unseen]}
    if not chosen["unseen"]:
        raise ConfigError("which classes are unseen? Give data.unseen=[name,...].")
    seen = [c for c in classes if c not in chosen["unseen"]]
    if draw:
        if validation:
            raise ConfigError("give data.validation or data.draw_validation, not both.")
        order = permutation(len(seen), "validation classes", seed).tolist()
        validation = [seen[i] for i in order[:draw]]
    chosen["validation"] = [str(c) for c in validation]
    for key, names in chosen.items():
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"data.{key}: the class '{twice[0]}' is named twice; name it once")
        for wrong in set(names) - set(classes):
            raise ConfigError(f"data.{key}: no class '{wrong}': {did_you_mean(wrong, classes)}")
    both = sorted(set(chosen["unseen"]) & set(chosen["validation"]))
    if both:
        raise ConfigError(
            f"the class '{both[0]}' is both unseen and for validation: what is chosen on it would "
            "be chosen on the test"
        )
    training = [c for c in seen if c not in chosen["validation"]]
    if len(training) < 2:
        raise ConfigError(
            f"{plural(len(training), 'class')} left to train on; at least 2 are needed."
        )
    ordered = {k: [c for c in classes if c in names] for k, names in chosen.items()}
    return {"training": training, **ordered}


def all_in_turn(
    classes: Sequence[str], leave_out: int, named: Sequence[str], draw: int
) -> dict[str, list[str]]:
    """The groups where every set of `leave_out` classes is unseen in turn. Raises ConfigError."""
    if named or draw:
        raise ConfigError(
            f"data.leave_out={leave_out} makes every set of {leave_out} classes unseen in turn: "
            "data.unseen=[] data.validation=[] data.draw_validation=0 then"
        )
    if not 2 <= leave_out <= len(classes) - LEAST_SEEN:
        raise ConfigError(
            f"data.leave_out={leave_out} of {len(classes)} classes: leave out 2 or more, and at "
            f"least {LEAST_SEEN} to learn from"
        )
    return {"training": list(classes), "validation": [], "unseen": []}


def assemble(
    name: str,
    table: Table,
    groups: Mapping[str, Sequence[str]],
    sets: Mapping[str, ImageSet],
    card: Card,
    *,
    seed: int,
    gamma: float | None,
    conf: Mapping[str, Any],
    leave_out: int = 0,
    fit: str = "squash",
    grey: GreyRange | None = None,
) -> Data:
    """sets: train, seen (test) and unseen (test), with labels of all classes; see the module."""
    classes = (*groups["training"], *groups["validation"], *groups["unseen"])
    train = _of(sets["train"], groups["training"], classes, "training")
    train, held = carve(train, round(len(train) * VAL_FRACTION), seed, "zero-shot val")
    check_trained(train, groups["training"])
    val = held
    if groups["validation"]:
        val = _join(held, _of(sets["train"], groups["validation"], classes, "validation"))
    source = Domain(name, train, val, _of(sets["seen"], groups["training"], classes, "seen"), card)
    test = _of(sets["unseen"], groups["unseen"], classes, "unseen") if groups["unseen"] else None
    target = Domain(name, None, None, test, card)
    refuse_shared_rows(train, source.test, target.test)
    values = table.rows_of(classes)
    facts = AttributeFacts(
        [[None if np.isnan(v) else float(v) for v in row] for row in values],
        list(table.attributes),
        training=list(groups["training"]),
        validation=list(groups["validation"]),
        unseen=list(groups["unseen"]),
        ready_features=len(train.shape) == 1,
        gamma=gamma,
        leave_out=leave_out,
    )
    augment = dict(conf.get("augment") or {})
    return Data(
        name=name,
        domains={"source": source, "target": target},
        tasks={"class": Task("class", "attributes", classes)},
        preprocess=preprocess_of(conf, train, fit, grey),
        augment={"source": Augment(augment.get("source")), "target": Augment(None)},
        evaluator="attributes",
        facts=facts,
    )


def refuse_shared_rows(train: ImageSet, *tests: ImageSet | None) -> None:
    """DataError if an example is both trained and tested on (views on the same tensor)."""
    for test in tests:
        if test is None or not (train.in_memory and test.in_memory) or test.data is not train.data:
            continue
        if train.rows is not None and test.rows is not None:
            refuse_overlap(train.rows.numpy(), test.rows.numpy(), train.name)


def refuse_overlap(train: np.ndarray, test: np.ndarray, name: str) -> None:
    """train, test: row numbers. DataError if they meet."""
    shared = np.intersect1d(train, test)
    if len(shared):
        raise DataError(
            f"{name}: {len(shared):,} of {len(np.unique(test)):,} test rows are training rows too, "
            "so the figures would be of training data. In xlsa17's splits `train_loc` and `val_loc`"
            " hold every row of `test_seen_loc`: train on `trainval_loc` and hold out classes."
        )


def _of(examples: ImageSet, names: Sequence[str], classes: Sequence[str], what: str) -> ImageSet:
    """The examples of the classes `names`, with labels among `classes`."""
    if examples.labels is None or examples.classes is None:
        raise DataError(f"{examples.name} has no labels; zero-shot data need a class per example.")
    number = torch.tensor([classes.index(c) if c in names else -1 for c in examples.classes])
    label = number[examples.labels]
    keep = torch.nonzero(label >= 0).flatten()
    if not len(keep):
        raise DataError(f"{examples.name} has no examples of the {what} classes {list(names)}.")
    labelled = examples.subset(keep)
    return labelled.with_labels(label[keep], classes)


def _join(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both, one after the other: views on the same data stay views."""
    assert first.labels is not None
    assert second.labels is not None
    labels = torch.cat([first.labels, second.labels])
    if not first.in_memory:
        raise DataError("zero-shot validation classes need images in memory: raise memory_gb.")
    if first.data is second.data and first.rows is not None and second.rows is not None:
        rows: Tensor | None = torch.cat([first.rows, second.rows])
        data = first.data
    else:
        sets = (first, second)
        data, rows = torch.cat([s.read(torch.arange(len(s))) for s in sets]), None
    return ImageSet(first.name, data, labels, first.classes, None, rows)


def xlsa17(
    *,
    options: Options,
    name: str = "xlsa17",
    path: str | None = None,
    features: str = "res101.mat",
    train: Sequence[str] = ("trainval_loc",),
    validation: Sequence[str] = (),
    draw_validation: Size = 0,
    gamma: Number | None = None,
    normalize: Normalize = "none",
    interpolation: Interpolation = "auto",
    augment: Mapping[str, Any] | None = None,
    images: str | None = None,
    size: Pixels = 64,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    memory_gb: NotNegative = 2.0,
) -> Data:
    """Xian et al.'s proposed splits. path: a folder with att_splits.mat and `features` beside it.

    images: the folder of the images themselves (JPEGImages of AwA2, images of CUB or SUN), read in
    place of the ready features by the `image_files` of that file; size, channels, fit and memory_gb
    are theirs. train: the index lists that are trained on; lists that meet a test list are refused.
    Validation classes are drawn from the seen ones, since `train_loc`/`val_loc` hold test rows.
    """
    if not path:
        raise ConfigError("where is the data set? Give data.path=FOLDER with att_splits.mat.")
    if images == "":
        raise ConfigError("where are the images? Give data.images=FOLDER.")
    folder = find(path)
    arrays = load_mat(folder / "att_splits.mat")
    rows = {}
    for key in (*train, "test_seen_loc", "test_unseen_loc"):
        if key not in arrays:
            raise ConfigError(f"'{folder}/att_splits.mat' has no '{key}'.")
        rows[key] = np.asarray(arrays[key]).ravel().astype(np.int64) - 1  # MATLAB counts from 1
    chosen = np.unique(np.concatenate([rows[key] for key in train]))
    for key in ("test_seen_loc", "test_unseen_loc"):
        refuse_overlap(chosen, rows[key], f"'{folder}', {' + '.join(train)} against {key}")
    feature_arrays = load_mat(
        folder / features, None if images is None else ["labels", "image_files"]
    )
    table = from_mat(arrays)
    y = torch.from_numpy(feature_arrays["labels"].ravel().astype(np.int64) - 1)
    citation = "Xian, Lampert, Schiele, Akata, TPAMI 2018"
    card = Card(name, citation, "none stated", XLSA17_URL, str(folder))
    indices = {
        "train": chosen,
        "seen": rows["test_seen_loc"],
        "unseen": rows["test_unseen_loc"],
    }
    grey: GreyRange = {}
    if images is None:
        x = torch.from_numpy(np.ascontiguousarray(feature_arrays["features"].T, dtype=np.float32))
        everything = ImageSet(name, x, y, table.classes)
        sets = {key: everything.subset(torch.from_numpy(i)) for key, i in indices.items()}
    else:
        files = _image_files(feature_arrays, folder / features, images)
        names = [table.classes[label] for label in y.tolist()]
        listings = {
            key: Listing([files[i] for i in index], [names[i] for i in index]).with_prints()
            for key, index in indices.items()
        }
        reader = Reader("data", size, channels, fit, None, memory_gb, interpolation)
        sets, grey = reader.sets(name, listings, dict.fromkeys(listings, table.classes), card)
    unseen = [table.classes[i] for i in np.unique(y.numpy()[rows["test_unseen_loc"]])]
    groups = class_groups(table.classes, unseen, validation, draw_validation, options.seed)
    conf = {
        "normalize": normalize,
        "interpolation": interpolation,
        "channels": channels,
        "augment": augment,
    }
    return assemble(
        name,
        table,
        groups,
        sets,
        card,
        seed=options.seed,
        gamma=gamma,
        conf=conf,
        fit=fit,
        grey=grey,
    )


def _image_files(arrays: Mapping[str, Any], path: Path, images: str) -> list[Path]:
    """`image_files` of a features file below the folder `images`.

    The file holds paths of its authors' machine: what stands before the part that exists here is
    the same for all. Raises DataError that names a file which is not there.
    """
    root = open_folder(images, "data.images")
    if "image_files" not in arrays:
        raise DataError(f"'{path}' names no image_files: take res101.mat as published.")
    names = [str(np.ravel(cell)[0]) for cell in np.ravel(arrays["image_files"])]
    parts = [PurePosixPath(name.replace("\\", "/")).parts for name in names]
    before = next((k for k in range(len(parts[0])) if root.joinpath(*parts[0][k:]).is_file()), None)
    if before is None:
        raise DataError(
            f"data.images={images} holds no '{'/'.join(parts[0][-2:])}': give the folder of the "
            "images that the features were computed of (JPEGImages of AwA2, images of CUB or SUN)."
        )
    files = [root.joinpath(*part[before:]) for part in parts]
    if absent := next((file for file in files if not file.is_file()), None):
        raise DataError(f"no image at '{absent}': unpack all of the set.")
    return files
