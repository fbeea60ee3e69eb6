"""`data=attributes`: one's own images with a table of attributes, some classes unseen."""

from collections import Counter

import pytest
import torch

from helpers.data_files import write_image
from helpers.small import composed
from tlrun.data.problems.label_space import AttributeFacts, LabelSpace, Task
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.errors import ConfigError, DataError
from tlrun.inference.descriptions import handicap

SEEN, UNSEEN = ("lion", "tiger", "wolf", "zebra"), ("liger", "okapi")
EACH = 10


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """table.csv, an empty folder beside it, and the words that name both."""
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    lines = [f"{name},{k % 2},{k / 5}" for k, name in enumerate((*SEEN, *UNSEEN))]
    (tmp_path / "table.csv").write_text("class,legs,mane\n" + "\n".join(lines) + "\n")
    return tmp_path


def photos(folder, names, seed=0):
    for k, name in enumerate(names):
        for n in range(EACH):
            write_image(folder / name / f"{n}.png", seed + 100 * k + n)


def load(zoo, *words):
    table = () if any("table" in w for w in words) else (f"data.table.path={zoo}/table.csv",)
    conf = composed("data=attributes", "data.size=16", "data.unseen=[liger,okapi]", *table, *words)
    return build_data(conf.data, Options())


def test_an_unseen_class_needs_no_training_image(zoo):
    photos(zoo / "photos/train", SEEN)
    photos(zoo / "photos/test", (*SEEN, *UNSEEN), seed=5000)
    data = load(zoo, f"data.images.root={zoo}/photos")
    counts = Counter(data.classes[k] for k in data.role("target_test").labels.tolist())
    assert counts == dict.fromkeys(UNSEEN, EACH)
    for file in (zoo / "photos/train/wolf").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="'wolf'"):  # a class that is to be learned needs some
        load(zoo, f"data.images.root={zoo}/photos")


def test_no_training_image_is_put_aside_twice(zoo):
    """The problem holds out a tenth; the folder once held out another one, which nobody read."""
    photos(zoo / "photos", (*SEEN, *UNSEEN))
    data = load(zoo, f"data.images.root={zoo}/photos", "data.images.test_fraction=0.2")
    roles = ("source_train", "source_val", "source_test")
    assert sum(len(data.role(role)) for role in roles) == EACH * len(SEEN)


def test_images_by_a_list_and_a_test_folder_beside(zoo):
    photos(zoo / "photos", SEEN)
    photos(zoo / "later", (*SEEN, *UNSEEN), seed=5000)
    lines = [f"{name}/{n}.png {name}" for name in SEEN for n in range(EACH)]
    (zoo / "list.txt").write_text("\n".join(lines) + "\n")
    place = f"data.images.root={zoo}/photos"
    data = load(
        zoo, place, f"data.images.list={zoo}/list.txt", f"data.images.test.root={zoo}/later"
    )
    assert len(data.role("source_test")) == EACH * len(SEEN)
    assert len(data.role("target_test")) == EACH * len(UNSEEN)


def test_grey_images(zoo):
    photos(zoo / "photos", (*SEEN, *UNSEEN))
    data = load(zoo, f"data.images.root={zoo}/photos", "data.channels=1")
    assert data.role("source_train").shape[0] == 1


def test_messages_name_keys_that_are_there(zoo):
    for word, said in (
        (f"data.images.root={zoo}/nowhere", r"^data\.images\.root=.*no such folder"),
        (f"data.images.list={zoo}/list.txt", r"list\.txt"),
    ):
        with pytest.raises(DataError, match=said):
            load(zoo, word)
    with pytest.raises(ConfigError, match=r"Set data\.images\.root=FOLDER or data\.images\.list="):
        load(zoo)
    photos(zoo / "photos", (*SEEN, *UNSEEN))
    words = (f"data.images.root={zoo}/photos", f"data.table.path={zoo}/nix.csv")
    with pytest.raises(
        DataError, match=r"^data\.table\.path=.*nix\.csv: there is no such file"
    ) as e:
        load(zoo, *words)
    assert "digits_digitsm" not in str(e.value)  # one's own table is in no other folder


def test_a_gamma_of_ones_own_may_be_negative_but_is_a_number(zoo):
    """One that is chosen on held-out classes can be: what a run says can be given to the next."""
    photos(zoo / "photos", (*SEEN, *UNSEEN))
    data = load(zoo, f"data.images.root={zoo}/photos", "data.gamma=-0.38")
    assert data.facts.gamma == -0.38
    facts = AttributeFacts([[1.0], [0.0]], ["a"], ["x"], [], ["y"], True, None)
    space = LabelSpace({"class": Task("class", "attributes", ("x", "y"))}, facts)
    torch.testing.assert_close(handicap(space, {}, -1.0), torch.tensor([-1.0, 0.0]))
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=rf"--gamma {wrong}: give a finite number"):
            handicap(space, {}, wrong)
