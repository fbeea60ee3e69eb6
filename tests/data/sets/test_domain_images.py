"""Sets of domains by name, each in the layouts that people have on disk, with tiny pictures."""

import logging
import tarfile

import pytest
import torch

from helpers.data_files import real_data, write_image
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.domain_images import domain_images
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
        "data.test_fraction=0.2",
        "data.val_fraction=0.3",
    )
    for domain in ("source", "target"):
        assert [len(data.role(f"{domain}_{s}")) for s in ("train", "val", "test")] == [10, 6, 4]


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


@pytest.mark.parametrize("beside", ["", "train_val_splits/"])
def test_published_lists_of_pacs(data_root, beside):
    """Lines `domain/class/file number`; an image that no list names is left out."""
    home = data_root / "PACS"
    make_pacs(home / "kfold", ["photo"])
    lines = [f"photo/{c}/pic_{i:03}.jpg {n + 1}" for n, c in enumerate(CLASSES) for i in range(9)]
    (home / beside).mkdir(exist_ok=True)
    for split, chosen in (("train", lines[3:]), ("crossval", lines[:3]), ("test", lines)):
        (home / beside / f"photo_{split}_kfold.txt").write_text("\n".join(chosen) + "\n")
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


def test_a_folder_given_by_hand(data_root, tmp_path):
    make_pacs(tmp_path / "elsewhere")
    root = str(tmp_path / "elsewhere")
    assert len(build("data=pacs", f"data.root={root}").role("target_test")) == 20
    with pytest.raises(DataError, match="no such folder"):
        build("data=pacs", "data.root=nowhere")


def test_a_part_of_a_set_is_said_once(data_root, caplog):
    make_pacs(data_root / "PACS")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            parts = domain_images(set="pacs", domains=["art_painting"], size=8)
    assert parts.card.notes == ["art_painting: 20 of the published 2,048 images"]
    assert caplog.text.count("20 of the published 2,048 images") <= 1


def test_order_and_numbers_do_not_tell_the_class(data_root):
    make_pacs(data_root / "PACS", ["photo"])
    labels = domain_images(set="pacs", domains=["photo"], size=8, transductive=True).test.labels
    assert not torch.equal(labels, labels.sort().values)


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
