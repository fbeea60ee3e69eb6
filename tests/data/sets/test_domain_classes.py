"""Episodes whose base, validation and novel classes are those of different domains."""

import pytest

from helpers.data_files import write_image
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.domain_classes import domain_classes
from tlrun.errors import ConfigError

SMALL = ("data.size=8", "data.train={way: 2, shot: 1, query: 2, episodes: 1}", "data.query=2")


@pytest.fixture
def pacs(tmp_path, no_data, monkeypatch):
    """Twenty tiny pictures of two classes in each of its domains."""
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path))
    for d, domain in enumerate(("art_painting", "cartoon", "photo", "sketch")):
        for c, label in enumerate(("dog", "guitar")):
            for i in range(10):
                place = tmp_path / "PACS" / domain / label / f"pic_{i:03}.jpg"
                write_image(place, 1000 * d + 100 * c + i, size=(12, 10))


def test_classes_are_new_by_their_domain(pacs):
    cfg = compose(["data=pacs_episodes", *SMALL, "data.tests=[[2,1]]"])
    data = build_data(cfg.data, Options(seed=0))
    assert data.role("source_train").classes == ("photo dog", "photo guitar")
    assert data.role("source_val").classes == ("cartoon dog", "cartoon guitar")
    assert data.role("target_test").classes == ("sketch dog", "sketch guitar")
    assert data.role("target_test").labels.bincount().tolist() == [10, 10]
    assert all("sketch" in path for path in data.role("target_test").paths)


@pytest.mark.parametrize("name", ["photos", "dog"])
def test_a_word_that_is_no_domain_is_answered_with_those_that_are(pacs, name):
    with pytest.raises(ConfigError, match=r"data.classes.*Valid: .*art_painting.*sketch"):
        domain_classes(set="pacs", size=8, base=[name], val=["cartoon"], novel=["sketch"])


def test_domains_are_joined_class_by_class(pacs):
    splits = domain_classes(
        set="pacs", size=8, base=["photo", "art_painting"], val=["cartoon"], novel=["sketch"]
    )
    names = ("photo dog", "photo guitar", "art_painting dog", "art_painting guitar")
    assert splits.base.classes == names
    assert splits.base.labels.bincount().tolist() == [10, 10, 10, 10]
    for row, path in enumerate(splits.base.paths):  # labels, pixels and paths stay together
        name = names[int(splits.base.labels[row])]
        assert all(word in path for word in name.split(" "))
    alone = domain_classes(
        set="pacs", size=8, base=["art_painting"], val=["photo"], novel=["sketch"]
    )
    rows = (splits.base.labels >= 2).nonzero().flatten()
    assert splits.base.read(rows).equal(alone.base.read(rows - 20))


@pytest.mark.parametrize(
    "groups", [{"base": ["photo"]}, {"base": ["photo"], "val": ["photo"], "novel": ["sketch"]}]
)
def test_groups_that_are_none(pacs, groups):
    with pytest.raises(ConfigError, match="base, val and novel must name domains"):
        domain_classes(set="pacs", size=8, **groups)
