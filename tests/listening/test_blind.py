"""Blind listening: questions are fair and give nothing away, and answers are kept."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab import Clip, InvalidRequest, RunFolderUnwritable
from musicgen_lab.analysis.levels import loudness_lufs
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.clip import decode_audio
from musicgen_lab.listening.blind.session import REPEAT_EVERY, BlindSession
from musicgen_lab.listening.blind.sounds import equal_sounds
from musicgen_lab.listening.blind.widget import blind_widget
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.run_table import RunTable
from tests.support.report_runs import beats, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two prompts, two temperatures, two cfg_coefs and three seeds, without one clip."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "run",
        prompt=["calm guitar", "loud drums"],
        temperature=[0.7, 1.3],
        cfg_coef=[1, 3],
        seed=[0, 1, 2],
        failed=[0],
        silent=[1],
    )


@pytest.fixture
def table(folder, tmp_path):
    return RunTable.of(RunTable.open(folder).run.copy_to(tmp_path / "run"))


def record(table, key):
    (row,) = table.rows[table.rows["key"] == key].to_dict("records")
    return row


def answer_all(session, choose, *, most=60):
    """Answer up to so many questions; return the trials."""
    trials = []
    while session.trial is not None and len(trials) < most:
        trials.append(session.trial)
        session.answer(session.trial.id, **choose(session.trial))
    return trials


def prefer_a(trial):
    return {"choice": "a"}


def test_pairs_are_of_one_prompt_and_no_pair_comes_twice_but_as_a_hidden_repeat(table):
    session = BlindSession(table, "Ada", seed=1)
    trials = answer_all(session, prefer_a)
    for trial in trials:
        a, b = (record(table, key) for key in trial.clips)
        assert a["prompt"] == b["prompt"] and a["key"] != b["key"]
        assert a["status"] == b["status"] == "ok"
    new = [frozenset(trial.clips) for trial in trials if trial.repeats is None]
    assert len(set(new)) == len(new)
    repeats = [index for index, trial in enumerate(trials) if trial.repeats is not None]
    assert repeats == list(range(REPEAT_EVERY - 1, len(trials), REPEAT_EVERY))


def test_a_hidden_repeat_asks_the_same_two_clips_with_sides_exchanged(table):
    session = BlindSession(table, "Ada", seed=1)
    trials = answer_all(session, prefer_a, most=REPEAT_EVERY)
    answers = {answer.id: answer for answer in table.run.answers.read()}
    repeated = answers[trials[-1].repeats]
    assert trials[-1].clips == (repeated.b, repeated.a)
    assert repeated.id in [answer.id for answer in [*answers.values()][:-4]]


def test_every_clip_is_heard_before_any_is_heard_often(table):
    session = BlindSession(table, "Ada", seed=2)
    trials = answer_all(session, prefer_a, most=15)  # there are 23 clips
    heard = [key for trial in trials if trial.repeats is None for key in trial.clips]
    assert max(heard.count(key) for key in heard) <= 2
    assert len(set(heard)) >= 22


def test_sides_are_drawn_at_random(table):
    session = BlindSession(table, "Ada", seed=3)
    trials = answer_all(session, prefer_a)
    order = {key: index for index, key in enumerate(table.rows["key"])}
    first = sum(order[trial.clips[0]] < order[trial.clips[1]] for trial in trials)
    assert 15 < first < 45  # of 60: six in ten thousand fair ones are outside


def test_a_later_session_goes_on_where_the_last_one_ended(table):
    first = BlindSession(table, "Ada", seed=1)
    trials = answer_all(first, prefer_a, most=5)
    open_question = first.trial
    assert first.trial is open_question  # it stays until it is answered
    second = BlindSession(table, "Ada", seed=1)
    assert second.answered == 5
    later = answer_all(second, prefer_a, most=2)
    assert not {frozenset(t.clips) for t in trials} & {frozenset(t.clips) for t in later}
    assert BlindSession(table, "ada").listener == "Ada"
    assert BlindSession(table, "Bo").answered == 0


def test_when_all_pairs_are_answered_there_is_no_further_question(tmp_path):
    table = RunTable.open(make_run(tmp_path / "run", seed=[0, 1, 2]))
    session = BlindSession(table, "Ada")
    assert len(answer_all(session, prefer_a)) == 3
    assert session.trial is None


def test_equal_recordings_are_compared_with_others_and_not_with_each_other(tmp_path):
    table = RunTable.open(make_run(tmp_path / "run", top_k=[50, 250], seed=[0, 1]))
    assert table.rows["audio_sha256"].nunique() == 2  # top_k does nothing here
    assert len(answer_all(BlindSession(table, "Ada"), prefer_a)) == 1


def test_in_abx_a_and_b_differ_in_one_parameter_and_x_is_another_seed_of_one_of_them(table):
    session = BlindSession(table, "Ada", "abx", seed=1)
    trials = answer_all(session, prefer_a)
    apart_counts = {"temperature": 0, "cfg_coef": 0}
    for trial in trials:
        a, b, x = (record(table, key) for key in trial.clips)
        apart = [name for name in table.swept if a[name] != b[name]]
        assert len(apart) == 1
        apart_counts[apart[0]] += 1
        target = a if trial.x_is == "a" else b
        assert all(x[name] == target[name] for name in table.parameters)
        assert x["seed"] != target["seed"]
    assert apart_counts == {"temperature": 30, "cfg_coef": 30}
    assert 15 < sum(trial.x_is == "a" for trial in trials) < 45


def test_with_one_seed_x_is_one_of_the_two_clips_and_the_ends_of_a_parameter_are_asked(tmp_path):
    table = RunTable.open(make_run(tmp_path / "run", temperature=[0.5, 1, 1.5]))
    trials = answer_all(BlindSession(table, "Ada", "abx"), prefer_a, most=10)
    for trial in trials:
        assert trial.clips[2] == trial.clips[0 if trial.x_is == "a" else 1]
        assert {record(table, key)["temperature"] for key in trial.clips} == {0.5, 1.5}


def test_every_clip_is_rated_once_and_some_again(table):
    session = BlindSession(table, "Ada", "rate", seed=1)
    trials = answer_all(session, lambda trial: {"quality": 50, "fit": None})
    new = [trial.clips for trial in trials if trial.repeats is None]
    assert len(set(new)) == len(new) == 23
    assert sum(trial.repeats is not None for trial in trials) == 3


def test_clips_of_a_trial_are_cut_to_the_shortest(tmp_path):
    table = RunTable.open(make_run(tmp_path / "run", duration=[1, 2, 3]))
    pairs = BlindSession(table, "Ada")
    lengths = {record(table, key)["duration_s"] for key in pairs.trial.clips}
    assert pairs.length_s(pairs.trial) == min(lengths)
    rate = BlindSession(table, "Ada", "rate")
    assert rate.length_s(rate.trial) == 1


def request(**fields):
    return GenerationRequest(prompt="a", seed=0, **fields)


def test_sounds_have_one_length_size_format_and_loudness():
    clips = [
        beats(request(duration=3), gain=0.1),
        beats(request(duration=2, temperature=1.3), sample_rate=32_000, channels=2),
    ]
    sounds = equal_sounds(clips, 2.0)
    assert len({len(sound) for sound in sounds}) == 1
    decoded = [decode_audio(sound) for sound in sounds]
    assert {(samples.shape, rate) for samples, rate in decoded} == {((2, 64_000), 32_000)}
    levels = [loudness_lufs(Sound(samples, rate)) for samples, rate in decoded]
    assert levels == pytest.approx([-23, -23], abs=0.05)


def test_where_peaks_leave_no_room_all_are_quieter_and_still_equally_loud():
    click = np.zeros((1, 32_000), np.float32)
    click[0, ::8000] = 1
    even = beats(request(duration=2))
    peaky = Clip(even.request, click, even.sample_rate, even.provenance, 0.1)
    decoded = [decode_audio(sound) for sound in equal_sounds([peaky, even], 2.0)]
    levels = [loudness_lufs(Sound(samples, rate)) for samples, rate in decoded]
    assert levels[0] == pytest.approx(levels[1], abs=0.1) and levels[0] < -24
    assert max(np.abs(samples).max() for samples, _ in decoded) <= 1


def test_silence_stays_silent():
    decoded, _ = decode_audio(equal_sounds([beats(request(duration=2), gain=0)], 2.0)[0])
    assert not decoded.any()


MISTAKES = {
    "a choice that there is not": ({"choice": "c"}, "choice"),
    "no choice": ({}, "choice"),
    "a rating of a pair": ({"choice": "a", "quality": 5}, "quality"),
    "a comment that is too long": ({"choice": "a", "comment": "x" * 1001}, "comment"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistaken_answer_is_refused_by_name_and_the_question_stays(table, mistake):
    given, field = MISTAKES[mistake]
    session = BlindSession(table, "Ada")
    trial = session.trial
    with pytest.raises(InvalidRequest) as refused:
        session.answer(trial.id, **given)
    assert refused.value.field == field
    assert session.trial is trial
    assert session.answered == 0


def test_a_question_is_answered_once(table):
    session = BlindSession(table, "Ada")
    trial = session.trial
    session.answer(trial.id, choice="a")
    with pytest.raises(InvalidRequest, match="this question is not open any more"):
        session.answer(trial.id, choice="b")


def test_what_cannot_be_listened_to_is_refused_before_the_first_question(tmp_path):
    one = RunTable.open(make_run(tmp_path / "one", seed=[0]))
    for mode, fault in (("pairs", "needs two clips of one prompt"), ("abx", "sweep a parameter")):
        with pytest.raises(InvalidRequest, match=fault):
            BlindSession(one, "Ada", mode)
    with pytest.raises(InvalidRequest, match="mode must be one of pairs, abx, rate, got 'best'"):
        BlindSession(one, "Ada", "best")
    with pytest.raises(InvalidRequest, match="listener must be a name"):
        BlindSession(one, "", "rate")
    (one.folder / "answers").write_text("in the way")
    with pytest.raises(RunFolderUnwritable):
        BlindSession(one, "Ada", "rate")


def pressed(widget, name):
    """Press a widget's button."""
    _, *_, choices, _ = widget.children
    (button,) = (button for button in choices.children if button.description == name)
    button.click()


@pytest.mark.parametrize(
    ("mode", "button", "field", "value"),
    [
        ("pairs", "No difference", "choice", "none"),
        ("abx", "X is like B", "choice", "b"),
        ("rate", "Next", "quality", 50),
        ("rate", "Skip", "fit", None),
    ],
)
def test_in_a_notebook_a_press_answers_and_shows_the_next_question(
    table, mode, button, field, value
):
    session = BlindSession(table, "Ada <3", mode)
    widget = blind_widget(session)
    shown = widget.children[0].value
    assert shown.count("<audio controls") == {"pairs": 2, "abx": 3, "rate": 1}[mode]
    assert not [key for key in table.rows["key"] if key in shown]
    widget.children[-1].value = "too quiet"
    pressed(widget, button)
    (answer,) = table.run.answers.read()
    assert (getattr(answer, field), answer.comment) == (value, "too quiet")
    assert widget.children[0].value != shown
    assert widget.children[0].value.startswith("<p>Ada &lt;3: 1 answer so far.</p>")
    assert widget.children[-1].value == ""


def test_in_a_notebook_an_answer_that_cannot_be_written_is_asked_again(table):
    session = BlindSession(table, "Ada")
    widget = blind_widget(session)
    (table.folder / "answers" / "ada.jsonl").mkdir()
    pressed(widget, "Prefer A")
    assert "cannot write to" in widget.children[0].value
    assert session.answered == 0


def test_in_a_notebook_the_last_question_is_followed_by_thanks(tmp_path):
    widget = blind_widget(
        BlindSession(RunTable.open(make_run(tmp_path / "run", seed=[0, 1])), "Ada")
    )
    pressed(widget, "Prefer B")
    assert "All questions are answered" in widget.children[0].value
