import inspect
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tlrun.config.build import locate
from tlrun.data import prepare
from tlrun.data.problems.domain_words import data_sets, uses_words
from tlrun.data.problems.options import Options

CONF = Path(__file__).parents[2] / "conf" / "data"
FILES = sorted(CONF.glob("*.yaml"))


def test_the_table_names_roles_licence_and_counts(capsys):
    prepare.main({"data": OmegaConf.load(CONF / "digits_digitsm.yaml"), "seed": 0})
    out = capsys.readouterr().out
    for word in ("10 classes", "source_train", "1,800", "3x28x28", "cbffae933f533d46", "CC BY 4.0"):
        assert word in out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_has_a_line_for_the_list_and_fits_its_callables(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "; licence: " in first
    assert "; cite: " in first
    conf = yaml.safe_load(path.read_text())
    assert conf["name"] == path.stem
    if "_target_" in conf:  # data of a kind of their own
        conf.pop("defaults", None)
        parameters = inspect.signature(locate(conf.pop("_target_"))).parameters
        asked = {"options"}
        plain = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
        needed = {name for name, p in plain.items() if p.default is p.empty}
        if len(plain) == len(parameters):  # others take whatever `task_data` does
            assert conf.keys() | asked <= parameters.keys()
        assert needed <= conf.keys() | asked
        return
    if uses_words(conf):
        first, second = (conf["domains"] or ["a", "b"])[:2]
        pair = data_sets({**conf, "source": first, "target": second}, Options())
        parameters = locate(pair["target"].pop("_target_")).__kwdefaults__
        assert pair["target"].keys() <= parameters.keys()
        return
    for domain in ("source", "target"):
        if domain == "source" and conf[domain] is None:  # to fine-tune on
            continue
        block = dict(conf[domain])
        parameters = inspect.signature(locate(block.pop("_target_"))).parameters
        from_data = {"interpolation"} & parameters.keys()  # of those that read image files
        given = block.keys() | {"seed", "size", "download"} | from_data
        assert given <= parameters.keys()
        assert given == parameters.keys() or "set" in block  # choices that other sets have
