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

    images: where the images of a domain lie, a folder per class. Or `folders`: split -> such a
    place. Or `listed`: split -> a file of `path number` lines, paths relative to `base`, for images
    that have no folder per class.
    splits: split -> files that name those images of `images` which belong to it (the first file
    that exists); without them the set has no splits of its own here.
    """

    images: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, str] = field(default_factory=dict)
    base: str = "."
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def places(self) -> list[str]:
        """What must be there."""
        return [self.images] if self.images else [*self.folders.values(), *self.listed.values()]


@dataclass(frozen=True)
class DomainSet:
    """A row of the table.

    counts: domain -> published number of images, in the order in which the domains are named.
    classes: in the order of their numbers, where lists or folders have numbers only. folders,
    archives: relative to a data root. spelled: domain -> its names on disk, as published first.
    tested: figures are published for the images of its test lists, not for all of a target. note:
    what a reader of its figures should know, for the card.
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
    tested: bool = False
    note: str = ""

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.counts)

    def spellings(self, domain: str) -> tuple[str, ...]:
        """As the domain may be called on disk, as published first."""
        return tuple(dict.fromkeys((*self.spelled.get(domain, ()), domain)))


PLAIN = Layout("{domain}")  # <domain>/<class>/*
PACKED = ("*.tar", "*.tar.gz", "*.tgz", "*.zip")


def _archives(*folders: str, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Archives in a folder of the set, and those of these names in the data root itself."""
    inside = [f"{folder}/{kind}" for folder in folders for kind in PACKED]
    return (*inside, *(f"{name}.{kind[2:]}" for name in names for kind in PACKED))


def _lists(places: tuple[str, ...], **names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """split -> where its list may lie: `{domain}_<name>.txt` in one of the places."""
    return {
        split: tuple(f"{place}{{domain}}_{name}.txt" for place in places for name in endings)
        for split, endings in names.items()
    }


BESIDE = ("", "splits/", "train_val_splits/", "image_list/", "kfold/")
PACS_LISTS = _lists(BESIDE, train=("train_kfold", "train"), val=("crossval_kfold", "val"))
DOMAINNET_LISTS = _lists((*BESIDE, "txt/"), train=("train",), test=("test",))

SETS = {
    "office31": DomainSet(
        title="Office-31",
        citation="Saenko, Kulis, Fritz, Darrell, Adapting visual category models to new domains, "
        "ECCV 2010",
        licence="none stated; research use",
        url="https://faculty.cc.gatech.edu/~judy/domainadapt/",
        counts={"amazon": 2817, "dslr": 498, "webcam": 795},
        note="4,110 images as released, which papers use; the authors' paper counts 4,652",
        classes=tuple(
            "back_pack bike bike_helmet bookcase bottle calculator desk_chair desk_lamp "
            "desktop_computer file_cabinet headphones keyboard laptop_computer letter_tray "
            "mobile_phone monitor mouse mug paper_notebook pen phone printer projector punchers "
            "ring_binder ruler scissors speaker stapler tape_dispenser trash_can".split()
        ),
        folders=("office31", "office-31", "Office31", "Office-31", "office"),
        layouts=(
            Layout("{domain}/images"),
            PLAIN,
            Layout("domain_adaptation_images/{domain}/images"),
            Layout("Original_images/{domain}/images"),
            Layout("images/{domain}"),
        ),
        archives=_archives(
            "office31", "office-31", names=("office31", "domain_adaptation_images", "office")
        ),
        spelled={name: (name, name.capitalize()) for name in ("amazon", "dslr", "webcam")},
    ),
    "office_home": DomainSet(
        title="Office-Home",
        citation="Venkateswara, Eusebio, Chakraborty, Panchanathan, Deep hashing network for "
        "unsupervised domain adaptation, CVPR 2017",
        licence="fair use notice: non-commercial research and education",
        url="https://www.hemanthdv.org/officeHomeDataset.html",
        counts={"art": 2427, "clipart": 4365, "product": 4439, "real_world": 4357},
        folders=(
            "office_home",
            "office-home",
            "OfficeHome",
            "Office-Home",
            "OfficeHomeDataset_10072016",
            "office_home_dg",
            "officehome",
        ),
        layouts=(
            Layout(folders={"train": "{domain}/train", "val": "{domain}/val"}),
            PLAIN,
            Layout("images/{domain}"),
            Layout("OfficeHomeDataset_10072016/{domain}"),
        ),
        archives=_archives(
            "office_home",
            "office-home",
            "OfficeHome",
            names=("office_home", "OfficeHomeDataset_10072016", "OfficeHome", "office_home_dg"),
        ),
        spelled={
            "art": ("Art",),
            "clipart": ("Clipart",),
            "product": ("Product",),
            "real_world": ("Real World", "Real_World", "RealWorld", "Real", "real"),
        },
    ),
    "visda2017": DomainSet(
        title="VisDA-2017",
        citation="Peng, Usman, Kaushik, Hoffman, Wang, Saenko, VisDA: The visual domain adaptation "
        "challenge, 2017",
        licence="none stated; research use",
        url="https://ai.bu.edu/visda-2017/",
        counts={"synthetic": 152397, "real": 55388, "real_test": 72372},
        classes=tuple(
            "aeroplane bicycle bus car horse knife motorcycle person plant skateboard train "
            "truck".split()
        ),
        folders=(
            "visda2017",
            "visda-2017",
            "visda17",
            "VisDA2017",
            "VisDA-2017",
            "VisDA",
            "visda",
            "VISDA-C",
            "visda-2017/classification",
        ),
        layouts=(
            Layout(listed={"train": "{domain}/image_list.txt"}, base="{domain}"),
            Layout(listed={"train": "image_list/{domain}.txt"}),
            PLAIN,
        ),
        archives=_archives("visda2017", "visda-2017", "visda17", "VisDA2017", "VisDA"),
        spelled={"synthetic": ("train",), "real": ("validation",), "real_test": ("test",)},
    ),
    "domainnet": DomainSet(
        title="DomainNet",
        citation="Peng, Bai, Xia, Huang, Saenko, Wang, Moment matching for multi-source domain "
        "adaptation, ICCV 2019",
        licence="fair use notice: non-commercial research and education",
        url="https://ai.bu.edu/M3SDA/",
        counts={
            "clipart": 48129,
            "infograph": 51605,
            "painting": 72266,
            "quickdraw": 172500,
            "real": 172947,
            "sketch": 69128,
        },
        folders=("domainnet", "DomainNet", "domain_net", "DomainNet/domainnet", "domainnet_v1.0"),
        layouts=(
            Layout("{domain}", splits=DOMAINNET_LISTS),
            Layout("images/{domain}", splits=DOMAINNET_LISTS),
        ),
        archives=_archives("domainnet", "DomainNet", "domain_net"),
        tested=True,
        spelled={
            name: (name, name.capitalize())
            for name in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
        },
    ),
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
            Layout(images, splits=PACS_LISTS)
            for images in ("{domain}", "kfold/{domain}", "images/{domain}", "raw_images/{domain}")
        ),
        archives=_archives("PACS", "pacs", names=("PACS", "pacs")),
        spelled={"art_painting": ("art_painting", "art")},
    ),
    "vlcs": DomainSet(
        title="VLCS",
        citation="Fang, Xu, Rockmore, Unbiased metric learning, ICCV 2013",
        licence="that of its parts (PASCAL VOC 2007, LabelMe, Caltech-101, SUN09); research use",
        url="https://github.com/belaalb/G2DM#download-vlcs",
        counts={"caltech101": 1415, "labelme": 2656, "sun09": 3282, "voc2007": 3376},
        classes=("bird", "car", "chair", "dog", "person"),
        folders=("VLCS", "vlcs", "VLCS/VLCS"),
        layouts=(
            Layout(
                folders={
                    "train": "{domain}/train",
                    "val": "{domain}/crossval",
                    "test": "{domain}/test",
                }
            ),
            Layout("{domain}/full"),
            PLAIN,
        ),
        archives=_archives("VLCS", "vlcs", names=("VLCS", "vlcs")),
        spelled={
            "caltech101": ("Caltech101", "CALTECH", "caltech"),
            "labelme": ("LabelMe", "LABELME"),
            "sun09": ("SUN09", "SUN", "sun"),
            "voc2007": ("VOC2007", "PASCAL", "pascal"),
        },
    ),
    "image_clef": DomainSet(
        title="ImageCLEF-DA",
        citation="ImageCLEF 2014 domain adaptation challenge; Long, Zhu, Wang, Jordan, Deep "
        "transfer learning with joint adaptation networks, ICML 2017",
        licence="none stated; research use",
        url="https://www.imageclef.org/2014/adaptation",
        counts={"bing": 600, "caltech": 600, "imagenet": 600, "pascal": 600},
        classes=tuple(
            "aeroplane bike bird boat bottle bus car dog horse monitor motorbike people".split()
        ),
        folders=(
            "image_clef",
            "image-clef",
            "image_CLEF",
            "imageCLEF",
            "ImageCLEF",
            "Image-CLEF",
            "ImageCLEF-DA",
            "image-clef/ImageCLEF",
        ),
        layouts=(
            Layout(listed={"train": "list/{domain}List.txt"}),
            Layout(listed={"train": "{domain}List.txt"}),
            Layout(listed={"train": "{domain}_list.txt"}),
            Layout(listed={"train": "list/{domain}_list.txt"}),
            Layout(listed={"train": "list/{domain}.txt"}),
            PLAIN,
            Layout("images/{domain}"),
        ),
        archives=_archives("image_clef", "image-clef", "imageCLEF", "ImageCLEF"),
        spelled={
            name: (name[0], name[0].upper()) for name in ("bing", "caltech", "imagenet", "pascal")
        },
    ),
    "office_caltech": DomainSet(
        title="Office-Caltech-10",
        citation="Gong, Shi, Sha, Grauman, Geodesic flow kernel for unsupervised domain "
        "adaptation, CVPR 2012",
        licence="none stated; research use",
        url="https://faculty.cc.gatech.edu/~judy/domainadapt/",
        counts={"amazon": 958, "caltech": 1123, "dslr": 157, "webcam": 295},
        classes=tuple(
            "back_pack bike calculator headphones keyboard laptop_computer monitor mouse mug "
            "projector".split()
        ),
        folders=(
            "office_caltech",
            "office-caltech",
            "office_caltech_10",
            "OfficeCaltech10",
            "OfficeCaltech",
            "Office_Caltech_DA_Dataset",
        ),
        layouts=(PLAIN, Layout("{domain}/images"), Layout("images/{domain}")),
        archives=_archives(
            "office_caltech",
            "office-caltech",
            "office_caltech_10",
            names=("officecaltech", "office_caltech_10", "office_caltech"),
        ),
        spelled={
            "amazon": ("amazon", "Amazon"),
            "caltech": ("caltech", "Caltech", "caltech10", "Caltech10"),
            "dslr": ("dslr", "DSLR", "Dslr"),
            "webcam": ("webcam", "Webcam"),
        },
    ),
    "terra_incognita": DomainSet(
        title="Terra Incognita",
        citation="Beery, Van Horn, Perona, Recognition in terra incognita, ECCV 2018; ten classes "
        "of Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021",
        licence="CDLA-Permissive 1.0 (Caltech Camera Traps)",
        url="https://lila.science/datasets/caltech-camera-traps",
        counts={
            "location_38": 9767,
            "location_43": 4020,
            "location_46": 6122,
            "location_100": 4879,
        },
        note="24,788 images in papers; of today's annotations DomainBed's script makes 24,330",
        classes=tuple("bird bobcat cat coyote dog empty opossum rabbit raccoon squirrel".split()),
        folders=("terra_incognita", "TerraIncognita", "terra", "terrainc"),
        layouts=(PLAIN,),
        archives=_archives("terra_incognita", names=("terra_incognita",)),
        spelled={f"location_{n}": (f"location_{n}", f"L{n}", n) for n in ("38", "43", "46", "100")},
    ),
}


def domain_set(name: str) -> DomainSet:
    """A row of the table by its name. Raises ConfigError."""
    if name not in SETS:
        raise ConfigError(f"data.set={name}: {did_you_mean(name, SETS)}")
    return SETS[name]


def has_test(name: str | None) -> bool:
    """Whether figures are published for the test lists of a set (`DomainSet.tested`)."""
    return name is not None and domain_set(name).tested
