"""Domains in words: what is composed, refused, hashed and read back."""

import pytest

from tlrun.config.compose import compose
from tlrun.config.domains import Domains, domains_of
from tlrun.config.hashes import config_hash
from tlrun.config.saved import load_config
from tlrun.errors import ConfigError

PACS = ["art_painting", "cartoon", "photo", "sketch"]


def sides(*overrides):
    data = compose(["data=pacs", *overrides]).data
    return data.source, data.target


def test_words_lists_and_all_but():
    assert sides("data.source=photo") == ("photo", "sketch")
    assert sides("data.source=[photo,cartoon]") == (["photo", "cartoon"], "sketch")
    assert sides() == (["art_painting", "cartoon", "photo"], "sketch")
    assert sides("data.source=photo", "data.target=all_but_source") == (
        "photo",
        ["art_painting", "cartoon", "sketch"],
    )
    assert sides("data.source=[photo]") == ("photo", "sketch")
    assert sides("data.domains=[photo,sketch,cartoon]") == (["photo", "cartoon"], "sketch")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.source=foto"], "data.source=foto: did you mean 'photo'"),
        (["data.target=[photo,sketsh]"], "data.target=sketsh: did you mean 'sketch'"),
        (["data.source=sketch"], "both 'sketch': choose two"),
        (["data.target=all_but_source"], "mean each other"),
        (["data.source=[photo,photo]"], "names 'photo' twice"),
        (["data.source=[]"], "names no domain"),
        (["data.target=null"], "data.target has no value"),
        (["data.domains=[photo,photo]"], "data.domains names 'photo' twice"),
        (["data.domains=[sketch]"], "sketch are all domains of pacs"),
        (["data.target={root: x}"], "data.target is a word here"),
    ],
)
def test_wrong_words(overrides, said):
    with pytest.raises(ConfigError, match=said):
        sides(*overrides)


def test_what_means_the_same_has_the_same_hash():
    def hashed(*overrides):
        return config_hash(compose(["data=pacs", *overrides]))

    written_out = hashed("data.source=[art_painting,cartoon,photo]")
    assert hashed("data.source=all_but_target") == written_out
    assert hashed("data.source=photo") != written_out


def test_a_saved_run_takes_other_words(tmp_path):
    from omegaconf import OmegaConf

    path = tmp_path / "config.yaml"
    OmegaConf.save(compose(["data=pacs"]), path)
    assert load_config(path).data.source == ["art_painting", "cartoon", "photo"]
    again = load_config(path, ["data.source=photo", "data.target=all_but_source"])
    assert again.data.target == ["art_painting", "cartoon", "sketch"]
    assert load_config(path, ["data.target=photo"]).data.target == "photo"  # to be evaluated
    with pytest.raises(ConfigError, match="did you mean 'photo'"):
        load_config(path, ["data.target=foto"])


def test_own_domains_are_the_folders_of_the_root(tmp_path):
    own = ["data=domains", f"data.root={tmp_path}"]
    with pytest.raises(ConfigError, match="holds 0 folders"):
        compose([*own, "data.target=a"])
    for name in ("b", "a", "2019", ".hidden"):
        (tmp_path / name).mkdir()
    data = compose([*own, "data.target=2019"]).data
    assert (data.domains, data.source, data.target) == (["2019", "a", "b"], ["a", "b"], "2019")
    with pytest.raises(ConfigError, match=r"data\.source=c: .*Valid: 2019, a, all_but_target, b"):
        compose([*own, "data.source=c", "data.target=a"])
    with pytest.raises(ConfigError, match=r"data\.target has no value: Valid: 2019, a, b"):
        compose(own)
    with pytest.raises(ConfigError, match=r"Give data\.root=FOLDER"):
        compose(["data=domains", "data.target=a"])
    with pytest.raises(ConfigError, match="No such file or directory; give the folder"):
        compose(["data=domains", "data.root=nowhere", "data.target=a"])


def test_domains_of_any_data():
    def of(*overrides):
        return domains_of(compose(list(overrides)))

    assert of("data=pacs", "data.source=photo") == Domains(("photo",), ("sketch",))
    assert of("data=pacs").name == "art_painting+cartoon+photo→sketch"
    folders = of("data=folder", "data.source.root=x/amazon", "data.target.list=y/webcam.txt")
    assert folders.name == "amazon→webcam"
    assert of("data=office_caltech_surf").name == "amazon→webcam"
    assert of("data=mnist_usps").name == "mnist→usps"
    assert of("data=mnist_usps_mnistm").source == ("mnist", "usps")
    assert domains_of({"data": {"source": None, "target": {"root": "a/pets"}}}).name == "pets"
    assert of("data=omniglot", "method=protonet").name == ""
