import csv
import os
import shutil

import pytest
import torch

from tlrun.errors import ConfigError, DataError, RunError
from tlrun.inference.predict import Model, image_files, load, main
from tlrun.run_folder.run_dir import RunDir

torch.set_num_threads(1)


def raw(count: int = 5, size: int = 28) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), generator=draws, dtype=torch.uint8)


def test_load_gives_the_selected_net_with_the_targets_statistics(image_run):
    model = load(image_run.run.path)
    assert model.classes == ("cat", "dog", "fox")
    assert not model.training
    with torch.no_grad():
        logits = model(raw())
        x = image_run.preprocess(raw())
        assert torch.equal(logits, image_run.net(x, "target").logits)
        assert not torch.equal(logits, image_run.net(x, "source").logits)


def test_other_checkpoints(image_run):
    path = image_run.run.path
    assert load(path, "last")(raw()).abs().max() == 0  # its head is all zeros
    assert load(path, "bnm")(raw()).abs().max() > 0
    with pytest.raises(ConfigError, match=r"no checkpoint 'lasst'.*did you mean 'last'"):
        load(path, "lasst")


def test_without_a_selected_checkpoint_the_last_one_is_used(image_run, tmp_path):
    folder = shutil.copytree(image_run.run.path, tmp_path / "run")
    RunDir(folder).summary.unlink()
    assert load(folder)(raw()).abs().max() == 0


def test_floats_and_other_sizes_are_accepted(image_run):
    model = load(image_run.run.path)
    with torch.no_grad():
        torch.testing.assert_close(model(raw() / 255), model(raw()))
        assert model(raw(2, size=45)).shape == (2, 3)


def test_features(feature_run):
    x = torch.randn(4, 10)
    with torch.no_grad():
        assert torch.equal(load(feature_run.run.path)(x), feature_run.net(x).logits)
    with pytest.raises(DataError, match="ready features"):
        load(feature_run.run.path).predict_files(["a.png"])


def test_predict_files_equal_the_logits_of_the_images(image_run, images):
    model = load(image_run.run.path)
    paths = image_files([images])
    assert [p.name for p in paths] == ["a.jpg", "b.png", "c.png"]
    found = model.predict_files(paths, batch_size=2)
    with torch.no_grad():
        p = model(model.preprocess.read_files(paths)).softmax(1)
    assert [f.label for f in found] == [model.classes[i] for i in p.argmax(1)]
    assert [f.confidence for f in found] == pytest.approx(p.max(1).values.tolist(), abs=1e-6)


def test_command_prints_and_writes(image_run, images, tmp_path, capsys):
    output = tmp_path / "new" / "out.csv"
    predictions = main(image_run.run.path, [images / "b.png", images], output=output)
    assert len(predictions) == 4
    printed = capsys.readouterr().out
    assert str(images / "b.png") in printed
    assert predictions[0].label in printed
    with output.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "confidence"]
    assert [row[1] for row in rows[1:]] == [p.label for p in predictions]


def test_many_images_are_counted_not_listed(image_run, images, capsys):
    main(image_run.run.path, [images] * 8)
    assert "... 24 images: " in capsys.readouterr().out


def test_mistakes_are_one_sentence(image_run, images, tmp_path):
    path = image_run.run.path
    with pytest.raises(DataError, match="there is no file or folder nowhere"):
        main(path, ["nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in"):
        main(path, [tmp_path / "empty"])
    with pytest.raises(DataError, match="no image given"):
        main(path, [])
    with pytest.raises(DataError, match=r"notes.txt"):
        main(path, [images / "notes.txt"])
    with pytest.raises(ConfigError, match=r"no task 'clas'.*did you mean 'class'"):
        main(path, [images], task="clas")
    with pytest.raises(RunError, match="choose another --output"):
        main(path, [images], output=images / "b.png" / "out.csv")
    with pytest.raises(ConfigError, match="not a run folder"):
        load(tmp_path)


def test_bad_files_are_named_and_the_others_predicted(image_run, images, tmp_path, capsys, caplog):
    (images / "more" / "bad.png").write_bytes(b"no image")
    (images / "more" / "cut.jpg").write_bytes((images / "a.jpg").read_bytes()[:100])
    output = tmp_path / "out.csv"
    with pytest.raises(RunError, match="2 of 5 files could not be read") as error:
        main(image_run.run.path, [images], output=output)
    assert error.value.exit_code == 1
    with output.open() as file:
        assert [row["path"][-5:] for row in csv.DictReader(file)] == ["a.jpg", "b.png", "c.png"]
    assert "bad.png" in caplog.text
    assert "cut.jpg" in caplog.text
    assert "a.jpg" in capsys.readouterr().out


def test_an_absent_path_among_others_is_named_and_the_others_predicted(
    image_run, images, tmp_path, caplog
):
    (tmp_path / "empty").mkdir()
    output = tmp_path / "out.csv"
    given = [tmp_path / "nowhere.png", images, tmp_path / "empty"]
    with pytest.raises(RunError, match="2 of 5 files could not be read; the others are predicted"):
        main(image_run.run.path, given, output=output)
    with output.open() as file:
        assert [row["path"][-5:] for row in csv.DictReader(file)] == ["a.jpg", "b.png", "c.png"]
    assert f"there is no file or folder {tmp_path / 'nowhere.png'}" in caplog.text
    assert f"no image in '{tmp_path / 'empty'}'" in caplog.text
    with pytest.raises(DataError, match=r"no file or folder .*nowhere.png"):
        main(image_run.run.path, [given[0], given[2]])


def test_what_is_no_file_never_hangs_predict(image_run, images, caplog):
    os.mkfifo(images / "pipe.png")
    (images / "more" / "again").symlink_to(images)
    (images / "gone.png").symlink_to(images / "nowhere.png")
    (images / ".ipynb_checkpoints").mkdir()
    shutil.copy(images / "b.png", images / ".ipynb_checkpoints" / "b.png")
    assert len(main(image_run.run.path, [images])) == 3
    assert "special files: 1 (pipe.png)" in caplog.text
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        main(image_run.run.path, [images / "pipe.png"])
    with pytest.raises(DataError, match="no file or folder"):
        main(image_run.run.path, [images / "gone.png"])


def test_names_that_are_no_utf_8_are_printed_and_written(image_run, images, tmp_path, capsys):
    os.rename(images / "b.png", os.path.join(os.fsencode(images), b"caf\xe9.png"))
    output = tmp_path / "out.csv"
    main(image_run.run.path, [images], output=output)
    assert r"caf\xe9.png" in capsys.readouterr().out
    assert r"caf\xe9.png" in output.read_text(encoding="utf-8")


def test_a_run_without_label_space(image_run, tmp_path):
    run = RunDir.create(tmp_path / "young")
    run.config.write_text(image_run.run.config.read_text())
    with pytest.raises(RunError, match=r"label_space.json"):
        load(run.path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda parts: parts.pop("domain_head"), "lacks the parts domain_head"),
        (lambda parts: parts["classifier"].pop("out.bias"), "does not fit the net.*out.bias"),
    ],
)
def test_a_checkpoint_that_does_not_fit(image_run, monkeypatch, spoil, message):
    from tlrun.engine import checkpoint

    state = checkpoint.load(image_run.run.checkpoints / "bnm.pt")
    spoil(state["parts"])
    monkeypatch.setattr("tlrun.inference.predict.checkpoints.load", lambda path: state)
    with pytest.raises(RunError, match=message):
        load(image_run.run.path)


def test_a_method_without_class_scores(image_run, monkeypatch):
    model = load(image_run.run.path)
    assert isinstance(model, Model)
    from tlrun.methods.base import Output

    monkeypatch.setattr(model.method, "predict", lambda *args, **kwargs: Output())
    with pytest.raises(ConfigError, match="gives no class scores"):
        model(raw())


def test_where_every_path_is_absent_each_is_named_or_counted(image_run, tmp_path):
    absent = [tmp_path / f"{name}.png" for name in "abcde"]
    with pytest.raises(DataError, match=r"folder \S*a.png; there is no .*b.png; .*c.png; and 2 m"):
        main(image_run.run.path, absent)
    with pytest.raises(DataError, match=r"a.png; there is no file or folder \S*b.png$"):
        main(image_run.run.path, absent[:2])
