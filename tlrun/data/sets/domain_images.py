"""One domain, or several joined, of a benchmark set of domain adaptation or of a folder of domains.

    data=pacs data.source=photo data.target=sketch          rows of `domain_table`
    data=domains data.root=X data.source=a data.target=b    X/<domain>/<class>/*, as of `folder`

`problems/domain_words.py` makes these blocks of the words. Splits, as the field has them:

    source   the published training and validation images, where the set has such splits; else all
             images, less a seeded `val_fraction` (and `test_fraction`)
    target   transductive: trained on, without labels, and tested on all images; else the published
             splits, or seeded fractions

Images are ordered by their content, and labels are the names of classes, so neither the order nor
the numbers of a list play a part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from tlrun.config.ranges import BelowOne, NotNegative, Number, Pixels
from tlrun.data.examples.download import data_roots, missing
from tlrun.data.examples.image_files import LeftOut, text_of
from tlrun.data.examples.splits import Card, Splits, class_order
from tlrun.data.examples.unpack import unpacked
from tlrun.data.sets.domain_table import DomainSet, Layout, domain_set
from tlrun.data.sets.folder import Reader, add_note, folder_listings, readable
from tlrun.data.sets.listing import Listing, open_folder, refuse_two_labels, scan, without_copies
from tlrun.errors import DataError

log = logging.getLogger("tlrun")

KEY = "data"  # the keys of a domain stand in the group itself


def domain_images(
    *,
    seed: int = 0,
    size: Pixels | None = 224,
    download: bool = True,
    set: str | None = None,  # the key that users type
    domains: Sequence[str] = (),
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    grey_values: list[Number] | None = None,
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.0,
    transductive: bool = False,
    skip_unreadable: bool = False,
    memory_gb: NotNegative = 2.0,
) -> Splits:
    """See the module. set: a row of `domain_table.SETS`; None: `root` holds a folder per domain.

    domains: joined if several. The rest: as of `folder`. Raises ConfigError, or DataError with the
    one message that says which files to put where.
    """
    reader = Reader(KEY, size, channels, fit, grey_values, memory_gb)
    name = "+".join(domains)
    left_out = LeftOut(skip_unreadable)
    listings: dict[str, Listing] = {}
    if set is None:
        card = Card(name, "your own images", "yours", "", str(root))
        base = open_folder(str(root), f"{KEY}.root")
        for domain in domains:
            own = folder_listings(domain, str(base / domain), None, None, left_out)
            listings = _joined(listings, own)
    else:
        row = domain_set(set)
        card = Card(f"{set} {name}", row.citation, row.licence, row.url)
        for domain in domains:
            layout, base, spelled = find_domain(row, domain, root)
            card.root = card.root or text_of(base)
            published = read_domain(row, layout, base, spelled, left_out)
            add_note(card, f"{set}", _incomplete(set, row, domain, published), quietly=True)
            listings = _joined(listings, published)
    add_note(card, KEY, f"left out: {left_out}" if left_out.reasons else "", left_out.only_hidden)
    if transductive:
        listings = {"train": _all(listings)}
    if skip_unreadable:
        listings = {split: readable(listing, KEY) for split, listing in listings.items()}
    listings = {split: listing.with_prints() for split, listing in listings.items()}
    if set is None:
        refuse_two_labels(listings, KEY)
        if not transductive:
            listings, notes = without_copies(listings, KEY)
            for note in notes:
                add_note(card, KEY, note)
    classes = class_order(label for listing in listings.values() for label in listing.labels or ())
    return reader.splits(
        name,
        listings,
        classes,
        card,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        transductive=transductive,
    )


def _joined(first: Mapping[str, Listing], second: Mapping[str, Listing]) -> dict[str, Listing]:
    """Listings of several domains by split; an image without a split of its own is for training."""
    out = dict(first)
    for split, listing in second.items():
        out[split] = _both(out[split], listing) if split in out else listing
    return out


def _both(a: Listing, b: Listing) -> Listing:
    labels = None if a.labels is None or b.labels is None else [*a.labels, *b.labels]
    return Listing([*a.files, *b.files], labels)


def _all(listings: Mapping[str, Listing]) -> Listing:
    parts = iter(listings.values())
    whole = next(parts)
    for part in parts:
        whole = _both(whole, part)
    return whole


def _incomplete(name: str, row: DomainSet, domain: str, found: Mapping[str, Listing]) -> str:
    """What to say of a domain that is not as published; said once per process."""
    count, published = sum(len(part.files) for part in found.values()), row.counts[domain]
    if count == published:
        return ""
    note = f"{domain}: {count:,} of the published {published:,} images"
    if count > published:
        note = f"{domain}: {count:,} images, where {published:,} are published"
    _warn_once(f"{name}: {note} are on this machine; figures are not those of the whole set")
    return note


@cache
def _warn_once(sentence: str) -> None:
    log.warning(sentence)


# ---- where a set lies -------------------------------------------------------------------------


def find_domain(row: DomainSet, domain: str, root: str | None = None) -> tuple[Layout, Path, str]:
    """(layout, the folder that its patterns are relative to, the domain as spelled there).

    Folders before archives, which are unpacked into the cache. root: `data.root`, in place of the
    data roots. Raises DataError.
    """
    tried: list[Path] = []
    for base in _bases(row, root):
        tried.append(base)
        for layout in row.layouts:
            for spelled in row.spellings(domain):
                places = [base / place.format(domain=spelled) for place in layout.places]
                if all(place.exists() for place in places):
                    return layout, base, spelled
    raise _absent(row, domain, root, tried)


def _bases(row: DomainSet, root: str | None) -> Iterator[Path]:
    """Folders that may hold the set, in the order in which they are searched."""
    if root:
        given = open_folder(root, f"{KEY}.root")
        roots, around = [given.parent], [given]
        yield given
        yield from (given / folder for folder in row.folders if (given / folder).is_dir())
    else:
        roots, around = data_roots(), []
        yield from (
            place / folder for place in roots for folder in row.folders if (place / folder).is_dir()
        )
    archives = [a for place in roots for pattern in row.archives for a in _glob(place, pattern)]
    archives += [a for place in around for p in ("*.zip", "*.tar*", "*.tgz") for a in place.glob(p)]
    for archive in dict.fromkeys(archives):
        if archive.is_file():
            inside = unpacked(archive)
            yield inside
            yield from (inside / folder for folder in row.folders if (inside / folder).is_dir())
            yield from sorted(path for path in inside.iterdir() if path.is_dir())


def _glob(place: Path, pattern: str) -> list[Path]:
    return sorted(place.glob(pattern)) if place.is_dir() else []


def _absent(row: DomainSet, domain: str, root: str | None, tried: Sequence[Path]) -> DataError:
    """The one message for a set, or a domain of it, that is not here."""
    spelled = row.spellings(domain)[-1]
    layouts = [place.format(domain=spelled) for layout in row.layouts for place in layout.places]
    if tried:
        searched = " or ".join(f"'{place}'" for place in tried[:3])
        return DataError(
            f"{row.title}: no domain '{domain}' in {searched}; "
            f"looked for {' or '.join(layouts)} there. Put its images there (from {row.url}), or "
            "choose another domain."
        )
    home = row.folders[0]
    return missing(
        row.title,
        [f"{home}/{place}" for place in layouts] + list(row.archives[:2]),
        needs=[f"the images of {row.title} ({row.url}) as {home}/{layouts[0]}/<class>/*"],
    )


# ---- what lies there --------------------------------------------------------------------------


def read_domain(
    row: DomainSet, layout: Layout, base: Path, spelled: str, left_out: LeftOut
) -> dict[str, Listing]:
    """Split -> images of one domain, "train" always. Raises DataError."""
    if layout.listed:
        raise NotImplementedError
    whole = scan(base / layout.images.format(domain=spelled), left_out)
    if whole.labels is None:
        raise DataError(
            f"{row.title}: '{base / layout.images.format(domain=spelled)}' should hold a folder "
            "per class."
        )
    whole = Listing(whole.files, [_class_name(row, label) for label in whole.labels])
    members = {
        split: _members(base, [pattern.format(domain=spelled) for pattern in patterns])
        for split, patterns in layout.splits.items()
    }
    if not all(members.values()):
        return {"train": whole}
    return _by_membership(whole, members)


def _class_name(row: DomainSet, label: str) -> str:
    """A class whose folder or line has its number only, by its name."""
    if row.classes and label.isdecimal() and int(label) < len(row.classes):
        return row.classes[int(label)]
    return label


def _members(base: Path, places: Sequence[str]) -> frozenset[str]:
    """`class/file` of every line of the first list that exists."""
    for place in places:
        path = base / place
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"cannot read the list '{path}' ({error}).") from error
            names = (line.strip().rpartition(" ")[0] for line in lines if line.strip())
            return frozenset("/".join(name.split("/")[-2:]) for name in names)
    return frozenset()


def _by_membership(whole: Listing, members: Mapping[str, frozenset[str]]) -> dict[str, Listing]:
    """The images that each list names; what none names is left out, as published."""
    index: dict[str, list[int]] = {split: [] for split in members}
    for i, file in enumerate(whole.files):
        name = f"{file.parent.name}/{file.name}"
        for split, names in members.items():
            if name in names:
                index[split].append(i)
                break
    return {split: whole.subset(chosen) for split, chosen in index.items() if chosen}
