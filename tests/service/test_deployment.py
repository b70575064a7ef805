"""Settings of a deployment: defaults that the contract names, and environment variables."""

import pytest

from service.deployment import MUSICGEN_LARGE, DeploymentSettings


def test_the_defaults_are_what_the_contract_says():
    settings = DeploymentSettings.from_environment({})
    assert settings.models == (MUSICGEN_LARGE,) and MUSICGEN_LARGE.startswith(
        "facebook/musicgen-large@"
    )
    assert settings.gpu == ("A10", "A100") and settings.scaledown_window_s == 120


def test_what_the_containers_are_told_is_what_was_deployed():
    given = {"MUSICGEN_MODELS": "a@1, b@2", "MUSICGEN_GPU": "cpu", "MUSICGEN_PROXY_AUTH": "true"}
    settings = DeploymentSettings.from_environment(given)
    assert settings.models == ("a@1", "b@2") and settings.gpu == () and settings.proxy_auth
    assert DeploymentSettings.from_environment(settings.environment()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("MUSICGEN_MODELS", "facebook/musicgen-large"), ("MUSICGEN_MODELS", ""),
     ("MUSICGEN_SCALEDOWN_WINDOW", "1"), ("MUSICGEN_SCALEDOWN_WINDOW", "two"),
     ("MUSICGEN_TIMEOUT", "-5"), ("MUSICGEN_PROXY_AUTH", "maybe")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        DeploymentSettings.from_environment({name: value})
