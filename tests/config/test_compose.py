"""Composing, checking, hashing and building: every mistake is one sentence that names the fix."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tlrun.cli.list_options import listing
from tlrun.config import schema
from tlrun.config.build import build
from tlrun.config.compose import compose, validate
from tlrun.config.hashes import config_hash
from tlrun.config.packaged import conf_dir
from tlrun.config.saved import load_config
from tlrun.config.value_types import matches
from tlrun.errors import ConfigError

DEFAULT = compose()


# ---- the defaults and the schema say the same -----------------------------------------------


def test_the_defaults_are_valid_and_self_contained() -> None:
    assert DEFAULT.choices.method == "dann"
    assert "hydra" not in DEFAULT
    assert OmegaConf.to_yaml(DEFAULT) == OmegaConf.to_yaml(DEFAULT, resolve=True)


def test_schema_and_config_files_have_the_same_keys() -> None:
    assert {f.name for f in fields(schema.Experiment)} == {str(k) for k in DEFAULT}
    assert {f.name for f in fields(schema.Trainer)} == {str(k) for k in DEFAULT.trainer}


@pytest.mark.parametrize("group", ["optimizer", "schedule", "select", "logger"])
def test_every_option_of_the_small_groups_is_valid(group: str) -> None:
    for file in (conf_dir() / group).glob("*.yaml"):
        assert compose([f"{group}={file.stem}"])[group].name == file.stem


def test_every_option_has_a_line_for_the_listing() -> None:
    for line in listing([], [conf_dir()]).splitlines():
        if line.startswith("  "):
            assert len(line.split(maxsplit=1)) == 2, f"no comment: {line}"
    with pytest.raises(ConfigError, match="did you mean 'methods'"):
        listing(["method"], [conf_dir()])


# ---- budget ---------------------------------------------------------------------------------


def test_steps_or_epochs() -> None:
    assert compose(["trainer.epochs=3"]).trainer.steps is None
    assert compose(["trainer.steps=3"]).trainer.epochs is None
    with pytest.raises(ConfigError, match="only one of them"):
        compose(["trainer.epochs=3", "trainer.steps=4"])
    with pytest.raises(ConfigError, match="how long"):
        compose(["trainer.steps=null"])


def test_typed_steps_win_over_the_epochs_of_an_experiment(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\ntrainer: {epochs: 5}\n")
    assert compose(["experiment=mine"], config_dir=tmp_path).trainer.steps is None
    typed = compose(["experiment=mine", "trainer.steps=7"], config_dir=tmp_path).trainer
    assert (typed.steps, typed.epochs) == (7, None)


# ---- mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("method=dannn", "there is no method 'dannn': did you mean 'dann'? Valid: adabn, adda, "),
        ("optimizer=sdg", "did you mean 'sgd'? Valid: adam, adamw, sgd"),
        ("trainer.stpes=3", "unknown key 'trainer.stpes': did you mean 'steps'?"),
        ("methd=dann", "unknown key 'methd': did you mean 'method'?"),
        ("lr=0.1", "unknown key 'lr': did you mean 'optimizer.lr'?"),
        ("method.trade_of=1", "unknown key 'method.trade_of': did you mean 'trade_off'?"),
        ("+colour=red", "unknown key 'colour'"),
        ("trainer.steps=abc", "expected a whole number from 1 to 1,000,000,000, or null"),
        ("trainer.batch_size=-5", "batch_size=-5: expected a whole number from 1 to 65,536"),
        ("optimizer.lr=-1", "optimizer.lr=-1: expected a number above 0"),
        ("seed=1.5", "seed=1.5: expected a whole number"),
        ("seed=true", "seed=true: expected a whole number"),
        ("trainer.device=gpu", "expected one of auto, cpu, cuda, mps"),
        ("batch_norm=seperate_forward", "did you mean 'separate_forward'?"),
        ("target_labels=some", "expected one of auto, none, all, or a whole number"),
        ("selectors=[snd,bn]", "selectors=[snd,bn]: expected a list of values, each one of"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: expected a list of 2 values, each a"),
        ("optimizer.betas=[1.0,0.9]", "each a number from 0 to below 1"),
        ("phases.train.optimizer.betas=[0.9,2]", "phases.train.optimizer.betas=[0.9,2]: expected"),
        ("optimizer.name=sgd", "choose the whole group, optimizer=sgd"),
        ("optimizer.name=sdg", "did you mean 'sgd'?"),
        ("evaluate=3", "it is a group of keys"),
        ("trainer=3", "is chosen by the name of one of its options"),
        ("trainer.devices=3", "must be a multiple of trainer.devices"),
        ("phases.adapt.stpes=3", "did you mean 'steps'?"),
        ("phases.adapt=3", "give its keys"),
        ("phases.adapt.optimizer.lr=-3", "phases.adapt.optimizer.lr=-3: expected"),
        ("seed=0,1", "add -m to run each, or write seed=[0,1]"),
        ("foo", "neither a command nor key=value"),
        ("tags=[a", "cannot read 'tags=[a'"),
        ("backbone=timm", "backbone.name has no value: give backbone.name=..."),
        ("method@foo=dann", "is not a group that can be chosen"),
        ("~method", "'method' is missing"),
        ("tags=[${nothing}]", "nothing"),
        ("terms=[vat,vat]", "terms=[vat,vat]: a term is named once"),
    ],
)
def test_a_mistake_is_one_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([typed])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nesterov_needs_momentum() -> None:
    """torch says so too, but only after the data have been read."""
    sgd = ["optimizer=sgd", "optimizer.nesterov=true"]
    with pytest.raises(ConfigError, match=r"^optimizer\.nesterov=true needs momentum: give opt"):
        compose([*sgd, "optimizer.momentum=0"])
    compose([*sgd, "phases.train.optimizer.lr=0.1"])
    for phase in ("{momentum: 0}", "{name: sgd, momentum: 0}"):
        with pytest.raises(ConfigError, match=r"^phases\.train\.optimizer\.nesterov=true"):
            compose([*sgd, f"phases.train.optimizer={phase}"])
    other = "phases.train.optimizer={name: sgd, nesterov: true"  # beside an Adam
    compose([f"{other}, momentum: 0.9}}"])
    with pytest.raises(ConfigError, match="needs momentum"):
        compose([f"{other}}}"])


def test_a_hint_may_ask_for_a_number_of_values() -> None:
    assert matches([1, "a"], tuple[int, str])
    assert not matches([1], tuple[int, str])
    assert not matches(["a", 1], tuple[int, str])
    assert matches([1, 2, 3], tuple[int, ...])
    assert not matches([1, "a"], tuple[int, ...])


def test_mistakes_in_files_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        compose(["method=mine"], config_dir=tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        compose(["method=mien"], config_dir=tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        compose(config_dir=tmp_path / "nowhere")


def test_fp16_on_a_cpu_names_the_way_out() -> None:
    with pytest.raises(ConfigError, match="bf16"):
        compose(["trainer.precision=fp16", "trainer.device=cpu"])


def test_phases_and_augmentation_take_new_keys() -> None:
    cfg = compose(["phases.adapt.steps=5", "data.augment.target.invert=0.5"])
    assert cfg.phases.adapt.steps == 5
    assert cfg.data.augment.target.invert == 0.5


# ---- hash -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    ["tags=[x]", "trainer.threads=2", "trainer.device=cpu", "trainer.log_every=7", "baseline=false"]
    + ["logger=tensorboard", "optimizer.weight_decay=0", "hydra.run.dir=elsewhere"],
)
def test_hash_leaves_out_what_does_not_matter(same: str) -> None:
    assert config_hash(compose([same])) == config_hash(DEFAULT)


@pytest.mark.parametrize("other", ["seed=1", "optimizer.lr=0.01", "method=source_only"])
def test_hash_differs_between_experiments(other: str) -> None:
    assert config_hash(compose([other])) != config_hash(DEFAULT)


def test_hash_leaves_out_where_the_data_lie() -> None:
    plain: Any = OmegaConf.to_container(DEFAULT)
    moved = {
        **plain,
        "data": {**plain["data"], "source": {**plain["data"]["source"], "root": "/x"}},
    }
    assert config_hash(moved) == config_hash(plain)


# ---- saved configs --------------------------------------------------------------------------


def test_a_saved_config_takes_values_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    OmegaConf.save(DEFAULT, path)
    assert config_hash(load_config(path)) == config_hash(DEFAULT)
    cfg = load_config(path, ["seed=7", "method=source_only", "phases.x.steps=3"])
    assert (cfg.seed, cfg.choices.method, cfg.phases.x.steps) == (7, "source_only", 3)
    assert "trade_off" not in cfg.method
    assert load_config(path, ["trainer.epochs=2"]).trainer.steps is None
    for bad in ("sed=7", "trainer.sed=7", "foo", "seed=x", "method=dannn", "nothing.at.all=1"):
        with pytest.raises(ConfigError):
            load_config(path, [bad])
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "nowhere.yaml")


def test_validate_names_an_empty_group() -> None:
    cfg = OmegaConf.create(OmegaConf.to_container(DEFAULT))
    cfg.method = {}
    with pytest.raises(ConfigError, match="no method is chosen"):
        validate(cfg)


# ---- build ----------------------------------------------------------------------------------

MINE = """
from typing import Literal

class Mine:
    def __init__(self, width: int, rate: float = 0.5, kind: Literal["a", "b"] = "a", inner=None):
        self.width, self.inner = width, inner
        if width == 13:
            raise KeyError("unlucky")

number = 3
"""


@pytest.fixture
def my_methods(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder, as a user would have it."""
    (in_tmp / "my_methods.py").write_text(MINE)
    (in_tmp / "needs_more.py").write_text("import surely_not_installed\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    return "my_methods.Mine"


def test_build_finds_the_working_folder_and_leaves_inner_targets(my_methods: str) -> None:
    spec = {"_target_": my_methods, "inner": {"_target_": "nothing.at.all"}}
    built = build(OmegaConf.create(spec), width=4)
    assert built.width == 4
    assert built.inner == {"_target_": "nothing.at.all"}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"_target_": "my_methods.Mine", "widht": 3}, "did you mean 'width'?"),
        ({"_target_": "my_methods.Mine"}, "needs the argument 'width'"),
        ({"_target_": "my_methods.Mine", "width": "x"}, "width=x: expected a whole number"),
        ({"_target_": "my_methods.Mine", "width": 1, "kind": "c"}, "kind=c: expected one of a, b"),
        ({"_target_": "my_methods.Mien"}, "has no 'Mien': did you mean 'Mine'?"),
        ({"_target_": "my_method.Mine"}, "cannot import 'my_method'"),
        ({"_target_": "needs_more.Mine"}, "needs the package 'surely_not_installed'"),
        ({"_target_": "my_methods.number"}, "not a class or function"),
        ({"width": 3}, "`_target_: module.Name` is missing"),
        ({"_target_": "Mine"}, "the form is module.Name"),
    ],
)
def test_build_checks_before_it_calls(my_methods: str, spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(spec)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"widht": 3}, r"^unknown key 'method\.widht', .*did you mean 'width'\?"),
        ({}, r"needs the argument 'method\.width'"),
        ({"width": "x"}, r"^method\.width=x: expected a whole number \(an argument of my_methods"),
    ],
)
def test_errors_of_build_name_the_key(my_methods: str, spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build({"_target_": my_methods, **spec}, "method")


def test_build_keeps_the_users_own_error(my_methods: str) -> None:
    with pytest.raises(KeyError, match="unlucky") as caught:
        build({"_target_": my_methods, "width": 13})
    assert caught.traceback[-1].path.name == "my_methods.py"


def test_build_accepts_builtins_and_keyword_collectors() -> None:
    assert build({"_target_": "builtins.dict", "a": 1}) == {"a": 1}
    assert build({"_target_": "types.SimpleNamespace", "a": 1}).a == 1


def test_a_config_of_an_earlier_version_gets_the_keys_that_are_new(tmp_path: Path) -> None:
    old: Any = OmegaConf.to_container(DEFAULT)
    del old["transfer"], old["init"], old["optimizer"]["layer_decay"]
    old["trainer"]["steps"] = 7
    OmegaConf.save(OmegaConf.create(old), tmp_path / "config.yaml")
    cfg = load_config(tmp_path / "config.yaml")
    assert (cfg.init, cfg.transfer.cut, cfg.optimizer.layer_decay) == ("auto", None, 1.0)
    assert cfg.trainer.steps == 7


@pytest.mark.parametrize("text", ["a: [", "- a\n- b"])
def test_a_damaged_config_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"damaged|no configuration"):
        load_config(tmp_path / "config.yaml")
