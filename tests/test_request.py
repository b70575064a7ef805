"""A request is checked in one place, never changes, and has one key everywhere."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import LATER_DEFAULTS, plain_number
from musicgen_lab.request import GenerationRequest, ignored_by_choice
from tests.support.sources import hum

FIELDS = {
    "prompt": st.text(st.characters(codec="utf-8"), min_size=1, max_size=1000).filter(str.strip),
    "duration": st.floats(1, 300),
    "temperature": st.floats(0, 10),
    "top_k": st.integers(0, 2048),
    "top_p": st.floats(0, 1),
    "cfg_coef": st.floats(0, 100),
    "seed": st.integers(0, 2**32 - 1),
    "model": st.none() | st.text("abc/-@.", min_size=1, max_size=30),
    "negative_prompt": st.text(st.characters(codec="utf-8"), max_size=1000),
    "prompt_b": st.text(st.characters(codec="utf-8"), max_size=1000),
    "mix": st.floats(0, 1),
    "extend_stride": st.floats(1, 29),
    "begin_with": st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    "begin_at": st.floats(0, 600),
    "begin_s": st.none() | st.floats(0.1, 0.8),
    "include_start": st.booleans(),
}
REQUESTS = st.fixed_dictionaries(FIELDS)


def test_defaults_are_those_of_the_service():
    request = GenerationRequest(prompt="calm acoustic guitar melody", seed=1)
    assert request.model_dump() == {
        "prompt": "calm acoustic guitar melody",
        "duration": 8.0,
        "temperature": 1.0,
        "top_k": 250,
        "top_p": 0.0,
        "cfg_coef": 3.0,
        "seed": 1,
        "model": None,
    }


@pytest.mark.parametrize("seed", [{}, {"seed": None}])
def test_a_seed_that_is_not_given_is_drawn_once_and_kept(seed):
    drawn = {GenerationRequest(prompt="a", **seed).seed for _ in range(20)}
    assert len(drawn) > 15
    assert all(0 <= one < 2**32 for one in drawn)
    request = GenerationRequest(prompt="a", **seed)
    assert request.key() == request.key()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": "warm"}, "temperature must be a number from 0 to 10, got 'warm'"),
        ({"temperature": -0.1}, "temperature must be a number from 0 to 10, got -0.1"),
        ({"temperature": True}, "temperature must be a number from 0 to 10, got True"),
        ({"duration": 301}, "duration must be a number from 1 to 300 seconds, got 301"),
        ({"duration": 0.99}, "duration must be a number from 1 to 300 seconds, got 0.99"),
        ({"duration": 10**400}, "duration must be a number from 1 to 300 seconds, got 1"),
        ({"extend_stride": 30}, "extend_stride must be a number from 1 to 29 seconds, got 30"),
        ({"mix": 1.1}, "mix must be a number from 0 to 1, got 1.1"),
        ({"negative_prompt": "x" * 1001}, "negative_prompt must be text of up to 1,000 characters"),
        ({"begin_with": "song.wav"}, "begin_with must be a Source, or the SHA-256 of one"),
        ({"begin_s": 0}, "begin_s must be a number from 0.1 to 300 seconds, got 0"),
        ({"begin_at": -1}, "begin_at must be a number from 0 to 600 seconds, got -1"),
        ({"include_start": 1}, "include_start must be true or false, got 1"),
        ({"cfg_coef": math.nan}, "cfg_coef must be a number from 0 to 100, got nan"),
        ({"cfg_coef": math.inf}, "cfg_coef must be a number from 0 to 100, got inf"),
        ({"cfg_coef": "3"}, "cfg_coef must be a number from 0 to 100, got '3'"),
        ({"top_k": 1.5}, "top_k must be a whole number from 0 to 2,048, got 1.5"),
        ({"top_k": 2049}, "top_k must be a whole number from 0 to 2,048, got 2049"),
        ({"top_p": 1.01}, "top_p must be a number from 0 to 1, got 1.01"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        ({"prompt": ""}, "prompt must be text of 1 to 1,000 characters, got an empty one"),
        ({"prompt": " \n"}, "prompt must be text of 1 to 1,000 characters, got an empty one"),
        ({"prompt": "x" * 10_000}, "got 10000 characters; shorten it"),
        ({"prompt": "\ud800"}, "not valid Unicode"),
        ({"prompt": 7}, "prompt must be text of 1 to 1,000 characters, got 7"),
        ({"prompt": None}, "prompt must be text of 1 to 1,000 characters, got None"),
        ({"model": ""}, "model must be text of 1 to 500 characters, got an empty one"),
        ({"cfg_coeff": 3}, "unknown field 'cfg_coeff' (did you mean cfg_coef?)"),
        ({"self": 3}, "unknown field 'self'"),
        ({"temperature": "0,7"}, "got '0,7'; with a decimal point it is 0.7"),
        ({"bpm": 3}, "unknown field 'bpm'; the fields are prompt, duration"),
    ],
)
def test_bad_values_are_refused_with_the_value_the_limit_and_the_way_out(fields, message):
    with pytest.raises(InvalidRequest) as error:
        GenerationRequest(**{"prompt": "a", **fields})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.field in fields


def test_a_missing_prompt_is_named():
    with pytest.raises(InvalidRequest, match="prompt is required"):
        GenerationRequest()


@pytest.mark.parametrize(
    ("given_number", "meant"),
    [
        (0.7999999999999999, 0.8),  # np.arange(0.5, 1, 0.1)[3]
        (0.30000000000000004, 0.3),
        (np.float32(0.7), 0.7),
        (float(np.float32(0.7)), 0.7),
        (np.float16(0.7), 0.7),
        (np.linspace(0.5, 1.5, 7)[1], 0.666666666667),
        (np.array(0.9, dtype=np.float32), 0.9),
        (1 / 3, 0.333333333333),
        (-0.0, 0.0),
        (1.015625, 1.015625),
    ],
)
def test_a_computed_number_is_the_decimal_that_was_meant(given_number, meant):
    request = GenerationRequest(prompt="a", temperature=given_number, seed=0)
    typed = GenerationRequest(prompt="a", temperature=meant, seed=0)
    assert repr(request.temperature) == repr(meant)
    assert request.key() == typed.key()


@given(st.decimals("0.001", "10", places=6).map(float))
def test_a_decimal_of_nine_digits_is_kept_as_it_is_typed(number):
    for kind in (float, np.float64):
        assert GenerationRequest(prompt="a", temperature=kind(number)).temperature == number
    request = GenerationRequest(prompt="a", temperature=np.float32(number))
    assert np.float32(request.temperature) == np.float32(number)


@given(REQUESTS)
def test_every_request_within_the_limits_survives_json(fields):
    request = GenerationRequest(**fields)
    again = GenerationRequest(**json.loads(json.dumps(request.model_dump())))
    assert again == request
    assert again.key() == request.key()


@given(REQUESTS, st.randoms(use_true_random=False))
def test_the_key_does_not_depend_on_the_order_of_fields(fields, random):
    shuffled = list(fields.items())
    random.shuffle(shuffled)
    assert GenerationRequest(**dict(shuffled)).key() == GenerationRequest(**fields).key()


@given(REQUESTS, st.data())
def test_the_key_changes_with_every_field(fields, data):
    name = data.draw(st.sampled_from(list(FIELDS)))
    value = data.draw(
        FIELDS[name].filter(lambda value: plain_number(value) != plain_number(fields[name]))
    )
    assert GenerationRequest(**{**fields, name: value}).key() != GenerationRequest(**fields).key()


def test_equal_numbers_of_other_types_have_the_same_key():
    one = GenerationRequest(prompt="a", temperature=1.0, cfg_coef=3.0, top_p=0.0, seed=2)
    numpy = GenerationRequest(
        prompt="a",
        temperature=np.float64(1),
        cfg_coef=3,
        top_p=-0.0,
        seed=np.int64(2),
        top_k=np.int32(250),
    )
    assert numpy.key() == one.key()


def test_the_key_is_the_same_in_another_process_and_does_not_change_with_versions():
    """Runs on disk are found by this key: if it changes on purpose, raise KEY_VERSION too."""
    code = (
        "from musicgen_lab.request import GenerationRequest as R;"
        "print(R(seed=7, prompt='Klavier, sanft \\u266a', cfg_coef=3.5, model='demo@1').key())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (
        printed.stdout.strip()
        == "ae60b94174873a4529c5c91a6f8d94d5d3586bff07547549dbddeaf51f499e91"
        == GenerationRequest(prompt="Klavier, sanft ♪", cfg_coef=3.5, seed=7, model="demo@1").key()
    )


KEYS = [
    (
        {"prompt": "calm acoustic guitar melody", "seed": 0, "model": "demo@1"},
        "a287cb9c487de962685aa5534b75fbe4e4a4f15db66b237fe2bcdd05d60a011b",
    ),
    (
        {"prompt": "calm acoustic guitar melody", "seed": 0},
        "23d7b45a222ddbc2a6df8488fc30831027a8dc29479c7ec1e8afa90e8d01f1f6",
    ),
    (
        {"prompt": "a", "duration": 30, "temperature": 0, "seed": 4294967295, "model": "demo@1"},
        "706e77fe96baa961bf7e2067aacd9027ceb2047adf6e8a595a9e3af6789b072a",
    ),
    (
        {"prompt": "a", "top_k": 0, "top_p": 0.95, "cfg_coef": 1, "seed": 3, "model": "demo@1"},
        "e71f6514616ab1f188ae8a4b9f6ea444041dbcd2b21ed5df223e3b889688e298",
    ),
    (
        {
            "prompt": "jazz",
            "duration": 2.5,
            "temperature": 1.25,
            "top_k": 50,
            "cfg_coef": 0,
            "seed": 12,
            "model": "facebook/musicgen-small@4c8334b02c6e",
        },
        "bf4cd100a6617820ad5857e839dc0d885cfb342202e79d48cb900e00e33081dc",
    ),
]
"""Requests and the keys under which their clips already lie in run folders."""


@pytest.mark.parametrize(("fields", "key"), KEYS)
def test_clips_that_are_already_stored_are_found_by_their_requests(fields, key):
    assert GenerationRequest(**fields).key() == key


def test_fields_without_effect_are_named_with_the_reason():
    greedy = GenerationRequest(prompt="a", temperature=0)
    assert set(greedy.inert_fields()) == {"top_k", "top_p", "seed"}
    nucleus = GenerationRequest(prompt="a", top_p=0.9)
    assert nucleus.inert_fields() == {"top_k": "top_p 0.9 replaces it"}
    assert GenerationRequest(prompt="a").inert_fields() == {}
    assert set(GenerationRequest(prompt="a", top_k=1).inert_fields()) == {"temperature", "seed"}
    assert set(GenerationRequest(prompt="a", top_p=4e-4).inert_fields()) == {
        "top_k", "temperature", "seed",
    }  # fmt: skip
    assert GenerationRequest(prompt="a", cfg_coef=0).inert_fields() == {
        "prompt": "cfg_coef 0 ignores the prompt"
    }
    assert set(GenerationRequest(prompt="a", top_k=600).inert_fields(512)) == {"top_k"}
    assert GenerationRequest(prompt="a", top_k=600).inert_fields() == {}
    assert ignored_by_choice(nucleus, ["prompt", "top_p"]) == []
    assert ignored_by_choice(nucleus, ["top_k"]) == ["top_k does nothing: top_p 0.9 replaces it"]


def test_a_request_cannot_be_changed():
    request = GenerationRequest(prompt="a")
    with pytest.raises(ValueError, match="frozen"):
        request.seed = 3


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"prompt": "jazzy piano solo", "seed": 0, "model": "demo@1"},
         "95a8a48c8b4333454fe814250d74389f8689b5d6a3c4a75ad78f7531bbca0600"),
        ({"prompt": "épique, 弦楽", "duration": 30, "temperature": 0.7, "top_k": 50, "top_p": 0.9,
          "cfg_coef": 5, "seed": 4294967295, "model": "facebook/musicgen-large@15ccdc9"},
         "fc3d11dabbc272ac754f560f512543ac8639a489ea151d64a321201b61b39805"),
        ({"prompt": "drums", "temperature": 0, "seed": 1},
         "657d9211aee48ef438db9e6ae16998a2d6e407f468bc9b797ebccfaa80dac8d4"),
        ({"prompt": "drums", "duration": 1.5, "cfg_coef": 1, "top_k": 0, "seed": 7,
          "model": "demo@4"},
         "2da137e513cf6d23782ac96b325520f0c429335d33e3483f07014a051374c806"),
    ],
)  # fmt: skip
def test_a_clip_has_the_key_that_it_had_before_there_were_more_fields(fields, key):
    assert GenerationRequest(**fields).key() == key
    assert GenerationRequest(**fields, **LATER_DEFAULTS).key() == key


@pytest.mark.parametrize(
    ("fields", "inert"),
    [
        ({}, {}),
        ({"mix": 0.5}, {"mix": "there is no prompt_b"}),
        ({"prompt_b": "b"}, {"prompt_b": "mix 0 follows the prompt alone"}),
        ({"prompt_b": "b", "mix": 1}, {"prompt": "mix 1 follows prompt_b alone"}),
        ({"prompt_b": "b", "mix": 0.5}, {}),
        ({"prompt_b": "a", "mix": 0.5},
         {"prompt_b": "it is the prompt", "mix": "prompt_b is the prompt"}),
        ({"prompt_b": "b", "mix": 0.5, "cfg_coef": 0},
         {"prompt": "cfg_coef 0 ignores the prompt", "prompt_b": "cfg_coef 0 ignores the prompts",
          "mix": "cfg_coef 0 ignores the prompts"}),
        ({"negative_prompt": "n"}, {}),
        ({"negative_prompt": "n", "cfg_coef": 1}, {"negative_prompt": "cfg_coef 1 is no guidance"}),
        ({"extend_stride": 12}, {"extend_stride": "a clip of up to 30 s is made in one window"}),
        ({"extend_stride": 12, "duration": 31}, {}),
        ({"begin_at": 1, "begin_s": 2, "include_start": False},
         dict.fromkeys(("begin_at", "begin_s", "include_start"), "there is no begin_with")),
        ({"negative_prompt": "n", "cfg_coef": 1, "temperature": 0},
         {"negative_prompt": "cfg_coef 1 is no guidance",
          **dict.fromkeys(("top_k", "top_p", "seed"),
                          "temperature 0 always takes the likeliest token")}),
    ],
)  # fmt: skip
def test_fields_of_long_continued_and_mixed_clips_are_told_where_they_do_nothing(fields, inert):
    assert GenerationRequest(prompt="a", **fields).inert_fields() == inert


def test_a_source_is_written_as_its_digest_and_kept_with_its_content():
    source = hum()
    request = GenerationRequest(prompt="a", begin_with=source, begin_s=1.5, seed=0)
    assert request.model_dump()["begin_with"] == source.digest
    assert request.with_model("demo@1").begin_with.content == source.content
    read_back = GenerationRequest(**request.model_dump())
    assert read_back == request and read_back.key() == request.key()
    assert read_back.begin_with.content is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"duration": 2}, "duration must be longer than the 2 s that begin_with gives"),
        ({"begin_at": 1.95}, "begin_at must leave at least 0.1 s of hum.wav, which lasts 2 s"),
        ({"begin_at": 1, "begin_s": 3}, "begin_s must be at most 1 seconds after begin_at 1"),
    ],
)
def test_a_part_that_the_source_does_not_have_is_refused(fields, message):
    source = hum()
    with pytest.raises(InvalidRequest, match=message) as error:
        GenerationRequest(prompt="a", begin_with=source, **fields)
    assert error.value.field in fields


def test_a_clip_without_its_start_is_shorter_by_what_was_given():
    source = hum()
    request = GenerationRequest(prompt="a", begin_with=source, begin_at=0.5, include_start=False)
    assert request.given_s == 1.5 and request.sound_s == 6.5
    assert GenerationRequest(prompt="a", begin_with=source).sound_s == 8


def test_more_of_a_sound_than_a_window_is_refused_with_the_way_out():
    source = hum(duration_s=30.04)
    with pytest.raises(InvalidRequest, match=r"got 30\.04; give a begin_s of 30 or less"):
        GenerationRequest(prompt="a", begin_with=source, duration=40)
    assert GenerationRequest(prompt="a", begin_with=source, begin_s=30, duration=40).given_s == 30


def test_a_key_keeps_no_sound_in_memory():
    source = hum(duration_s=0.5)
    kept = weakref.ref(source)
    GenerationRequest(prompt="a", begin_with=source).key()
    del source
    gc.collect()
    assert kept() is None
