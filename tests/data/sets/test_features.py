import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.stats import zscore

from helpers.data_files import real_data
from tlrun.data.examples.feature_file import read_features
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.features import (
    SURF,
    content_order,
    features,
    office_caltech_surf,
)
from tlrun.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
X = RNG.random((20, 6))
Y = np.arange(20) // 5  # sorted by class, as such files often are
ORDER = content_order(X)


@pytest.fixture
def files(tmp_path):
    np.savez(tmp_path / "f.npz", features=X, labels=Y)
    savemat(tmp_path / "f.mat", {"fts": X, "labels": Y[:, None]})
    lines = ["f0,f1,f2,label,f3,f4,f5"]
    lines += [
        ",".join([*map(repr, x[:3].tolist()), str(y), *map(repr, x[3:].tolist())])
        for x, y in zip(X, Y, strict=True)
    ]
    (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("kind", ["npz", "mat", "csv"])
def test_the_three_formats_agree(files, kind):
    parts = features(path=str(files / f"f.{kind}"), transductive=True)
    np.testing.assert_allclose(
        parts.train.read(torch.arange(20)).numpy(), X[ORDER].astype(np.float32), rtol=1e-6
    )
    assert parts.train.labels.tolist() == Y[ORDER].tolist()
    assert parts.train.paths == [f"f.{kind}[{row}]" for row in ORDER]
    assert parts.train.classes == ("0", "1", "2", "3")
    assert parts.train.shape == (6,)


def test_the_order_of_the_file_tells_nothing(files):
    before = features(path=str(files / "f.npz"))
    assert before.train.labels.tolist() != sorted(before.train.labels.tolist())
    shuffled = np.random.default_rng(1).permutation(20)
    np.savez(files / "s.npz", features=X[shuffled].astype(">f8"), labels=Y[shuffled])
    np.savez(files / "r.npz", features=X, labels=Y[::-1])  # other labels: the same rows in order
    for split in ("train", "val", "test"):
        known = getattr(before, split)
        for name in ("s", "r"):
            other = getattr(features(path=str(files / f"{name}.npz")), split)
            assert other.checksum == known.checksum
            assert torch.equal(other.labels, known.labels) == (name == "s")


def test_equal_rows_do_not_keep_the_order_of_the_file():
    order = content_order(np.zeros((20, 3)))
    assert sorted(order) == list(range(20)) != order.tolist()
    assert order.tolist() == content_order(np.full((20, 3), -0.0, np.float32)).tolist()


def test_rows_and_zscore_are_the_authors_preparation(files):
    got = features(path=str(files / "f.npz"), rows="l1", zscore=True, transductive=True).train.data
    want = zscore(X / X.sum(1, keepdims=True), axis=0)
    np.testing.assert_allclose(got.numpy(), want[ORDER], atol=1e-5)
    unit = features(path=str(files / "f.npz"), rows="l2", transductive=True).train.data
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(20))


def test_a_separate_test_file_is_scaled_like_the_training_file(files):
    np.savez(files / "t.npz", features=X + 5, labels=Y)
    parts = features(path=str(files / "f.npz"), test=str(files / "t.npz"), zscore=True)
    want = (X + 5 - X.mean(0))[content_order(X + 5)] / X.std(0)
    np.testing.assert_allclose(parts.test.data.numpy(), want, rtol=1e-4)


def test_a_pair_of_features_without_target_labels(files):
    np.savez(files / "t.npz", embeddings=X)
    place = "tlrun.data.sets.features.features"
    conf = {
        "source": {"_target_": place, "path": str(files / "f.npz")},
        "target": {"_target_": place, "path": str(files / "t.npz")},
        "normalize": "standard",
    }
    data = build_data(conf, Options(seed=0))
    assert data.input_shape == (6,)
    assert data.role("target_test").labels is None
    assert len(data.role("target_test")) == 20


def test_mistakes(files):
    with pytest.raises(ConfigError, match=r"data\.source\.path"):
        features(name="source")
    with pytest.raises(DataError, match="no feature file"):
        features(path=str(files / "x.npz"))
    with pytest.raises(DataError, match="has no array clip"):
        features(path=str(files / "f.npz"), features="clip")
    with pytest.raises(DataError, match="has no column kind"):
        features(path=str(files / "f.csv"), labels="kind")
    np.savez(files / "n.npz", features=np.full((3, 2), np.nan), labels=[0, 1, 0])
    with pytest.raises(DataError, match="NaN"):
        features(path=str(files / "n.npz"))
    np.savez(files / "p.npz", features=np.array([[{}]], dtype=object))
    with pytest.raises(DataError, match="never unpickled"):  # a pickle inside is not run
        features(path=str(files / "p.npz"))
    with pytest.raises(ConfigError, match="choose null, l1 or l2"):
        features(path=str(files / "f.npz"), rows="l3")
    with pytest.raises(ConfigError, match="did you mean 'webcam'"):
        office_caltech_surf(domain="webcamm")


@real_data
def test_the_four_surf_domains():
    counts = {d: len(office_caltech_surf(domain=d, transductive=True).train) for d in SURF}
    assert counts == {"amazon": 958, "caltech": 1123, "dslr": 157, "webcam": 295}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,2\n3,4\n", "no header"),
        ("a,b\n", "no rows"),
        ("", "no rows"),
        ("a,b\n1,2\n3\n", "example 2: 1 cells under 2 names"),
        ("a,label\n1,cat\nx,dog\n", "example 2: 'x' in column a is no number"),
    ],
)
def test_a_damaged_csv_is_refused(text, why, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        read_features(tmp_path / "x.csv")
