"""A drawing carries its words with it and is saved in every format that is printed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from musicgen_lab import InvalidRequest
from musicgen_lab.figures.heatmap import plot_heatmap
from musicgen_lab.runs.run_table import RunTable
from tests.support.report_runs import make_run


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    fields = {"temperature": [0.7, 1], "cfg_coef": [1, 3]}
    table = RunTable.open(make_run(tmp_path_factory.mktemp("run"), **fields))
    return plot_heatmap(table, "rms_dbfs")


def test_png_and_svg_contain_the_alt_text(drawing, tmp_path):
    assert Image.open(drawing.save(tmp_path / "a.png")).text["Description"] == drawing.alt
    root = ET.parse(drawing.save(tmp_path / "a.svg")).getroot()
    words = "".join(root.itertext())
    assert drawing.alt in words
    assert "cfg_coef" in words  # texts stay texts, to be searched and edited


def test_an_svg_is_the_same_each_time(drawing):
    assert drawing.svg() == drawing.svg()


def test_another_ending_is_refused(drawing, tmp_path):
    with pytest.raises(InvalidRequest, match=r"saved as \.png, \.svg or \.pdf, got 'a\.gif'"):
        drawing.save(tmp_path / "a.gif")


def test_a_notebook_and_a_page_show_it_with_its_words(drawing):
    light, dark = BeautifulSoup(drawing._repr_html_(), "html.parser")("img")
    assert light["alt"] == dark["alt"] == drawing.alt
    assert light["src"] != dark["src"]
    assert dark.has_attr("hidden")  # until what shows it says that it is dark


def test_drawing_it_dark_changes_nothing_for_later(drawing):
    before = drawing.png()
    assert drawing.png(dark=True) != before
    assert drawing.png() == before


def test_a_pdf_embeds_its_fonts_as_truetype(drawing, tmp_path):
    content = drawing.save(tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in content  # a TrueType program
    assert b"/Type3" not in content
