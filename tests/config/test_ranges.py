"""Every number that a configuration may hold has a range, on the signature of what takes it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from tlrun.config import schema
from tlrun.config.build import argument_hints, build, check_targets, locate
from tlrun.config.packaged import conf_dir
from tlrun.config.ranges import Count, Positive, Range, Share, Weight, Width
from tlrun.config.value_types import describe, matches
from tlrun.errors import ConfigError

TARGETS = sorted(
    {
        target
        for file in conf_dir().rglob("*.yaml")
        for target in re.findall(r"_target_: (tlrun\.[\w.]+)", file.read_text(encoding="utf-8"))
        if not target.startswith("tlrun.sweep.callback")
    }
    | {"tlrun.models.heads.Classifier"}
)
# by the program itself, or checked before
GIVEN = ("seed", "target_labels", "target_val_labels", "input_shape", "in_dim", "num_classes")
HUGE = 99999999999999999999


def without_range(kind: Any) -> bool:
    """Whether a type hint lets any number through."""
    if get_origin(kind) is Annotated and any(isinstance(m, Range) for m in get_args(kind)[1:]):
        return False
    if get_origin(kind) in (Union, UnionType):
        return any(map(without_range, get_args(kind)))
    return kind in (int, float) or any(map(without_range, get_args(kind)))


@pytest.mark.parametrize("target", TARGETS)
def test_every_number_of_a_signature_has_a_range(target: str) -> None:
    hints = argument_hints(locate(target))
    wanted = set(inspect.signature(locate(target)).parameters)
    assert wanted <= set(hints), "a hint that cannot be read would switch its check off"
    open_ended = [n for n in wanted if n not in GIVEN and without_range(hints[n])]
    assert not open_ended


@pytest.mark.parametrize("target", TARGETS)
def test_every_default_lies_in_its_range(target: str) -> None:
    hints = argument_hints(locate(target))
    for name, parameter in inspect.signature(locate(target)).parameters.items():
        if parameter.default is not parameter.empty:
            assert matches(parameter.default, hints[name]), name


def test_every_number_of_the_schema_has_a_range() -> None:
    for section in vars(schema).values():
        if isinstance(section, type) and hasattr(section, "__dataclass_fields__"):
            for name, kind in get_type_hints(section, include_extras=True).items():
                assert not without_range(kind), f"{section.__name__}.{name}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, HUGE, 10**400])
@pytest.mark.parametrize("kind", [Count, Positive, Share, Weight, Width, float, int])
def test_what_no_number_can_be(value: float, kind: Any) -> None:
    if not (kind is float and value in (1e30, HUGE)):  # a hint of one's own, without a range
        assert not matches(value, kind)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Count, "a whole number from 1 to 1,000,000,000"),
        (Positive, "a number above 0 to 1,000,000"),
        (Share, "a number from 0 to 1"),
        (Annotated[float, Range(0, 1, open_high=True)], "a number from 0 to below 1"),
        (Annotated[float, Range(high=0.5)], "a number of at most 0.5"),
        (list[Share], "a list of values, each a number from 0 to 1"),
        (dict[str, Share], "a group of keys, each with a number from 0 to 1"),
    ],
)
def test_ranges_in_words(kind: Any, words: str) -> None:
    assert describe(kind) == words


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"domain_hidden": HUGE}, f"method.domain_hidden={HUGE}: expected a whole number from 1"),
        ({"domain_dropout": 1.0}, "method.domain_dropout=1.0: expected a number from 0 to below 1"),
        ({"trade_off": float("nan")}, "method.trade_off=nan: expected a number from 0"),
        ({"trade_off": -1}, "method.trade_off=-1: expected a number from 0"),
        ({"lambda_schedule": "sigmoyd"}, "linear, constant; did you mean 'sigmoid'"),
    ],
)
def test_an_inherited_field_is_checked_too(spec: dict[str, Any], sentence: str) -> None:
    """CDAN's module does not know the names of the ranges of DANN's fields."""
    for name in ("adversarial.dann.DANN", "adversarial.cdan.CDAN", "consistency.dirt_t.DirtT"):
        with pytest.raises(ConfigError) as refused:
            build({"_target_": f"tlrun.methods.{name}", **spec}, "method")
        assert sentence in str(refused.value)


def test_targets_inside_a_group_are_checked_before_anything_is_built() -> None:
    folder = {"_target_": "tlrun.data.sets.folder.folder", "val_fraction": 1.5}
    with pytest.raises(ConfigError, match=r"^data\.source\.val_fraction=1\.5: expected a number"):
        check_targets({"source": folder, "name": "mine"}, "data")
    check_targets({"source": {"_target_": "no_such.module"}}, "data")  # for `build` to say


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("data.channels=nan", "data.channels=nan: expected one of 1, 3"),
        ("data.channels=2", "data.channels=2: expected one of 1, 3"),
        ("data.size=100000", "data.size=100000: expected auto, or a whole number from 1 to 4,096"),
        ("backbone.width=1e30", "backbone.width=1e+30: expected a number above 0 to 100"),
        (f"method.domain_hidden={HUGE}", f"method.domain_hidden={HUGE}: expected a whole number"),
        (f"trainer.batch_size={HUGE}", f"trainer.batch_size={HUGE}: expected a whole number"),
        (f"evaluate.batch_size={HUGE}", f"evaluate.batch_size={HUGE}: expected a whole number"),
        ("optimizer.lr=.inf", "optimizer.lr=.inf: expected a number above 0"),
        ("optimizer.lr=inf", "optimizer.lr=inf: expected a number above 0"),
        ("backbone.head.dropout=2", "backbone.head.dropout=2: expected a number from 0 to 1"),
        ("backbone.head.hidden=[1e9]", "backbone.head.hidden=[1000000000.0]: expected a list"),
        ("data.augment.source.noise=nan", "data.augment.source.noise=nan: expected a number"),
        ("data.augment.source.noise=1e30", "data.augment.source.noise=1e+30: expected a number"),
        ("data.augment.target.rotate=[1]", "data.augment.target.rotate=[1]: expected a number"),
        ("data.augment.target.turn=1", "unknown key 'data.augment.target.turn'"),
        ("data.augment.target=3", "data.augment.target=3: give operations and their strengths"),
        (
            "data.label_spaces=opne",
            "expected one of shared, partial, open, or null; did you mean 'open'?",
        ),
    ],
)
def test_a_number_out_of_range_leaves_nothing_behind(
    word: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from tlrun.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(word.split()) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_flag_may_stand_before_its_verb(tmp_path: Path, capsys: Any) -> None:
    from tlrun.cli.main import main

    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# Of my own\n_target_: my.Own\n")
    assert main(["--config-dir", str(tmp_path), "list", "methods"]) == 0
    assert "Of my own" in capsys.readouterr().out
