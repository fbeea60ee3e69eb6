"""Sets whose lists are read here: torchvision has no loader, or one that asks for what is not used.

Class folders go through the reader of `folder`, lists are read as they were published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.data.examples.csv_table import read_csv_table
from tlrun.data.examples.image_files import LeftOut
from tlrun.data.examples.splits import class_order
from tlrun.data.sets.listing import scan
from tlrun.data.sets.published import Items, PublishedSet
from tlrun.errors import DataError
from tlrun.files.archives import described, load_mat

NO_CLASS = "BACKGROUND_Google"  # of Caltech-101: pictures of anything
VAL_LABELS = "LOC_val_solution.csv"  # of ImageNet as Kaggle packs it


def class_folders(folder: Path, leave_out: Sequence[str] = ()) -> Items:
    """A folder per class, in alphabetical order. Raises DataError."""
    found = scan(folder, LeftOut())
    if found.labels is None:
        raise DataError(f"'{folder}' should hold a folder per class, not images.")
    pairs = [
        (file, label)
        for file, label in zip(found.files, found.labels, strict=True)
        if label not in leave_out
    ]
    return named([file for file, _ in pairs], [label for _, label in pairs])


def named(files: Sequence[Path], names: Sequence[str], classes: Sequence[str] = ()) -> Items:
    """Files with the name of a class each. classes: all in their order, else those that occur."""
    order = list(classes) or class_order(names)
    number = {name: i for i, name in enumerate(order)}
    return Items(files, [number[name] for name in names], order)


def table(path: Path) -> list[list[str]]:
    """The lines of a text file, cut at blanks. Raises DataError."""
    with described(path):
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line]


def _eurosat(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return class_folders(folder)


def _caltech101(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return class_folders(folder, leave_out=(NO_CLASS,))


def cub_classes(folder: Path) -> list[str]:
    """`001.Black_footed_Albatross`, ... in the order of their numbers."""
    return [name for _, name in table(folder / "classes.txt")]


def _cub(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    """images.txt, image_class_labels.txt and train_test_split.txt: a line `id value` per image."""
    with described(folder):
        files = dict(table(folder / "images.txt"))
        labels = dict(table(folder / "image_class_labels.txt"))
        wanted = "1" if split == "train" else "0"
        chosen = [i for i, part in table(folder / "train_test_split.txt") if part == wanted]
        return Items(
            [folder / "images" / files[i] for i in chosen],
            [int(labels[i]) - 1 for i in chosen],
            cub_classes(folder),
        )


def _dogs(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    """{train,test}_list.mat: `file_list` of n02085620-Chihuahua/n02085620_5927.jpg."""
    path = folder / f"{split}_list.mat"
    with described(path):
        files = [str(cell[0]) for cell in load_mat(path, ["file_list"])["file_list"].ravel()]
    synsets = sorted({file.partition("/")[0] for file in files})
    number = {synset: i for i, synset in enumerate(synsets)}
    return Items(
        [folder / "Images" / file for file in files],
        [number[file.partition("/")[0]] for file in files],
        [synset.partition("-")[2] for synset in synsets],
    )


def _imagenet(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    """train/<synset>/*.JPEG and val/<synset>/*.JPEG, which is tested on; or val/*.JPEG with the
    table of labels that Kaggle packs."""
    place = folder / ("train" if split == "train" else "val")
    found = scan(place, LeftOut())
    if found.labels is not None:
        return named(found.files, found.labels)
    above = [folder, *folder.resolve().parents[:3]]
    labels = next((at / VAL_LABELS for at in above if (at / VAL_LABELS).is_file()), None)
    if labels is None:
        raise DataError(
            f"'{place}' holds images without their classes: sort them into a folder per class, or "
            f"put {VAL_LABELS} into '{folder}'."
        )
    with described(labels):
        columns = read_csv_table(labels)
        synsets = dict(zip(columns.column(0), columns.column(1), strict=True))
        return named(found.files, [synsets[f.stem].split()[0] for f in found.files])


def _stl10(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    """Bytes of 3 x 96 x 96 images, column by column; labels from 1."""
    with described(folder):
        flat = np.fromfile(folder / f"{split}_X.bin", np.uint8).reshape(-1, 3, 96, 96)
        pixels, labels = (
            flat.transpose(0, 1, 3, 2),
            np.fromfile(folder / f"{split}_y.bin", np.uint8),
        )
        if split == "train" and "fold" in options:
            rows = [int(i) for i in table(folder / "fold_indices.txt")[options["fold"]]]
            pixels, labels = pixels[rows], labels[rows]
        classes = [name for (name,) in table(folder / "class_names.txt")]
        return Items(pixels, [int(y) - 1 for y in labels], classes)


SETS = {
    "stl10": PublishedSet(
        title="STL-10",
        citation="Coates, Lee, Ng, An analysis of single-layer networks in unsupervised feature "
        "learning, AISTATS 2011",
        licence="none stated; research use",
        url="https://cs.stanford.edu/~acoates/stl10/",
        classes=10,
        counts={"train": 5000, "test": 8000},
        places=("stl10_binary", "stl10/stl10_binary", "STL10/stl10_binary"),
        needs=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"),
        read=_stl10,
        options={"fold": {"train": 1000}},
        loader="STL10",
        probe="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    ),
    "eurosat": PublishedSet(
        title="EuroSAT",
        citation="Helber, Bischke, Dengel, Borth, EuroSAT, IEEE J-STARS 2019",
        licence="MIT",
        url="https://github.com/phelber/EuroSAT",
        classes=10,
        counts={"train": 27000},
        places=("eurosat/2750", "EuroSAT/2750", "EuroSAT_RGB", "eurosat", "EuroSAT", "2750"),
        needs=("AnnualCrop", "SeaLake"),
        read=_eurosat,
        protocol="fractions",
        loader="EuroSAT",
        probe="https://huggingface.co/datasets/torchgeo/eurosat/resolve/main/EuroSAT.zip",
    ),
    "caltech101": PublishedSet(
        title="Caltech-101",
        citation="Fei-Fei, Fergus, Perona, Learning generative visual models from few training "
        "examples, CVPR workshop 2004",
        licence="CC BY 4.0",
        url="https://data.caltech.edu/records/mzrjq-6wc02",
        classes=101,
        counts={"train": 8677},
        places=(
            "caltech101/101_ObjectCategories",
            "caltech-101/101_ObjectCategories",
            "Caltech101/101_ObjectCategories",
            "101_ObjectCategories",
        ),
        needs=("accordion", "yin_yang"),
        read=_caltech101,
        protocol="per_class",
        options={"per_class": {}},
        loader="Caltech101",
        probe="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
    ),
    "cub": PublishedSet(
        title="CUB-200-2011",
        citation="Wah, Branson, Welinder, Perona, Belongie, The Caltech-UCSD Birds-200-2011 "
        "dataset, 2011",
        licence="none stated; photographs of Flickr, research use",
        url="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        classes=200,
        counts={"train": 5994, "test": 5794},
        places=(
            "CUB_200_2011",
            "CUB_200_2011/CUB_200_2011",
            "cub/CUB_200_2011",
            "CUB/CUB_200_2011",
            "CUB",
        ),
        needs=(
            "images",
            "images.txt",
            "image_class_labels.txt",
            "train_test_split.txt",
            "classes.txt",
        ),
        read=_cub,
    ),
    "dogs": PublishedSet(
        title="Stanford Dogs",
        citation="Khosla, Jayadevaprakash, Yao, Fei-Fei, Novel dataset for fine-grained image "
        "categorization, FGVC workshop 2011",
        licence="none stated; images of ImageNet, research use",
        url="http://vision.stanford.edu/aditya86/ImageNetDogs/",
        classes=120,
        counts={"train": 12000, "test": 8580},
        places=("stanford_dogs", "StanfordDogs", "dogs"),
        needs=("Images", "train_list.mat", "test_list.mat"),
        read=_dogs,
    ),
    "imagenet": PublishedSet(
        title="ImageNet (ILSVRC 2012)",
        citation="Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 2015",
        licence="non-commercial research and education",
        url="https://image-net.org/download.php",
        classes=1000,
        counts={"train": 1281167, "test": 50000},
        places=("imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "imagenet/images"),
        needs=("train", "val"),
        read=_imagenet,
    ),
}
