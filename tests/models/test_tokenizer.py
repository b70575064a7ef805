"""Prompts that a text encoder cannot read are told, and two that it cannot tell apart refused."""

from __future__ import annotations

import pytest

from musicgen_lab.backends.local import LocalBackend
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from musicgen_lab.models.prompt_tokens import check_prompts
from musicgen_lab.models.tokenizer import open_tokenizer, read_prompt
from musicgen_lab.sweep import Sweep


@pytest.fixture(scope="module")
def tokenizer():
    return open_tokenizer(EMBEDDED_FOLDER)


def test_english_is_read_and_what_is_not_is_named(tokenizer):
    assert read_prompt(tokenizer, "calm acoustic guitar melody, 80s!").unread == ()
    assert read_prompt(tokenizer, "calm 静かな guitar Техно").unread == ("静かな", "Техно")


def test_two_prompts_that_become_the_same_tokens_are_refused(tokenizer):
    with pytest.raises(InvalidRequest, match=r"'静かな曲' and '速いドラム' become the same tokens"):
        check_prompts(
            {p: read_prompt(tokenizer, p) for p in ("calm guitar", "静かな曲", "速いドラム")}
        )


def test_only_the_first_of_many_unknown_words_are_listed(tokenizer):
    prompt = "あ い う え お か"
    (note,) = check_prompts({prompt: read_prompt(tokenizer, prompt)})
    assert "does not know あ, い, う, え, お, … in the prompt" in note


def test_a_sweep_warns_of_a_prompt_and_refuses_two_that_are_the_same_to_the_model():
    backend = LocalBackend("demo")
    with pytest.warns(MusicGenLabWarning, match="does not know 静かな in the prompt"):
        Sweep(prompt="静かな guitar", duration=1).plan(backend)
    with pytest.raises(InvalidRequest, match="become the same tokens"):
        Sweep(prompt=["静かな曲", "速いドラム"], duration=1).plan(backend)
