"""What the data of a run are called, by its configuration."""

import pytest

from tlrun.config.compose import compose
from tlrun.config.data_names import data_title, folder_title, is_pair_key

FOLDERS = ("data=folder", "data.source.root=/x/amazon", "data.target.root=/y/dslr")


@pytest.mark.parametrize(
    ("overrides", "title", "folder"),
    [
        (("data=mnist_usps",), "mnist_usps", "mnist_usps"),
        (("data=digits_fours_nines",), "digits_fours_nines", "digits_fours_nines"),  # tasks
        (("data=pacs", "data.source=photo"), "pacs photo→sketch", "pacs_photo-sketch"),
        (FOLDERS, "amazon→dslr", "amazon-dslr"),
        (("data=folder", "data.target.root=/y/dslr", "method=finetune"), "dslr", "dslr"),
        (("data=features", "data.source.path=a.npz", "data.target.path=b.npz"), "a→b", "a-b"),
        (
            ("data=office_caltech_surf",),
            "office_caltech_surf amazon→webcam",
            "office_caltech_surf_amazon-webcam",
        ),
    ],
)
def test_titles(overrides: tuple[str, ...], title: str, folder: str) -> None:
    cfg = compose(list(overrides), keep_hydra=True)
    assert data_title(cfg) == title
    assert cfg.hydra.sweep.subdir.startswith(f"{cfg.choices.method}_{folder}_seed0_")


def test_a_job_that_failed_early_and_one_of_nobody() -> None:
    data = {"name": "pacs", "domains": ["a", "b", "c"], "source": "all_but_target", "target": "b"}
    assert data_title({"data": data}) == "pacs a+c→b"
    assert folder_title({"data": data}, "pacs") == "pacs_all_but_target-b"
    assert data_title({}) == ""
    assert data_title({"data": {"name": "x", "source": "???", "target": None}}) == "x"
    long = {"name": "x", "source": [f"domain {i}" for i in range(99)], "target": "../y"}
    assert len(folder_title({"data": long}, "x")) <= 80
    assert "/" not in folder_title({"data": {**long, "source": "../z"}}, "x")


def test_keys_that_choose_a_pair() -> None:
    for key in ("data.source", "data.target", "data.target.root", "data.source.domain"):
        assert is_pair_key(key)
    for key in ("data", "data.fit", "data.target.fit", "data.source_classes", "method.source"):
        assert not is_pair_key(key)
