"""Answers of listeners are kept line by line, and what a crash or a merge does to them is known."""

from __future__ import annotations

import json

import pytest

from musicgen_lab import InvalidRequest, MusicGenLabWarning, RunFolderUnwritable
from musicgen_lab.runs.answers import AnswerStore, PairAnswer, RatingAnswer, check_listener
from musicgen_lab.runs.run_folder import RunFolder
from tests.support.report_runs import make_run

A, B = "a" * 64, "b" * 64


def pair(number, *, listener="Ada", choice="a"):
    return PairAnswer(
        id=f"{number:032x}", listener=listener, session="0" * 32, a=A, b=B, choice=choice
    )


@pytest.fixture
def store(tmp_path):
    return AnswerStore(tmp_path / "answers")


def test_answers_come_back_as_they_were_given(store):
    given = [
        pair(1),
        RatingAnswer(
            id="f" * 32, listener="Bo", session="0" * 32, clip=A, quality=70, fit=0, comment="ä\n"
        ),
        pair(2, choice="skip"),
    ]
    for answer in given:
        store.append(answer)
    assert store.read() == sorted(given, key=lambda answer: (answer.answered_at, answer.id))
    assert sorted(path.name for path in store.folder.iterdir()) == ["ada.jsonl", "bo.jsonl"]


def test_a_line_that_was_cut_off_takes_no_other_with_it(store):
    store.append(pair(1))
    path = store.folder / "ada.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert store.read() == [store.read()[0]]
    store.append(pair(2))
    with pytest.warns(MusicGenLabWarning, match=r"ada\.jsonl has 1 damaged line, which is not"):
        assert [answer.id[-1] for answer in store.read()] == ["1", "2"]


def test_files_are_merged_by_concatenation_and_an_answer_counts_once(store):
    for number in (1, 2):
        store.append(pair(number))
    path = store.folder / "ada.jsonl"
    (store.folder / "from_elsewhere.jsonl").write_bytes(2 * path.read_bytes())
    assert len(store.read()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "c"},
        {"a": "../../etc/passwd"},
        {"listener": "x" * 61},
        {"listener": " "},
        {"answered_at": "yesterday"},
        {"comment": "x" * 1001},
        {"surprise": 1},
    ],
    ids=str,
)
def test_lines_that_no_session_wrote_are_not_counted(store, change):
    store.append(pair(1))
    fields = pair(2).model_dump() | change
    with (store.folder / "ada.jsonl").open("ab") as file:
        file.write(json.dumps(fields).encode() + b"\n{not json}\n")
    with pytest.warns(MusicGenLabWarning, match="damaged line"):
        assert [answer.id[-1] for answer in store.read()] == ["1"]


def test_a_link_out_of_the_folder_is_neither_read_nor_written(store, tmp_path):
    store.folder.mkdir()
    (tmp_path / "elsewhere").write_text(pair(1).model_dump_json() + "\n")
    (store.folder / "ada.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(MusicGenLabWarning, match="a link that leaves the folder"):
        assert store.read() == []
    with pytest.raises(RunFolderUnwritable):
        store.append(pair(2))


@pytest.mark.parametrize("name", ["", " Ada", "a\nb", "x" * 61])
def test_a_listener_needs_a_name_on_one_line(name):
    with pytest.raises(InvalidRequest, match="listener must be a name of 1 to 60 characters"):
        check_listener(name)


def test_a_copy_of_a_run_keeps_the_answers_of_both(tmp_path):
    run = RunFolder(make_run(tmp_path / "run", seed=[0, 1]))
    run.answers.append(pair(1))
    copy = run.copy_to(tmp_path / "copy")
    copy.answers.append(pair(2))
    run.answers.append(pair(3))
    copy = run.copy_to(tmp_path / "copy")
    assert [answer.id[-1] for answer in copy.answers.read()] == ["1", "2", "3"]


def test_a_run_that_lost_its_list_of_sweeps_may_have_answers(tmp_path):
    run = RunFolder(make_run(tmp_path / "run", seed=[0]))
    run.answers.append(pair(1))
    run.manifest_path.unlink()
    with pytest.warns(MusicGenLabWarning, match=r"has lost its sweep\.json"):
        assert len(RunFolder.started(run.path).answers.read()) == 1


def test_a_name_in_capitals_is_the_same_listener_spelt_as_at_first(store):
    for number, listener in enumerate(("Ada", "ADA", "Bo", "ada")):
        store.append(pair(number, listener=listener))
    assert [answer.listener for answer in store.read()] == ["Ada", "Ada", "Bo", "Ada"]
