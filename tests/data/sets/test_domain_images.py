"""Sets of domains by name, each in the layouts that people have on disk, with tiny pictures."""

import logging
import shutil
import tarfile

import pytest
import torch

from helpers.data_files import real_data, write_image
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.domain_images import _warn_once, domain_images
from tlrun.data.sets.domain_table import SETS
from tlrun.errors import DataError

CLASSES = ("dog", "guitar")


@pytest.fixture
def data_root(tmp_path, no_data, monkeypatch):
    """An empty TLRUN_DATA."""
    root = tmp_path / "sets"
    root.mkdir()
    monkeypatch.setenv("TLRUN_DATA", str(root))
    return root


def make(place, classes=CLASSES, count=10, seed=0, name="pic_{:03}.jpg"):
    for c, label in enumerate(classes):
        for i in range(count):
            write_image(place / label / name.format(i), seed + 100 * c + i, size=(12, 10))


def make_pacs(home, domains=("art_painting", "cartoon", "photo", "sketch"), **settings):
    for d, domain in enumerate(domains):
        make(home / domain, seed=1000 * d, **settings)


def build(*overrides, **options):
    cfg = compose(["data.size=8", *overrides])
    return build_data(cfg.data, Options(seed=0, **options))


def sizes(data, *domains):
    return {
        f"{d}_{s}": None if (e := data.role(f"{d}_{s}")) is None else len(e)
        for d in domains
        for s in ("train", "val", "test")
    }


# ---- words ------------------------------------------------------------------------------------


def test_a_pair_in_words_is_transductive(data_root):
    make_pacs(data_root / "PACS")
    data = build("data=pacs", "data.source=photo")
    assert data.classes == CLASSES
    assert list(data.domains) == ["source", "target"]
    assert sizes(data, "source", "target") == {
        "source_train": 18,
        "source_val": 2,
        "source_test": None,
        "target_train": 20,
        "target_val": 20,
        "target_test": 20,
    }
    assert data.role("target_train").labels is None
    assert data.role("target_train").paths is None
    assert data.role("target_test").labels.bincount().tolist() == [10, 10]


def test_fractions_of_both_domains(data_root):
    make_pacs(data_root / "PACS")
    data = build(
        "data=pacs",
        "data.source=photo",
        "data.transductive=false",
        "data.source_test_fraction=0.1",
        "data.val_fraction=0.3",
    )
    for domain, counts in (("source", [12, 6, 2]), ("target", [10, 6, 4])):
        assert [len(data.role(f"{domain}_{s}")) for s in ("train", "val", "test")] == counts


def test_a_target_whose_labels_are_used_is_not_tested_on_its_training_images(data_root, caplog):
    make_pacs(data_root / "PACS")
    data = build("data=pacs", "data.source=photo", target_labels=3)
    assert [len(data.role(f"target_{s}")) for s in ("train", "test")] == [6, 4]
    alone = build("data=pacs", "data.source=null", target_labels="all")
    assert list(alone.domains) == ["target"]
    assert [len(alone.role(f"target_{s}")) for s in ("train", "val", "test")] == [14, 2, 4]
    for train in (data.role("target_train"), alone.role("target_train")):
        assert not set(train.paths) & set(alone.role("target_test").paths)
    assert not caplog.text
    build("data=pacs", "data.source=null", "data.transductive=true", target_labels="all")
    assert "the test images are labelled training images" in caplog.text


def test_a_list_is_several_sources_and_their_join(data_root):
    make_pacs(data_root / "PACS")
    data = build("data=pacs", "data.source=[photo,cartoon]")
    assert data.sources == ("photo", "cartoon")
    assert len(data.role("source_train")) == 36
    assert data.role("target_test").name == "sketch"
    assert build("data=pacs").sources == ("art_painting", "cartoon", "photo")


def test_a_joined_target(data_root):
    make_pacs(data_root / "PACS")
    data = build("data=pacs", "data.source=photo", "data.target=all_but_source")
    assert len(data.role("target_test")) == 60
    single = build("data=pacs", "data.source=photo", "data.target=sketch").role("target_test")
    joined = data.role("target_test")
    assert set(single.paths) < set(joined.paths)


def test_without_target_images_the_whole_target_is_the_test(data_root):
    make_pacs(data_root / "PACS")
    data = build("data=pacs", target_images="none")
    assert sizes(data, "target") == {"target_train": None, "target_val": None, "target_test": 20}


def test_label_spaces_are_for_one_source(data_root):
    from tlrun.errors import ConfigError

    make_pacs(data_root / "PACS")
    with pytest.raises(ConfigError, match=r"data.label_spaces is for one source; .* names 3"):
        build("data=pacs", "data.label_spaces=partial")


# ---- PACS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["PACS", "pacs", "PACS/kfold", "PACS/PACS/kfold"])
def test_folders_of_pacs(data_root, layout):
    make_pacs(data_root / layout)
    assert len(domain_images(set="pacs", domains=["photo"], size=8, val_fraction=0.0).train) == 20


@pytest.mark.parametrize(
    ("images", "beside", "names"),
    [
        ("kfold", "", ("train_kfold", "crossval_kfold")),
        ("kfold", "train_val_splits/", ("train_kfold", "crossval_kfold")),
        ("images", "splits/", ("train_kfold", "crossval_kfold")),
        (".", "image_list/", ("train", "val")),
    ],
    ids=["authors", "authors' folder", "Dassl", "TLLib"],
)
def test_published_lists_of_pacs(data_root, images, beside, names):
    """Lines `domain/class/file number`; an image that no list names is left out."""
    home = data_root / "PACS"
    make_pacs(home / images, ["photo"])
    lines = [f"photo/{c}/pic_{i:03}.jpg {n + 1}" for n, c in enumerate(CLASSES) for i in range(9)]
    (home / beside).mkdir(exist_ok=True)
    for name, chosen in zip((*names, "test_kfold"), (lines[3:], lines[:3], lines), strict=True):
        (home / beside / f"photo_{name}.txt").write_text("\n".join(chosen) + "\n")
    parts = domain_images(set="pacs", domains=["photo"], size=8)
    assert [len(parts.train), len(parts.val), parts.test] == [15, 3, None]
    assert all("dog/pic_00" in path for path in parts.val.paths)
    whole = domain_images(set="pacs", domains=["photo"], size=8, transductive=True)
    assert len(whole.test) == 18


def test_an_archive_is_unpacked_into_the_cache_once(data_root, no_data, tmp_path):
    make_pacs(tmp_path / "made" / "PACS")
    (data_root / "PACS").mkdir()
    with tarfile.open(data_root / "PACS" / "some.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "PACS", "PACS")
        evil = tarfile.TarInfo("../../evil.jpg")
        archive.addfile(evil)
    for _ in range(2):
        parts = domain_images(set="pacs", domains=["sketch"], size=8, transductive=True)
        assert len(parts.test) == 20
    assert len([p for p in (no_data / "unpacked").iterdir() if p.is_dir()]) == 1
    assert not [*tmp_path.rglob("evil.jpg")]


def test_an_archive_of_another_domain_stays_packed(data_root, no_data, tmp_path):
    """DomainNet comes as a zip of gigabytes a domain, with the lists beside them."""
    home = data_root / "domainnet"
    home.mkdir()
    for domain in ("clipart", "sketch"):
        make(tmp_path / "made" / domain, count=4, name="{}.jpg")
        shutil.make_archive(str(home / domain), "zip", tmp_path / "made", domain)
    (home / "sketch_train.txt").write_text("sketch/dog/0.jpg 0\nsketch/guitar/0.jpg 1\n")
    (home / "sketch_test.txt").write_text("sketch/dog/1.jpg 0\n")
    parts = domain_images(set="domainnet", domains=["sketch"], size=8)
    assert [len(parts.train), len(parts.test)] == [2, 1]
    assert [p.name[:6] for p in (no_data / "unpacked").iterdir() if p.is_dir()] == ["sketch"]


def test_lists_that_are_lacking_are_missed_aloud(data_root, caplog):
    make(data_root / "domainnet" / "clipart")
    domain_images(set="domainnet", domains=["clipart"], size=8)
    assert "the published lists (clipart_train.txt ...) are not in" in caplog.text


def test_a_folder_given_by_hand(data_root, tmp_path):
    make_pacs(tmp_path / "elsewhere")
    root = str(tmp_path / "elsewhere")
    assert len(build("data=pacs", f"data.root={root}").role("target_test")) == 20
    with pytest.raises(DataError, match="no such folder"):
        build("data=pacs", "data.root=nowhere")


def test_a_part_of_a_set_is_said_once(data_root, caplog):
    make_pacs(data_root / "PACS")
    _warn_once.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            parts = domain_images(set="pacs", domains=["art_painting"], size=8)
    assert parts.card.notes == ["art_painting: 20 of the published 2,048 images"]
    assert caplog.text.count("20 of the published 2,048 images") == 1


def test_order_and_numbers_do_not_tell_the_class(data_root):
    make_pacs(data_root / "PACS", ["photo"])
    labels = domain_images(set="pacs", domains=["photo"], size=8, transductive=True).test.labels
    assert not torch.equal(labels, labels.sort().values)


# ---- the others -------------------------------------------------------------------------------

HOMES = [  # set, domain, the folder of its classes
    ("office31", "amazon", "office31/amazon/images"),
    ("office31", "webcam", "office31/webcam"),
    ("office31", "dslr", "office31/domain_adaptation_images/dslr/images"),
    ("office31", "dslr", "Office-31/images/dslr"),
    ("office31", "dslr", "office/Original_images/dslr/images"),
    ("office31", "amazon", "Office31/Amazon"),
    ("office_home", "real_world", "OfficeHomeDataset_10072016/Real World"),
    ("office_home", "real_world", "office-home/Real_World"),
    ("office_home", "art", "office_home/Art"),
    ("office_home", "art", "office_home/art"),
    ("office_home", "product", "office-home/images/Product"),
    ("office_home", "real_world", "OfficeHome/RealWorld"),
    ("office_home", "real_world", "officehome/real"),
    ("office_home", "real_world", "office_home/real_world"),
    ("office_home", "clipart", "OfficeHome/OfficeHomeDataset_10072016/Clipart"),
    ("visda2017", "synthetic", "visda-2017/train"),
    ("visda2017", "real", "visda17/validation"),
    ("visda2017", "real", "VISDA-C/validation"),
    ("domainnet", "clipart", "domain_net/clipart"),
    ("domainnet", "sketch", "domainnet/images/sketch"),
    ("domainnet", "real", "DomainNet/Real"),
    ("domainnet", "infograph", "domainnet_v1.0/infograph"),
    ("pacs", "art_painting", "pacs/images/art_painting"),
    ("pacs", "cartoon", "pacs_data/raw_images/cartoon"),
    ("vlcs", "voc2007", "VLCS/VOC2007"),
    ("vlcs", "caltech101", "VLCS/Caltech101"),
    ("vlcs", "labelme", "VLCS/LabelMe"),
    ("vlcs", "sun09", "VLCS/SUN/full"),
    ("image_clef", "imagenet", "Image-CLEF/I"),
    ("image_clef", "pascal", "imageCLEF/images/p"),
    ("office_caltech", "caltech", "office_caltech/caltech"),
    ("office_caltech", "dslr", "office-caltech/dslr/images"),
    ("office_caltech", "caltech", "Office_Caltech_DA_Dataset/Caltech"),
    ("office_caltech", "webcam", "office_caltech_10/webcam"),
    ("office_caltech", "amazon", "OfficeCaltech10/images/amazon"),
    ("terra_incognita", "location_46", "terra_incognita/location_46"),
    ("terra_incognita", "location_46", "terra_incognita/L46"),
    ("terra_incognita", "location_100", "TerraIncognita/location_100"),
]


@pytest.mark.parametrize(("name", "domain", "home"), HOMES)
def test_a_folder_per_class(name, domain, home, data_root):
    make(data_root / home, ["mug", "pen"], 5)
    parts = domain_images(set=name, domains=[domain], size=8, transductive=True)
    assert len(parts.test) == 10
    assert parts.test.classes == ("mug", "pen")
    assert parts.card.citation == SETS[name].citation


def test_own_folders_for_training_and_validation_of_office_home(data_root):
    """Dassl's office_home_dg: no class is called train."""
    home = data_root / "office_home_dg" / "art"
    make(home / "train", ["Bed", "Mug"], 4)
    make(home / "val", ["Bed", "Mug"], 2, seed=500)
    parts = domain_images(set="office_home", domains=["art"], size=8)
    assert parts.train.classes == ("Bed", "Mug")
    assert [len(parts.train), len(parts.val), parts.test] == [8, 4, None]
    whole = domain_images(set="office_home", domains=["art"], size=8, transductive=True)
    assert len(whole.test) == 12


@pytest.mark.parametrize(
    ("place", "folder"),
    [(place, "clipart") for place in ("", "image_list/", "splits/", "txt/")]
    + [("splits/", "Clipart")],
)
def test_published_lists_of_domainnet(place, folder, data_root):
    """TLLib's, Dassl's and the authors' own places; `domain/class/file number`."""
    home = data_root / "domainnet"
    make(home / folder, count=10, name="clipart_001_{:06}.jpg")
    lines = [
        f"clipart/{c}/clipart_001_{i:06}.jpg {n}" for n, c in enumerate(CLASSES) for i in range(10)
    ]
    (home / place).mkdir(exist_ok=True)
    (home / place / "clipart_train.txt").write_text("\n".join(lines[:7] + lines[10:17]))
    (home / place / "clipart_test.txt").write_text("\n".join(lines[7:10] + lines[17:19]))
    parts = domain_images(set="domainnet", domains=["clipart"], size=8, val_fraction=0)
    assert [len(parts.train), len(parts.test)] == [14, 5]
    target = domain_images(set="domainnet", domains=["clipart"], size=8, transductive=True)
    assert len(target.test) == 19


def test_lists_of_visda(data_root):
    """The authors' own: paths beside each list, the test in trunks without classes."""
    home = data_root / "visda-2017"
    rows = {"train": [("bus/{}.png", 2), ("car/{}.png", 3)]}
    rows["test"] = [("trunk00/{}.jpg", 2), ("trunk01/{}.jpg", 3)]
    for d, (domain, kinds) in enumerate(rows.items()):
        lines = [(p.format(i), n) for p, n in kinds for i in range(4)]
        for i, (path, _) in enumerate(lines):
            write_image(home / domain / path, 100 * d + i)
        text = "\n".join(f"{path} {number}" for path, number in lines)
        (home / domain / "image_list.txt").write_text(text)
    data = build("data=visda2017", "data.target=real_test")
    assert data.classes == ("bus", "car")
    assert data.role("target_test").class_counts() == {"bus": 4, "car": 4}
    for path, label in zip(
        data.role("target_test").paths, data.role("target_test").labels.tolist(), strict=True
    ):
        assert f"trunk0{label}" in path


def test_tllib_lists_of_visda(data_root):
    home = data_root / "visda-2017"
    make(home / "validation", ["bus", "car"], 4)
    lines = [
        f"validation/{c}/pic_{i:03}.jpg {n}" for c, n in (("bus", 2), ("car", 3)) for i in (0, 1)
    ]
    (home / "image_list").mkdir()
    (home / "image_list" / "validation.txt").write_text("\n".join(lines))
    parts = domain_images(set="visda2017", domains=["real"], size=8, transductive=True)
    assert parts.test.class_counts() == {"bus": 2, "car": 2}


@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("", "list/cList.txt"),
        ("/somebody/image_CLEF/", "list/cList.txt"),
        ("", "cList.txt"),
        ("/data/image-clef/", "c_list.txt"),
        ("", "list/c_list.txt"),
        ("", "list/c.txt"),
    ],
)
def test_lists_of_image_clef(prefix, place, data_root):
    """The numbers of a list are the only labels: folders, if any, are those of Caltech-256."""
    home = data_root / "image_CLEF"
    lines = []
    for i in range(8):
        name = f"c/{'251.airplanes-101/' if i % 2 == 0 else ''}{i}.jpg"
        write_image(home / name, i)
        lines.append(f"{prefix}{name} {i % 2 * 11}")
    (home / "list").mkdir()
    (home / place).write_text("\n".join(lines))
    parts = domain_images(set="image_clef", domains=["caltech"], size=8, transductive=True)
    assert parts.test.class_counts() == {"aeroplane": 4, "people": 4}


def test_a_list_whose_images_are_elsewhere(data_root):
    (data_root / "image_clef" / "list").mkdir(parents=True)
    (data_root / "image_clef" / "list" / "cList.txt").write_text("c/1.jpg 0\n")
    with pytest.raises(DataError, match=r"not one image that .*cList\.txt' names"):
        domain_images(set="image_clef", domains=["caltech"], size=8)


def test_folders_of_vlcs_with_numbers_for_classes(data_root):
    """The copies of JiGen and Dassl; the images of crossval/ may be in train/ too."""
    home = data_root / "VLCS" / "PASCAL"
    make(home / "train", ["0", "4"], 6)
    make(home / "crossval", ["0", "4"], 2)  # copies of the first ones
    make(home / "test", ["0", "4"], 3, seed=500)
    parts = domain_images(set="vlcs", domains=["voc2007"], size=8)
    assert parts.train.classes == ("bird", "person")
    assert [len(s) for s in (parts.train, parts.val, parts.test)] == [8, 4, 6]
    whole = domain_images(set="vlcs", domains=["voc2007"], size=8, transductive=True)
    assert len(whole.test) == 18


def test_the_published_counts():
    """As the papers and their benchmarks state them."""
    totals = {name: sum(row.counts.values()) for name, row in SETS.items()}
    assert totals == {
        "office31": 4110,
        "office_home": 15588,
        "visda2017": 280157,
        "domainnet": 586575,
        "pacs": 9991,
        "vlcs": 10729,
        "image_clef": 2400,
        "office_caltech": 2533,
        "terra_incognita": 24788,
    }
    numbers = {name: len(row.classes) for name, row in SETS.items() if row.classes}
    assert numbers == {
        "office31": 31,
        "visda2017": 12,
        "pacs": 7,
        "vlcs": 5,
        "image_clef": 12,
        "office_caltech": 10,
        "terra_incognita": 10,
    }


def test_what_readers_of_its_figures_should_know_is_on_the_card(data_root):
    make(data_root / "terra_incognita" / "location_38", ["bird", "cat"], 3)
    notes = domain_images(set="terra_incognita", domains=["location_38"], size=8).card.notes
    assert notes == [SETS["terra_incognita"].note, "location_38: 6 of the published 9,767 images"]


@pytest.mark.parametrize("name", SETS)
def test_the_config_names_the_domains_of_the_table(name):
    cfg = compose([f"data={name}"])
    assert tuple(cfg.data.domains) == SETS[name].domains
    assert cfg.data.set == name


# ---- one's own --------------------------------------------------------------------------------


def test_own_folders_of_domains(tmp_path, no_data):
    for d, domain in enumerate(("a day", "b", "c")):
        make(tmp_path / "own" / domain, seed=100 * d)
    own = ("data=domains", f"data.root={tmp_path / 'own'}")
    data = build(*own, "data.source=b", "data.target=a day")
    assert sizes(data, "source", "target") == {
        f"{d}_{s}": n
        for d in ("source", "target")
        for s, n in (("train", 14), ("val", 2), ("test", 4))
    }
    several = build(*own, "data.target=c")
    assert several.sources == ("a_day", "b")


def test_own_splits_of_a_domain(tmp_path, no_data):
    for s, split in enumerate(("train", "test")):
        make(tmp_path / "own" / "a" / split, count=6, seed=50 * s)
    make(tmp_path / "own" / "b", seed=100)
    root = f"data.root={tmp_path / 'own'}"
    data = build("data=domains", root, "data.source=b", "data.target=a", "data.val_fraction=0")
    assert [len(data.role(f"target_{s}")) for s in ("train", "test")] == [11, 12]


# ---- absent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_the_message_when_absent(name, data_root):
    row = SETS[name]
    with pytest.raises(DataError) as raised:
        domain_images(set=name, domains=[row.domains[0]], size=8)
    message = str(raised.value)
    assert message.startswith(f"{row.title} is not on this machine: looked for {row.folders[0]}/")
    for part in (str(data_root), row.url, "set TLRUN_DATA to it", "tlrun data=digits_digitsm"):
        assert part in message
    assert "<domain>" in message
    assert all(row.spellings(domain)[0] in message for domain in row.domains)


def test_a_missing_domain(data_root):
    make_pacs(data_root / "PACS", ["photo"])
    with pytest.raises(
        DataError, match=r"PACS: no domain 'sketch' in '.*/PACS'; looked for sketch"
    ):
        domain_images(set="pacs", domains=["sketch"], size=8)


# ---- the real ones ----------------------------------------------------------------------------


@real_data
def test_the_real_pacs():
    """4,115 of 9,991 photographs, in a tar."""
    count = 0
    for domain in SETS["pacs"].domains:
        parts = domain_images(set="pacs", domains=[domain], size=8, transductive=True)
        assert parts.test.classes == SETS["pacs"].classes
        assert len(parts.test) <= SETS["pacs"].counts[domain]
        count += len(parts.test)
    assert sum(SETS["pacs"].counts.values()) == 9991
    assert count in (4115, 9991)
