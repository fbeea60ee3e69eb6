"""The benchmark sets of domain adaptation: domains, classes, published counts, layouts on disk.

A table that `domain_images` reads; nothing here opens a file. In a pattern `{domain}` stands for
the domain as it is spelled on disk (`DomainSet.spelled`), and all are relative to a folder of the
set (`DomainSet.folders`, under $TLRUN_DATA or the cache) or to `data.root`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tlrun.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Layout:
    """One way in which people have a set on disk.

    images: where the images of a domain lie, a folder per class. Or `listed`: split -> a file of
    `path number` lines, paths relative to `base`, for images that have no folder per class.
    splits: split -> files that name those images of `images` which belong to it (the first file
    that exists); without them the set has no splits of its own here.
    """

    images: str = ""
    listed: Mapping[str, str] = field(default_factory=dict)
    base: str = "."
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def places(self) -> list[str]:
        """What must be there."""
        return [self.images] if self.images else [*self.listed.values()]


@dataclass(frozen=True)
class DomainSet:
    """A row of the table.

    counts: domain -> published number of images, in the order in which the domains are named.
    classes: in the order of their numbers, where lists or folders have numbers only. folders,
    archives: relative to a data root. spelled: domain -> its names on disk, if others than its own.
    """

    title: str
    citation: str
    licence: str
    url: str
    counts: Mapping[str, int]
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    classes: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    spelled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.counts)

    def spellings(self, domain: str) -> tuple[str, ...]:
        """As the domain may be called on disk."""
        return (domain, *self.spelled.get(domain, ()))


PLAIN = Layout("{domain}")  # <domain>/<class>/*

SETS = {
    "pacs": DomainSet(
        title="PACS",
        citation="Li, Yang, Song, Hospedales, Deeper, broader and artier domain generalization, "
        "ICCV 2017",
        licence="none stated; research use",
        url="https://domaingeneralization.github.io",
        counts={"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
        classes=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        folders=("PACS", "pacs", "PACS/PACS", "pacs_data"),
        layouts=tuple(
            Layout(
                images,
                splits={
                    split: tuple(
                        f"{place}{{domain}}_{name}.txt"
                        for place in ("", "splits/", "train_val_splits/", "image_list/", "kfold/")
                        for name in names
                    )
                    for split, names in (
                        ("train", ("train_kfold", "train")),
                        ("val", ("crossval_kfold", "val")),
                    )
                },
            )
            for images in ("{domain}", "kfold/{domain}", "images/{domain}", "raw_images/{domain}")
        ),
        archives=("PACS/*.tar*", "PACS/*.zip", "pacs/*.tar*", "pacs/*.zip", "PACS.zip", "pacs.zip"),
        spelled={"art_painting": ("art",)},
    ),
}


def domain_set(name: str) -> DomainSet:
    """A row of the table by its name. Raises ConfigError."""
    if name not in SETS:
        raise ConfigError(f"data.set={name}: {did_you_mean(name, SETS)}")
    return SETS[name]
