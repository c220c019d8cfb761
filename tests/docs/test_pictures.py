"""The pictures are those that their data draws, and every one stands on a page, told in words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "pictures"
DRAWN = sorted(PICTURES.glob("*.svg"))
SHOWN = [
    (page, words, (page.parent / target).resolve())
    for page in sorted(DOCS.rglob("*.md"))
    for words, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text())
]


def test_the_pictures_are_current(tmp_path):
    for name in ("draw.py", "pictures.py"):
        (tmp_path / name).write_text((PICTURES / name).read_text())
    subprocess.run([sys.executable, "draw.py"], cwd=tmp_path, check=True)
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_text() for path in DRAWN}, "run: python docs/pictures/draw.py"
    assert len(drawn) > 10


@pytest.mark.parametrize("picture", DRAWN, ids=lambda path: path.stem)
def test_a_picture_is_readable_in_light_and_dark_and_stands_on_a_page(picture):
    root = ElementTree.parse(picture).getroot()
    name = {"svg": "http://www.w3.org/2000/svg"}
    assert root.attrib["aria-label"]
    assert root.find("svg:rect[@class='ground']", name) is not None
    assert "prefers-color-scheme: dark" in (root.findtext("svg:style", namespaces=name) or "")
    assert [page for page, _, target in SHOWN if target == picture]


@pytest.mark.parametrize(
    ("page", "words", "target"), SHOWN, ids=lambda value: value.stem if isinstance(value, Path) else ""
)
def test_a_picture_is_told_in_words(page, words, target):
    assert len(words) > 60, f"{page.name}: the text in place of {target.name} says too little"
