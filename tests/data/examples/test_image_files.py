"""Which files are images, what is left out, and that nothing hangs."""

import os
import socket

import pytest

from helpers.data_files import write_image
from tlrun.data.examples import image_files
from tlrun.data.examples.image_files import LeftOut, extensions, find_images, list_folder, text_of
from tlrun.errors import DataError


def names(found):
    return sorted(p.name for p in found)


def test_extensions_are_those_of_pillow():
    wanted = {".jpg", ".jfif", ".jpe", ".avif", ".jp2", ".png", ".webp", ".tga", ".qoi", ".ppm"}
    assert wanted <= extensions()
    assert not {".h5", ".mpg", ".eps", ".ps", ".txt", ".npy"} & extensions()


def test_what_pillow_reads_is_read_whatever_its_name(tmp_path):
    image = write_image(tmp_path / "source.png", 0).read_bytes()
    for name in ("a.jfif", "b.jpe", "c.JPG"):
        write_image(tmp_path / "x.jpg", 1).rename(tmp_path / name)
    for name in ("plain", "sample_0.5", "IMG.0001"):
        (tmp_path / name).write_bytes(image)
    for name in ("notes.txt", "table.csv", "readme", "IMG.0002", "text_is_no.5"):
        (tmp_path / name).write_text("P1 or BM: no image, only text")
    (tmp_path / "photo.txt").write_bytes(image)  # called a text
    left_out = LeftOut()
    assert names(find_images(tmp_path, left_out)) == [
        "IMG.0001",
        "a.jfif",
        "b.jpe",
        "c.JPG",
        "plain",
        "sample_0.5",
        "source.png",
    ]
    assert "not images: 6 (" in str(left_out)
    assert not left_out.only_hidden


def test_hidden_names_are_passed_over_at_every_level(tmp_path):
    for name in (
        "a.png",
        "._a.png",
        ".ipynb_checkpoints/a-checkpoint.png",
        "__MACOSX/._a.png",
        "__MACOSX/a.png",
        "deep/.cache/deeper/a.png",
        "deep/b.png",
    ):
        write_image(tmp_path / name, 0)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    left_out = LeftOut()
    assert names(find_images(tmp_path, left_out)) == ["a.png", "b.png"]
    assert left_out.only_hidden
    assert str(left_out).startswith("hidden: 6 (")
    hidden_root = tmp_path / ".cache"
    write_image(hidden_root / "c.png", 0)
    assert names(find_images(hidden_root, LeftOut())) == ["c.png"]  # asked for by name


def test_links_are_followed_once_and_never_in_circles(tmp_path):
    write_image(tmp_path / "elsewhere" / "1.png", 0)
    write_image(tmp_path / "root" / "sub" / "2.png", 1)
    root = tmp_path / "root"
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "sub")  # its images have their own path already
    (root / "up").symlink_to(tmp_path)
    (root / "sub" / "self").symlink_to(root / "sub")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "3.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    left_out = LeftOut()
    assert [str(p.relative_to(root)) for p in find_images(root, left_out)] == [
        "3.png",
        "linked/1.png",
        "sub/2.png",
    ]
    assert "broken links: 2 (gone.png, loop.png)" in str(left_out)
    assert "links to a folder around them: 2 (" in str(left_out)


def test_pipes_sockets_and_devices_are_named_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        left_out = LeftOut()
        assert find_images(tmp_path, left_out) == []
    assert "special files: 3 (" in str(left_out)


def test_a_folder_that_cannot_be_opened(tmp_path, monkeypatch):
    write_image(tmp_path / "a" / "1.png", 0)
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(image_files.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot open the folder '.*b' \(Permission denied\)"):
        find_images(tmp_path, LeftOut())
    left_out = LeftOut(skip_unreadable=True)
    assert names(find_images(tmp_path, left_out)) == ["1.png"]
    assert str(left_out) == "cannot be opened: 1 (b)"


def test_a_name_that_is_no_utf_8(tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(odd, "wb") as file:
        file.write(write_image(tmp_path / "a.png", 0).read_bytes())
    files, _ = list_folder(tmp_path, LeftOut())
    assert [text_of(f.name) for f in files] == ["a.png", r"caf\xe9.png"]
