"""A folder per class, for episodes: FOLDER/{train,val,test}/<class>/*.jpg are base, validation and
novel classes; without such folders FOLDER/<class>/*.jpg are divided by seed, whole classes at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tlrun.data.episodes import ClassSplits, rotated, split_classes
from tlrun.data.hashing import permutation
from tlrun.data.image_set import ImageSet
from tlrun.data.sets.folder import folder
from tlrun.data.splits import Card
from tlrun.errors import ConfigError, DataError
from tlrun.ranges import InsideZeroToOne, Pixels, Range

PARTS = ("train", "val", "test")


def class_folder(
    *,
    seed: int = 0,
    size: Pixels = 84,
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    val: InsideZeroToOne = 0.2,
    novel: InsideZeroToOne = 0.2,
    rotations: Annotated[int, Range(1, 4)] = 1,
) -> ClassSplits:
    """val, novel: shares of the classes, where the folder is not divided. Raises ConfigError or
    DataError."""
    if root is None:
        raise ConfigError("where are the images? Set data.classes.root=FOLDER, a folder per class.")
    place = Path(root).expanduser()

    def read(path: Path) -> ImageSet:
        found = folder(
            seed=seed,
            size=size,
            name="classes",
            root=str(path),
            channels=channels,
            fit=fit,
            val_fraction=0.0,
            test_fraction=0.0,
        ).train
        if found.labels is None:
            raise DataError(f"'{path}' is a flat folder of images: episodes need one per class.")
        return found

    card = Card("classes", "your own images", "yours", "", str(root))
    if all((place / part).is_dir() for part in PARTS):
        base, held, new = (rotated(read(place / part), rotations) for part in PARTS)
        names = [set(s.classes or ()) for s in (base, held, new)]
        if shared := (names[0] & names[1]) | (names[0] | names[1]) & names[2]:
            raise DataError(
                f"class '{sorted(shared)[0]}' is in two of train, val and test of '{place}': "
                "episodes need new classes in each; give it one place."
            )
        return ClassSplits(base, held, new, card, fit)
    examples = read(place)
    count = len(examples.classes or ())
    sizes = [max(1, round(count * share)) for share in (val, novel)]
    if sum(sizes) >= count:
        raise ConfigError(
            f"data.classes.val={val}, novel={novel}: shares of the {count} classes that leave some "
            "to learn from"
        )
    order = permutation(count, "classes", seed).tolist()
    groups = [order[sum(sizes) :], order[: sizes[0]], order[sizes[0] : sum(sizes)]]
    parts = split_classes(examples, [sorted(group) for group in groups])
    sets = [rotated(part, rotations) for part in parts]
    return ClassSplits(sets[0], sets[1], sets[2], card, fit)
