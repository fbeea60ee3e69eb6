"""Sections with images: shown as they are, left out with the reason where they are damaged."""

import json
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.pages.write import write_report
from tlrun.report.read.own_images import MOST, read_images
from tlrun.run_folder.run_dir import RunDir

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def section(name: str = "by_class", **image: object) -> dict:
    cell = {"data": PNG, "text": "under <it>", "alt": 'a "dog"', **image}
    groups = [{"title": "source", "images": [cell]}, {"title": "target", "images": []}]
    rows = [{"title": title, "groups": groups} for title in ("dog", "cat")]
    return {"name": name, "title": f"Section {name}", "text": "All 2 classes.", "rows": rows}


def write(path: Path, *entries: object) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.usefixtures("no_plots")
def test_sections_stand_on_the_page(tmp_path: Path) -> None:
    run = RunDir(make_run(tmp_path / "run", images=20))
    write(run.images, section(), section("mistakes"))
    page = Page(write_report(run.path))
    page.assert_self_contained()
    assert page.tags.count("img") == 4
    for expected in ("Section by_class", "All 2 classes.", "under <it>", "dog", "no image"):
        assert expected in page.text, expected
    assert page.text.count("source") < page.text.count("under <it>") + 20
    assert "Most confident errors" not in page.text  # the images are in its place
    assert "Their files" in page.text
    assert 'alt="a &#34;dog&#34;"' in page.source
    assert page.text.index("Figures, in percent") < page.text.index("Section by_class")


@pytest.mark.usefixtures("no_plots")
def test_without_images_the_errors_are_a_table(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", images=60)))
    assert "Most confident errors" in page.text
    assert "Their files" not in page.text


def test_titles_of_groups_are_given_once(tmp_path: Path) -> None:
    ((found,), left_out) = read_images(write(tmp_path / "i.json", section()))
    assert not left_out
    assert [row.titled for row in found.rows] == [True, False]
    image = found.rows[0].groups[0].images[0]
    assert image.address == f"data:image/png;base64,{PNG}"
    assert image.tiny


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (section(data="PHN2Zz4="), "no PNG or JPEG"),  # <svg>
        (section(data=PNG[:-7] + "!"), "no base64"),
        (section(data=None), "no PNG or JPEG"),
        (section(data="iVBORw0KGgoA" + "A" * MOST), "larger than"),
        ({**section(), "rows": []}, "no image"),
        ({**section(), "rows": [3]}, "'rows' is no list of objects"),
        ({**section(), "rows": [{"title": "a"}]}, "'groups' is no list of objects"),
        ({**section(), "name": "../x"}, "its name is"),
        (7, "it is no object"),
    ],
)
def test_what_does_not_fit_is_left_out_with_the_reason(
    tmp_path: Path, damaged: object, why: str
) -> None:
    sections, left_out = read_images(write(tmp_path / "i.json", damaged, section("good")))
    assert [found.name for found in sections] == ["good"]
    ((_, reason),) = left_out
    assert why in reason


def test_no_file_no_images(tmp_path: Path) -> None:
    assert read_images(tmp_path / "images.json") == ([], [])
    (tmp_path / "images.json").write_text("{")
    sections, left_out = read_images(tmp_path / "images.json")
    assert (sections, len(left_out)) == ([], 1)
