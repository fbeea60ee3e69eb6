"""Feature files as people have them: each is read right, or refused in one sentence."""

import logging

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.sparse import csc_matrix, random, save_npz

from tlrun.data.examples.feature_file import class_names, read_features
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import carve, class_order
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.features import features
from tlrun.errors import DataError

X = np.random.default_rng(0).normal(size=(40, 3)).round(6)
Y = np.arange(40) // 20  # sorted by class


def write(path, header, rows, separator=",", encoding="utf-8"):
    lines = [separator.join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def rows(*front):
    """The cells of the examples: columns of `front`, the features, the label."""
    return [[*(f[i] for f in front), *X[i], Y[i]] for i in range(len(X))]


def refused(path, said):
    with pytest.raises(DataError, match=said) as caught:
        read_features(path)
    assert "\n" not in str(caught.value)


# ---- text ---------------------------------------------------------------------------------------


def test_separators_decimal_commas_blanks_and_a_byte_order_mark(tmp_path):
    plain = read_features(write(tmp_path / "p.csv", ["a", "b", "c", "label"], rows()))
    np.testing.assert_array_equal(plain.x, X)
    assert plain.columns == ("a", "b", "c")
    german = [[str(cell).replace(".", ",") for cell in row] for row in rows()]
    for name, table, separator, encoding in (
        ("semicolon.csv", rows(), ";", "utf-8"),
        ("tab.tsv", rows(), "\t", "utf-8-sig"),
        ("comma.csv", german, ";", "utf-8-sig"),
        ("blanks.csv", rows(), " , ", "utf-8"),
        ("UPPER.CSV", rows(), ",", "utf-8"),
    ):
        path = write(tmp_path / name, ["a", " b", "c ", "label"], table, separator, encoding)
        found = read_features(path)
        np.testing.assert_array_equal(found.x, plain.x)
        assert found.columns == plain.columns
        assert found.labels.tolist() == plain.labels.tolist()


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("a;b;label", "1,5;2.5;cat", r"decimal commas \('1,5' in example 2\) and decimal points"),
        ("a,b,label", "1,,cat", "example 2: '' in column b is no number"),
        ("a,b,label", "1,x,cat", "example 2: 'x' in column b is no number"),
        ("a,b,label", "1,2", "example 2: 2 cells under 3 names"),
        ("a,a,label", "1,2,cat", "the column 'a' stands twice"),
        ("a,,label", "1,2.5,cat", "feature column 2 has no name"),
        ("a,b,label", "1,nan,cat", r"1 of 4 numbers, in column b \(1\), first in example 2"),
        ("a,b,label", "inf,2,cat", r"in column a \(1\), first in example 2"),
        ("a,b,label", "1,2,", r"1 of 2 examples have no label \(example 2\); label all or none"),
        ("a,b,label", "1,2,NaN", "1 of 2 examples have no label"),
        ("a,Label,label", "1,2,cat", "'Label' and 'label' could both hold the classes"),
        ("a,target,label", "1,2,cat", "'target' and 'label' could both hold the classes"),
        ("a,b,lable", "1,2,3", "is 'lable' the column of classes"),
    ],
)
def test_what_would_be_misread_is_refused(tmp_path, header, row, said):
    separator = ";" if ";" in header else ","
    first = separator.join(["3", "4", "dog"]) if header.count(separator) == 2 else "3"
    if "lable" in header:
        first = "3,4,5"
    (tmp_path / "x.csv").write_text(f"{header}\n{first}\n{row}\n")
    refused(tmp_path / "x.csv", said)


def test_a_column_of_words_is_named(tmp_path):
    path = write(tmp_path / "x.csv", ["file", "a", "b", "c", "label"], rows(["1.png"] * 40))
    refused(path, r"'1.png' in column file is no number \(40 cells of the file are none\); remove")
    path = write(tmp_path / "x.csv", ["a", "kind"], [[1, "cat"], [2, "dog"]])
    refused(path, "if it holds the classes, name the column of classes label")


def test_text_that_is_not_utf_8(tmp_path):
    write(tmp_path / "x.csv", ["größe", "label"], [[1, "a"], [2, "b"]], encoding="latin-1")
    refused(tmp_path / "x.csv", "is not UTF-8 text; save it as UTF-8")


@pytest.mark.parametrize("name", ["Label", "LABEL ", " label", "Labels", "Target", "Class", "y"])
def test_the_label_in_any_case(tmp_path, name):
    path = write(tmp_path / "x.csv", ["a", "b", "c", name], rows())
    assert read_features(path).columns == ("a", "b", "c")
    assert read_features(path, label_key=name.swapcase()).columns == ("a", "b", "c")
    with pytest.raises(DataError, match="has no column kinds: did you mean"):
        read_features(write(tmp_path / "y.csv", ["a", "b", "kind", "y"], rows()), label_key="kinds")


def test_x_and_y_beside_a_label_are_coordinates(tmp_path):
    path = write(tmp_path / "x.csv", ["x", "y", "z", "label"], rows())
    assert read_features(path).columns == ("x", "y", "z")


# ---- an index ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("", range(40)),
        ("Unnamed: 0", np.random.default_rng(1).permutation(90)[:40]),  # of a shuffled frame
        ("id", range(1000, 1040)),
        ("time", range(1, 41)),  # whatever it is called, it counts the rows
    ],
)
def test_an_index_is_left_out_and_said(tmp_path, caplog, name, values):
    path = write(tmp_path / "x.csv", [name, "a", "b", "c", "label"], rows(list(values)))
    with caplog.at_level(logging.WARNING):
        parts = features(path=str(path), transductive=True)
    assert parts.feature_names == ("a", "b", "c")
    assert parts.train.shape == (3,)
    assert f"the column {f'{name!r}' if name else 'without a name'} is left out" in caplog.text
    assert parts.card.notes
    assert "is left out" in parts.card.notes[0]


def test_an_index_without_names_is_left_out_too(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.column_stack([np.arange(40), X]), y=Y)
    np.testing.assert_array_equal(read_features(tmp_path / "x.npz").x, X)
    np.savez(tmp_path / "x.npz", x=np.arange(40)[:, None], y=Y)
    refused(tmp_path / "x.npz", "no column of features")


def test_columns_that_only_look_like_an_index_stay(tmp_path):
    """A refractive `index`, and few rows that happen to count."""
    path = write(tmp_path / "x.csv", ["index", "a", "label"], [[1.5, 2, "a"], [1.3, 7, "b"]])
    assert read_features(path).columns == ("index", "a")
    path = write(tmp_path / "x.csv", ["n", "a", "label"], [[1, 2, "a"], [2, 7, "b"]])
    assert read_features(path).columns == ("n", "a")


# ---- arrays --------------------------------------------------------------------------------------


def test_object_arrays_beside_the_features_are_not_read(tmp_path):
    paths = np.array([{"a": 1}] * 40, dtype=object)
    np.savez(tmp_path / "x.npz", Features=X, Labels=Y, paths=paths)
    np.testing.assert_array_equal(read_features(tmp_path / "x.npz").x, X)
    np.savez(tmp_path / "x.npz", features=X, labels=np.array(["a"] * 40, dtype=object))
    refused(tmp_path / "x.npz", "the array labels holds Python objects, which are never unpickled")


def test_matlab_files(tmp_path):
    sparse = random(40, 6, 0.5, format="csc", random_state=np.random.default_rng(0))
    savemat(tmp_path / "s.mat", {"fts": sparse, "labels": csc_matrix(Y[:, None].astype(float))})
    found = read_features(tmp_path / "s.mat")
    np.testing.assert_array_equal(found.x, sparse.toarray())
    assert found.labels.tolist() == [str(y) for y in Y]
    names = np.array(["cat", "mouse"])[Y]
    savemat(tmp_path / "c.mat", {"fts": X, "labels": names.astype(object), "info": {"a": [1, 2]}})
    assert read_features(tmp_path / "c.mat").labels.tolist() == names.tolist()
    savemat(tmp_path / "p.mat", {"fts": X, "labels": names})  # padded to one length
    assert read_features(tmp_path / "p.mat").labels.tolist() == names.tolist()
    savemat(tmp_path / "h.mat", {"fts": csc_matrix((4_000_000, 400)), "labels": Y})
    refused(tmp_path / "h.mat", "the sparse array fts would take 13 GB")
    save_npz(tmp_path / "s.npz", sparse)
    refused(tmp_path / "s.npz", "sparse matrix without labels")


def test_bytes_are_text(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=np.array([b"cat", b"dog"])[Y], columns=["a", "b", "c"])
    found = read_features(tmp_path / "x.npz")
    assert set(found.labels) == {"cat", "dog"}
    assert found.columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.eye(2)[Y], "80 labels for 40 rows of features; give each row one class"),
        (np.arange(3), "stored by column"),
        (np.arange(7), "7 labels for 40 rows of features; make the counts agree"),
        (np.where(Y == 1, np.nan, 0.0), "20 of 40 examples have no label"),
        (Y + 0.5, "the label 0.5 is no class but a measurement"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, said):
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    refused(tmp_path / "x.npz", said)


def test_a_file_without_any_label_is_unlabelled(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=np.full(40, np.nan))
    assert read_features(tmp_path / "x.npz").labels is None


def test_numbers_beyond_float32_are_counted(tmp_path):
    large = X.copy()
    large[[3, 9], 1] = 1e39
    np.savez(tmp_path / "x.npz", x=large, y=Y, columns=["a", "b", "c"])
    said = r"beyond 3\.4e38.*2 of 120 numbers, in column b \(2\), first in example 4"
    with pytest.raises(DataError, match=said):
        features(path=str(tmp_path / "x.npz"))
    assert len(features(path=str(tmp_path / "x.npz"), zscore=True).train)  # brought into range


# ---- classes -------------------------------------------------------------------------------------


def test_whole_numbers_are_the_same_class_however_they_are_spelled(tmp_path):
    for labels in (Y, Y.astype(float), Y.astype(str), [f"{y}.0" for y in Y], [f" {y}" for y in Y]):
        assert class_names(np.array(labels), tmp_path).tolist() == [str(y) for y in Y]
    assert class_names(np.array(["01", "02"]), tmp_path).tolist() == ["01", "02"]


@pytest.mark.parametrize("kind", [str, int])
def test_numbers_are_classes_in_the_order_of_their_values(tmp_path, kind):
    labels = np.array([0, 1, 10, 2] * 10).astype(kind)
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    train = features(path=str(tmp_path / "x.npz"), transductive=True).train
    assert train.classes == ("0", "1", "2", "10")
    by_row = dict(zip(train.paths, train.labels.tolist(), strict=True))
    assert [train.classes[by_row[f"x.npz[{i}]"]] for i in range(4)] == ["0", "1", "10", "2"]
    assert class_order(["-1", "1", "0.5"]) == ["-1", "0.5", "1"]
    assert class_order(["nan", "10", "2"]) == ["10", "2", "nan"]


# ---- several files -------------------------------------------------------------------------------


def test_named_columns_are_matched_whatever_their_order(tmp_path):
    a = write(tmp_path / "a.csv", ["a", "b", "c", "label"], rows())
    turned = [[row[2], row[3], row[0], row[1]] for row in rows()]
    b = write(tmp_path / "b.csv", ["c", "label", "a", "b"], turned)
    other = write(
        tmp_path / "o.csv", ["c", "label", "a", "b"], [[*r[:2], r[2] + 1, r[3]] for r in turned]
    )
    by_name = features(path=str(a), test=str(other)).test.data
    assert sorted(by_name[:, 0].tolist()) == sorted((X[:, 0] + 1).astype(np.float32).tolist())
    assert features(path=str(b), transductive=True).feature_names == ("c", "a", "b")
    with pytest.raises(DataError, match="every row"):  # the same rows in other words
        features(path=str(a), test=str(b))
    place = "tlrun.data.sets.features.features"
    conf = {d: {"_target_": place, "name": d} for d in ("source", "target")}
    conf["source"]["path"], conf["target"]["path"] = str(a), str(b)
    data = build_data(conf, Options(seed=0))
    for split in ("train", "val", "test"):  # the same numbers, in the same order, cut alike
        source, target = data.role(f"source_{split}"), data.role(f"target_{split}")
        assert source.checksum == target.checksum


def test_without_names_the_numbers_of_columns_agree(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X[:, :2], y=Y)
    with pytest.raises(DataError, match="has 3 features per example, features has 2"):
        features(path=str(tmp_path / "a.npz"), test=str(tmp_path / "b.npz"))
    named, plain = tmp_path / "a.csv", tmp_path / "a.npz"
    write(named, ["a", "b", "c", "label"], rows())
    np.savez(plain, x=X + 1, y=Y)
    assert "have no names" not in caplog.text
    assert features(path=str(named), test=str(plain)).test.shape == (3,)
    told = "the columns of '{}' have no names: they are taken for those of '{}' in the order there"
    assert told.format(plain, named) in caplog.text
    caplog.clear()
    features(path=str(plain), test=str(named))
    assert told.format(plain, named) in caplog.text
    caplog.clear()
    place = "tlrun.data.sets.features.features"
    conf = {d: {"_target_": place, "name": d} for d in ("source", "target")}
    conf["source"]["path"], conf["target"]["path"] = str(plain), str(named)
    build_data(conf, Options(seed=0))
    assert told.replace("'", "").format("source", "target") in caplog.text


# ---- equal rows ----------------------------------------------------------------------------------


def test_equal_rows_stay_in_one_split(tmp_path, caplog):
    """Ten rows, each four times: a cut that splits a group would test on what was learned."""
    np.savez(tmp_path / "x.npz", x=np.repeat(X[:10], 4, 0), y=np.repeat(np.arange(10) % 2, 4))
    conf = {"_target_": "tlrun.data.sets.features.features", "path": str(tmp_path / "x.npz")}
    for seed in range(5):
        data = build_data({"source": conf, "target": conf}, Options(seed=seed))
        held = [
            {tuple(row) for row in data.role(f"source_{s}").read(torch.arange(n)).tolist()}
            for s in ("train", "val", "test")
            if (n := len(data.role(f"source_{s}")))
        ]
        assert sum(map(len, held)) == len(set.union(*held)) == 10
        assert len(data.role("source_test")) == 8
    assert "repeats 30 of its rows; equal ones stay in one split" in caplog.text
    assert "source and target share 10 rows" in caplog.text


def test_rows_of_the_test_file_are_not_trained_on(tmp_path, caplog):
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    np.savez(
        tmp_path / "test.npz", x=np.concatenate([X[[3, 30]], X[:5] + 1]), y=[0, 1, 0, 1, 0, 1, 0]
    )
    parts = features(path=str(tmp_path / "train.npz"), test=str(tmp_path / "test.npz"))
    assert (len(parts.train), len(parts.test)) == (38, 7)
    assert not {"train.npz[3]", "train.npz[30]"} & set(parts.train.paths)
    assert "2 of 40 rows" in caplog.text
    assert parts.card.notes
    with pytest.raises(DataError, match=r"every row .* is one of the test file too"):
        features(path=str(tmp_path / "train.npz"), test=str(tmp_path / "train.npz"))


def test_without_equal_rows_a_cut_is_what_it_was():
    examples = ImageSet("x", torch.from_numpy(X).float(), paths=[str(i) for i in range(40)])
    alone = {str(i): str(i) for i in range(40)}
    for with_content, without in zip(
        carve(examples, 9, 3, "test", alone), carve(examples, 9, 3, "test"), strict=True
    ):
        assert with_content.paths == without.paths
