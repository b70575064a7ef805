"""What the environment tells the web app: the key and the allowed origins."""

import pytest

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.web.settings import WebSettings


def test_without_variables_there_is_no_key_and_no_origin():
    settings = WebSettings.from_environment({})
    assert settings.api_key is None and settings.allowed_origins == ()


def test_a_line_break_after_the_key_is_no_part_of_it(tmp_path):
    file = tmp_path / "key"
    file.write_text("sesame\n")
    for environment in ({"MUSICGEN_API_KEY": "sesame\n"}, {"MUSICGEN_API_KEY_FILE": str(file)}):
        assert WebSettings.from_environment(environment).api_key == "sesame"


@pytest.mark.parametrize("key", ["", " \n", "two\nlines"])
def test_a_variable_without_a_key_in_it_does_not_open_the_doors(key, tmp_path):
    file = tmp_path / "key"
    file.write_text(key)
    for environment in ({"MUSICGEN_API_KEY": key}, {"MUSICGEN_API_KEY_FILE": str(file)}):
        with pytest.raises(InvalidRequest, match="holds no key"):
            WebSettings.from_environment(environment)


def test_a_key_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match="absent"):
        WebSettings.from_environment({"MUSICGEN_API_KEY_FILE": str(tmp_path / "absent")})


def test_origins_are_separated_by_commas_and_must_be_origins():
    name = "MUSICGEN_ALLOWED_ORIGINS"
    settings = WebSettings.from_environment({name: "https://a.example, http://localhost:3000"})
    assert settings.allowed_origins == ("https://a.example", "http://localhost:3000")
    for wrong in ("*", "a.example", "https://a.example/page", "http://[::1"):
        with pytest.raises(InvalidRequest, match=name):
            WebSettings.from_environment({name: wrong})


def test_the_longest_clip_is_30_s_unless_the_environment_says_another_that_can_be_made():
    name = "MUSICGEN_DURATION_MAX"
    assert WebSettings.from_environment({}).duration_max_s == 30
    assert WebSettings.from_environment({name: "120"}).duration_max_s == 120
    for wrong in ("", "long", "0.5", "301", "nan"):
        with pytest.raises(InvalidRequest, match=rf"{name} must be a number from 1 to 300 seconds"):
            WebSettings.from_environment({name: wrong})
