"""A report is made whole or not at all, says what is true, and asks nothing of the network."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
import tempfile
from pathlib import Path
from shutil import copytree

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup

import musicgen_lab.report.make
from musicgen_lab import (
    InvalidRequest,
    ReportFailed,
    RunFolderError,
    Sweep,
    make_report,
)
from musicgen_lab.errors import MusicGenLabWarning
from musicgen_lab.listening.grid import listening_grid
from musicgen_lab.report.export import write_page
from musicgen_lab.report.provenance import command, provenance, python_code
from musicgen_lab.report.sections import heading
from musicgen_lab.report.tables import clip_table
from musicgen_lab.runs.run_table import RunTable
from tests.support.report_runs import make_run
from tests.support.sines import SineBackend

NOTEBOOK = musicgen_lab.report.make.NOTEBOOK


@pytest.fixture(scope="module")
def page(report):
    return BeautifulSoup(report.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """The report of one clip with a title and features, the page alone."""
    run = make_run(tmp_path_factory.mktemp("chosen") / "run")
    (run / "report.ipynb").write_text("the notebook before")
    features = ["tempo_bpm", "rms_dbfs"]
    return make_report(
        run, title="A <new> look", features=features, formats=["html"], progress=False
    )


@pytest.fixture(scope="module")
def chosen_page(chosen):
    return BeautifulSoup(chosen.read_text(encoding="utf-8"), "html.parser")


def use_template(monkeypatch, folder, *cells):
    """Let reports be made from a notebook of these cells."""
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": spec})
    for cell in ('run_folder = "."', *cells):
        notebook.cells.append(nbformat.v4.new_code_cell(cell))
    notebook.cells[0].metadata["tags"] = ["parameters"]
    folder.mkdir()
    nbformat.write(notebook, folder / "notebook.ipynb")
    monkeypatch.setattr(musicgen_lab.report.make, "NOTEBOOK", folder / "notebook.ipynb")


def test_its_kernel_ends_with_it_and_leaves_no_file_behind(run, tmp_path, monkeypatch):
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    use_template(monkeypatch, tmp_path / "template", "print('made')")
    before = psutil.Process().children()

    make_report(run, progress=False)

    assert psutil.Process().children() == before
    assert not list(temporary.glob("*.json"))


def test_it_is_in_the_run_folder_even_if_that_has_braces_and_spaces_in_its_name(report):
    assert "{" in str(report)
    assert sorted(path.name for path in report.parent.glob("report.*")) == [
        "report.html",
        "report.ipynb",
    ]


def test_nothing_in_it_points_to_the_network(report):
    namespace = "http://www.w3.org/1999/xhtml"  # a name, in the script of the players
    page = report.read_text(encoding="utf-8").replace(namespace, "")
    assert not re.search(r"https?:|src=[\"']//|@import|url\(", page)


def test_it_shows_no_code_and_no_path_of_this_machine(report, page):
    assert "table = RunTable.open" not in page.get_text()
    for path in (report, report.with_suffix(".ipynb")):
        written = path.read_text(encoding="utf-8")
        assert str(report.parent.parent) not in written
        assert str(NOTEBOOK.parent) not in written


def test_every_link_leads_to_a_file_beside_it(report, page):
    links = [tag["src"] for tag in page(["img", "audio"])] + [a["href"] for a in page("a")]
    files = [link for link in links if not link.startswith(("data:", "#"))]
    assert len(files) == 7 * 3 + 1  # picture, player and WAV of each clip, and the table
    for link in files:
        assert (report.parent / link).is_file(), link


def test_the_prompt_is_text_and_not_markup(page):
    assert page.h1.get_text() == "“calm <b>guitar</b> & $5 {drums}”"
    assert page.title.get_text() == page.h1.get_text()


def test_it_counts_what_was_made_and_what_was_not(page):
    said = page.find(class_="lead").get_text()
    assert said == "7 clips, 14 s of audio; 1 silent; 1 failed; 1 not made yet."


def test_it_says_first_what_was_swept_and_last_who_made_it(page):
    requested, made = (
        {row.dt.get_text(): row.dd.get_text() for row in facts("div")}
        for facts in page(class_="facts")
    )
    assert [*requested][:2] == ["temperature", "cfg_coef"]
    assert requested["temperature"] == "0.7, 1, 1.3"
    assert requested["cfg_coef"] == "1, 3, 5"
    assert requested["seed"] == "0"
    assert requested["model"] == made["model and revision"] == "sines@1"
    assert "prompt" not in requested  # it is the title
    assert (made["engine"], made["device"], made["precision"]) == ("sines 1", "cpu", "float32")
    assert made["requested at"].endswith(" UTC")


def test_prompts_that_are_not_the_title_are_listed(tmp_path):
    table = RunTable.open(make_run(tmp_path, prompt=["calm guitar", "jazzy piano"]))
    assert "<dt>prompt</dt><dd>calm guitar<br>jazzy piano</dd>" in heading(table).data


def test_parameters_without_effect_are_marked(tmp_path):
    said = heading(RunTable.open(make_run(tmp_path, top_p=0.9))).data
    assert "250 <small>(does nothing: top_p 0.9 replaces it)" in said


def test_the_cost_is_shown(tmp_path):
    free = RunTable.open(make_run(tmp_path, seed=[0, 1]))
    assert "<dt>cost" not in provenance(free).data
    paid = RunTable(free.run, free.frame.assign(gpu="A10", gpu_s=2.5, cost_usd=0.001))
    said = provenance(paid).data
    assert "<dt>GPU</dt><dd>A10</dd>" in said
    assert "<dt>cost</dt><dd>$0.0020 for 5.0 GPU-seconds</dd>" in said


def test_every_panel_has_a_label_and_every_picture_and_player_a_description(page):
    grid = page.find(class_="listening-grid")
    assert len(grid("figure")) == 9
    assert all(figure.figcaption.get_text().strip() for figure in grid("figure"))
    assert all(image["alt"].startswith("Mel spectrogram: temp") for image in grid("img"))
    assert all(player["aria-label"].startswith("Play temperature") for player in grid("audio"))
    assert {player["preload"] for player in grid("audio")} == {"none"}
    assert page.find(class_="figure").img["alt"]


def test_failed_silent_missing_and_attenuated_clips_say_so(page):
    figures = page.find(class_="listening-grid")("figure")
    said = "\n".join(figure.get_text(" ") for figure in figures)
    assert "OutOfMemoryError: no room for <it>" in said
    assert "not made yet" in said
    assert "silent" in said
    assert "peaks 3.5 dB above full scale: played 3.5 dB quieter" in said


def test_the_table_has_every_clip_with_a_dash_for_unknown_values(tmp_path):
    run_table = RunTable.open(make_run(tmp_path, seed=[0, 1, 2], silent=[1], failed=[2]))
    names = ["loudness_lufs", "spectral_centroid_hz", "rms_dbfs"]
    table = BeautifulSoup(clip_table(run_table, names).data, "html.parser")
    ok, silent, failed = (row.get_text("|") for row in table.tbody("tr"))
    assert ok.count("–") == 0
    assert silent.startswith("1|silent|–|–|–|")
    assert failed.startswith("2|failed: OutOfMemoryError: no room for <it>|")


def test_a_run_without_clips_has_a_report_that_says_so(tmp_path):
    table = RunTable.open(make_run(tmp_path, missing=[0]))
    assert "0 clips, 0 s of audio; 1 not made yet." in heading(table).data
    assert "No clip has been made yet" in listening_grid(table).data
    assert "<tbody></tbody>" in clip_table(table).data


def test_the_title_can_be_given(chosen_page):
    assert chosen_page.h1.get_text() == "A <new> look"


def test_a_page_of_up_to_20_mb_holds_all_its_sounds_and_pictures(chosen, chosen_page):
    assert chosen_page.audio["src"].startswith("data:audio/mpeg;base64,")
    assert chosen_page.audio["data-matched"].startswith("data:audio/mpeg;base64,")
    page = chosen.read_text(encoding="utf-8")
    assert not re.search(r'(src|href|data-matched)="(listening|clips|table)', page)


def test_a_page_that_would_be_larger_has_them_beside_it_and_says_so_where_they_are_not(
    report, tmp_path, monkeypatch
):
    monkeypatch.setattr("musicgen_lab.report.export.SELF_CONTAINED_MB_MAX", 0.01)
    run = copytree(report.parent, tmp_path / "run")
    path = write_page(nbformat.read(run / "report.ipynb", as_version=4), run, "title")
    shown = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    assert shown.audio["src"].startswith("listening/")
    assert "lie in the folder listening beside it" in shown.find(class_="without-folder").get_text()


def test_a_file_that_lies_outside_the_run_never_gets_into_the_page(run, tmp_path, monkeypatch):
    (tmp_path / "secret.mp3").write_text("secret")
    link = '<audio src=\\"listening/a.mp3\\">'
    use_template(
        monkeypatch,
        tmp_path / "links",
        "import os; from IPython.display import HTML",
        f"os.makedirs({str(run / 'listening')!r})",
        f"os.symlink({str(tmp_path / 'secret.mp3')!r}, {str(run / 'listening' / 'a.mp3')!r})",
        f'HTML("{link}")',
    )
    with pytest.raises(RunFolderError, match=r"listening/a\.mp3 leads out of .*; delete that link"):
        make_report(run, progress=False)
    assert not (run / "report.html").exists()


def test_the_page_alone_can_be_written_and_other_formats_are_left_alone(chosen):
    assert chosen.name == "report.html" and chosen.stat().st_size > 10_000
    assert chosen.with_suffix(".ipynb").read_text() == "the notebook before"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["html", "docx"]}, r"^unknown format 'docx'; the formats are html and ipynb$"),
        ({"formats": ["pdf"]}, r"unknown format 'pdf'; .*; for a PDF, print the page from a brows"),
        ({"formats": []}, "give at least one format: html or ipynb"),
        ({"formats": ["ipynb"], "self_contained": True}, "only the page can be self-contained"),
    ],
    ids=["unknown", "pdf", "none", "a notebook with its sounds inside"],
)
def test_formats_that_there_are_not_are_refused_before_anything_is_made(run, options, message):
    with pytest.raises(InvalidRequest, match=message):
        make_report(run, **options, progress=False)
    assert not list(run.glob("report.*"))


def test_features_can_be_chosen_and_unknown_ones_are_refused(chosen_page, run):
    heads = chosen_page.find(class_="clips").thead
    assert "TempoBPM" in heads.get_text() and "Loudness" not in heads.get_text()
    with pytest.raises(InvalidRequest, match="unknown feature 'tempo'"):
        make_report(run, features=["tempo"], progress=False)


def test_the_page_answers_in_the_order_in_which_a_reader_asks(page):
    assert [head.get_text() for head in page(["h1", "h2"])][1:] == [
        "Main findings",
        "Listen",
        "Features by parameter",
        "Every clip",
        "Provenance and reproduction",
    ]


def test_the_command_that_makes_it_again_is_on_the_page(page):
    words = shlex.split(page.find("pre").get_text())
    assert words[:4] == ["musicgen-lab", "sweep", "--prompt", "calm <b>guitar</b> & $5 {drums}"]
    assert "--temperature 0.7,1,1.3 --cfg-coef 1,3,5" in " ".join(words)


def test_the_command_has_every_digit_and_says_how_the_clips_were_made(tmp_path):
    fields = {"prompt": "a", "duration": 1, "cfg_coef": 3.3333333, "seed": [123456789, 4294967295]}
    table = Sweep(**fields).run(SineBackend(), tmp_path, progress=False).table
    (design,) = (asked["design"] for asked in table.sweeps)
    assert "--cfg-coef 3.3333333 --seed 123456789,4294967295" in again(design, table)
    for way, option in [
        (("audiocraft 1.3.0", "cpu", "float32"), " --engine audiocraft "),
        (("musicgen-lab 1", "cpu", "bfloat16"), " --dtype bfloat16 "),
        (("musicgen-lab 1", "cuda (NVIDIA A10)", "float32"), " --dtype float32 "),
    ]:
        assert option in again(design, made_by(table, way))
    default = made_by(table, ("musicgen-lab 1", "cpu", "float32"))
    assert not re.search("--engine|--dtype", again(design, default))


def test_what_a_strangers_run_says_is_quoted_in_the_commands(tmp_path):
    fields = {"prompt": "a; touch x", "duration": 1, "temperature": [0.7, 1.3]}
    table = Sweep(**fields).run(SineBackend(), tmp_path / "a; touch y", progress=False).table
    (design,) = (asked["design"] for asked in table.sweeps)
    hostile = made_by(table, ("musicgen-lab 1", "cpu", "float16; touch z"))
    words = shlex.split(again(design, hostile))
    assert {"a; touch x", "a; touch y", "float16; touch z"} <= set(words)
    drawn = design | {"kind": "sample", "n": "4); print(1", "seed": 7, "replicates": 1}
    assert "Sweep.sample('4); print(1', " in again(drawn, table)


def again(design, table):
    return command(design, table.records, table.run)


def made_by(table, way):
    frame = table.frame.copy()
    frame[["engine", "device", "dtype"]] = way
    return RunTable(table.run, frame)


def test_a_damaged_clip_is_reported_when_the_report_is_made(run, tmp_path, monkeypatch):
    use_template(monkeypatch, tmp_path / "template", "1")
    next((run / "clips").glob("*.wav")).write_bytes(b"not a sound")
    with pytest.warns(MusicGenLabWarning, match="is not used: its sound"):
        make_report(run, progress=False)


def test_a_random_design_is_made_again_by_the_same_lines_of_python(tmp_path):
    fields = {"temperature": (0.5, 1.5), "cfg_coef": [1, 5]}  # a range, and a choice of two
    sweep = Sweep.sample(4, prompt="a", seed=7, duration=1, **fields)
    table = sweep.run(SineBackend(), tmp_path, progress=False).table
    (design,) = (asked["design"] for asked in table.sweeps)
    code = again(design, table).splitlines()[2].partition(" = ")[2]
    assert eval(code, {"lab": musicgen_lab}).requests == sweep.requests


def test_a_grid_is_made_again_by_the_lines_of_python_too(tmp_path):
    sweep = Sweep(prompt="a 'b'", duration=1, temperature=[0.5, 1.5], cfg_coef=[1, 3, 5], seed=7)
    table = sweep.run(SineBackend(), tmp_path, progress=False).table
    code = python_code(table.sweeps[0]["design"], table.records, table.run)
    assert "temperature=[0.5, 1.5], cfg_coef=[1, 3, 5], seed=7" in code
    line = code.splitlines()[2].partition(" = ")[2]
    assert eval(line, {"lab": musicgen_lab}).requests == sweep.requests


def test_rows_are_made_again_by_the_same_lines_of_python(tmp_path):
    rows = [{"prompt": "a", "cfg_coef": 3.0}, {"prompt": "b", "top_k": 50}]
    sweep = Sweep.from_rows(rows, duration=1, seed=[0, 1])
    table = sweep.run(SineBackend(), tmp_path, progress=False).table
    code = again(table.sweeps[0]["design"], table).splitlines()[2].partition(" = ")[2]
    assert eval(code, {"lab": musicgen_lab}).requests == sweep.requests


@pytest.mark.parametrize("name", ["titel", "run_folder", "level_range"])
def test_a_parameter_that_the_notebook_does_not_have_is_refused(run, name):
    with pytest.raises(
        InvalidRequest, match=rf"no parameter '{name}'.* are title, features, level_range_db"
    ):
        make_report(run, parameters={name: "x"}, progress=False)
    assert not (run / "report.html").exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        make_report(tmp_path, progress=False)


def test_a_notebook_that_fails_is_one_line_and_leaves_everything_as_it_was(
    run, tmp_path, monkeypatch, capfd
):
    (run / "report.html").write_text("the report before")
    before = contents(run)
    use_template(monkeypatch, tmp_path / "{braces}", "raise ValueError('first line\\nsecond')")
    with pytest.raises(ReportFailed) as failure:
        make_report(run, progress=False)
    assert str(failure.value) == "the report could not be made: ValueError: first line second"
    assert contents(run) == before
    assert capfd.readouterr() == ("", "")


def test_a_kernel_that_dies_is_one_line(run, tmp_path, monkeypatch):
    use_template(monkeypatch, tmp_path / "dies", "import os; os._exit(1)")
    with pytest.raises(ReportFailed, match=r"^the report could not be made: [^\n]+$"):
        make_report(run, progress=False)
    assert not (run / "report.html").exists()


def test_the_notebook_is_run_by_this_interpreter_outside_the_run_folder(run, tmp_path, monkeypatch):
    cell = "import os, sys; print(sys.executable, os.getcwd(), run_folder, sep='\\n')"
    use_template(monkeypatch, tmp_path / "asks", cell)
    make_report(run, progress=False)
    notebook = nbformat.read(run / "report.ipynb", as_version=4)
    printed = notebook.cells[-1].outputs[0].text.splitlines()
    assert printed == [sys.executable, run.anchor, str(run)]
    assert 'run_folder = "."' in notebook.cells[1].source


def contents(folder: Path):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
