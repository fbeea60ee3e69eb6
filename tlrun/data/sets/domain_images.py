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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tlrun.config.ranges import BelowOne, Interpolation, NotNegative, Number, Pixels
from tlrun.data.examples.download import data_roots, missing
from tlrun.data.examples.image_files import LeftOut, text_of
from tlrun.data.examples.splits import Card, Splits, class_order
from tlrun.data.examples.unpack import unpacked
from tlrun.data.sets.domain_table import PACKED, DomainSet, Layout, domain_set
from tlrun.data.sets.folder import Reader, add_note, fingerprinted, folder_listings, own_images
from tlrun.data.sets.listing import Listing, open_folder, scan, without_copies
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
    interpolation: Interpolation = "auto",
    grey_values: list[Number] | None = None,
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.0,
    transductive: bool = False,
    stratify: bool = False,
    skip_unreadable: bool = False,
    memory_gb: NotNegative = 2.0,
) -> Splits:
    """See the module. set: a row of `domain_table.SETS`; None: `root` holds a folder per domain.

    domains: joined if several. The rest: as of `folder`. Raises ConfigError, or DataError with the
    one message that says which files to put where.
    """
    reader = Reader(KEY, size, channels, fit, grey_values, memory_gb, interpolation, True)
    name = "+".join(domains)
    left_out = LeftOut(skip_unreadable, key=KEY)
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
        card.notes += [row.note] if row.note else []
        for domain in domains:
            place = find_domain(row, domain, root)
            card.root = card.root or text_of(place.base)
            published = read_domain(row, place, left_out)
            card.notes += _incomplete(set, row, domain, published)
            listings = _joined(listings, published)
    note = f"left out: {left_out}" if left_out.reasons else ""
    add_note(card, KEY, note, quietly=left_out.only_hidden or set is not None)
    if transductive:
        listings = {"train": _all(listings)}
    listings = fingerprinted(listings, KEY, skip_unreadable)
    if set is None:
        listings = own_images(listings, KEY, card, transductive)
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
        stratify=stratify,
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


def _incomplete(name: str, row: DomainSet, domain: str, found: Mapping[str, Listing]) -> list[str]:
    """What the card says of a domain that is not as published; the log has it once per process."""
    count, published = sum(len(part.files) for part in found.values()), row.counts[domain]
    if count == published:
        return []
    note = f"{domain}: {count:,} of the published {published:,} images"
    if count > published:
        note = f"{domain}: {count:,} images, where {published:,} are published"
    _warn_once(f"{name}: {note}; figures are not those of the whole set")
    return [note]


@cache
def _warn_once(sentence: str) -> None:
    log.warning(sentence)


# ---- where a set lies -------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a domain was found. base: what the patterns of the layout are relative to. beside: the
    folder of the archive that it was unpacked from, where lists may lie. spelled: its name there.
    spellings: all its names: lists may use another one than folders.
    """

    layout: Layout
    base: Path
    beside: Path
    spelled: str
    spellings: tuple[str, ...]

    def at(self, pattern: str) -> Path:
        return self.base / pattern.format(domain=self.spelled)

    def lists(self, patterns: Sequence[str]) -> Iterator[Path]:
        """Where a list may lie, in the order of the search."""
        for folder in dict.fromkeys((self.base, self.beside)):
            for pattern in patterns:
                for name in dict.fromkeys((self.spelled, *self.spellings)):
                    yield folder / pattern.format(domain=name)


def find_domain(row: DomainSet, domain: str, root: str | None = None) -> Place:
    """Where a domain lies: folders before archives, which are unpacked into the cache.

    root: `data.root`, in place of the data roots. Raises DataError.
    """
    tried: list[Path] = []
    for base, beside in _bases(row, domain, root):
        tried.append(base)
        for layout in row.layouts:
            for spelled in row.spellings(domain):
                place = Place(layout, base, beside, spelled, row.spellings(domain))
                if all(place.at(pattern).exists() for pattern in layout.places):
                    return place
    raise _absent(row, domain, tried)


def _bases(row: DomainSet, domain: str, root: str | None) -> Iterator[tuple[Path, Path]]:
    """(a folder that may hold the set, the folder beside it), in the order of the search."""
    given = [open_folder(root, f"{KEY}.root")] if root else []
    homes = [*given, *(home / folder for home in given or data_roots() for folder in row.folders)]
    for home in homes:
        if home.is_dir():
            yield home, home
    for archive in _archives(row, domain, given):
        inside = unpacked(archive)
        within = [inside / folder for folder in row.folders if (inside / folder).is_dir()]
        for base in (inside, *within, *sorted(p for p in inside.iterdir() if p.is_dir())):
            yield base, archive.parent


def _archives(row: DomainSet, domain: str, given: Sequence[Path]) -> list[Path]:
    """Archives that may hold the domain: none that is called by another one."""
    found = [path for home in given for kind in PACKED for path in sorted(home.glob(kind))]
    for home in [] if given else data_roots():
        found += [path for pattern in row.archives for path in sorted(home.glob(pattern))]
    own = {name.lower() for name in row.spellings(domain)}
    named = {name.lower() for other in row.domains for name in row.spellings(other)}
    stems = {path: path.name.partition(".")[0].lower() for path in found if path.is_file()}
    return [path for path, stem in stems.items() if stem in own or stem not in named]


def _absent(row: DomainSet, domain: str, tried: Sequence[Path]) -> DataError:
    """The one message for a set, or a domain of it, that is not here."""
    patterns = dict.fromkeys(place for layout in row.layouts for place in layout.places)
    if tried:
        layouts = [place.format(domain=row.spellings(domain)[0]) for place in patterns]
        searched = " or ".join(f"'{place}'" for place in tried[:3])
        return DataError(
            f"{row.title}: no domain '{domain}' in {searched}; looked for "
            f"{' or '.join(layouts)} there. Put its images there (from {row.url}), or choose "
            "another domain."
        )
    layouts = [place.format(domain="<domain>") for place in patterns]
    every = ", ".join(row.spellings(name)[0] for name in row.domains)
    home, first = row.folders[0], row.layouts[0]
    what = " and the images that it names" if first.listed else "/<class>/*"
    return missing(
        row.title,
        [*(f"{home}/{place}" for place in layouts), f"an archive of it in {home}/"],
        needs=[
            f"the images of {row.title} ({row.url}) as {home}/{layouts[0]}{what}, <domain> being "
            f"each of {every},"
        ],
    )


# ---- what lies there --------------------------------------------------------------------------


def read_domain(row: DomainSet, place: Place, left_out: LeftOut) -> dict[str, Listing]:
    """Split -> images of one domain, "train" always. Raises DataError."""
    layout = place.layout
    if layout.listed:
        around = place.at(layout.base)
        return {
            split: _listed(row, place.at(path), around) for split, path in layout.listed.items()
        }
    if layout.folders:
        splits = {
            split: _by_class(row, place.at(folder), left_out).with_prints()
            for split, folder in layout.folders.items()
        }
        return without_copies(splits, row.title, once=())[0]  # some copies hold val in train too
    whole = _by_class(row, place.at(layout.images), left_out)
    members = {split: _members(place, patterns) for split, patterns in layout.splits.items()}
    if members and all(members.values()):
        return _by_membership(whole, members)
    if row.tested:
        _warn_once(
            f"{row.title}: the published lists ({place.at(layout.splits['train'][0]).name} ...) "
            f"are not in '{place.base}': seeded fractions are cut instead"
        )
    return {"train": whole}


def _by_class(row: DomainSet, place: Path, left_out: LeftOut) -> Listing:
    """The images of a folder per class."""
    found = scan(place, left_out)
    if found.labels is None:
        raise DataError(f"{row.title}: '{place}' should hold a folder per class.")
    return Listing(found.files, [_class_name(row, label) for label in found.labels])


def _listed(row: DomainSet, path: Path, base: Path) -> Listing:
    """The images that a list of `path number` lines names, as far as they are here.

    A path may begin with folders of another machine: then its last parts are looked for.
    """
    files, labels = [], []
    for line in _lines(path):
        name, _, label = line.rpartition(" ")
        parts = name.replace("\\", "/").split("/")
        tails = (base.joinpath(*parts[i:]) for i in range(len(parts)) if parts[i])
        if (file := next((f for f in tails if f.is_file()), None)) is not None:
            files.append(file)
            labels.append(_class_name(row, label))
    if not files:
        raise DataError(
            f"{row.title}: not one image that '{path}' names is in '{base}': put them there."
        )
    return Listing(files, labels)


def _class_name(row: DomainSet, label: str) -> str:
    """A class whose folder or line has its number only, by its name."""
    if row.classes and label.isdecimal() and int(label) < len(row.classes):
        return row.classes[int(label)]
    return label


def _members(place: Place, patterns: Sequence[str]) -> frozenset[str]:
    """`class/file` of every line of the first list that exists."""
    path = next((path for path in place.lists(patterns) if path.is_file()), None)
    names = (line.rpartition(" ")[0] for line in _lines(path)) if path else ()
    return frozenset("/".join(name.split("/")[-2:]) for name in names)


def _lines(path: Path) -> list[str]:
    """The lines of a list that are not empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list '{path}' ({error}).") from error
    return [line.strip() for line in lines if line.strip()]


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
