"""Settings of a deployment: defaults that the contract names, and environment variables."""

import pytest

from musicgen_lab.engine.capacity import AUTO_CLIPS_MAX, GPU_MEMORY_BYTES, capacity_on_gpu
from musicgen_lab.engine.released import released_config
from musicgen_lab.request import DURATION_MAX_S
from service.deployment import (
    GPU_LOCK,
    LONGEST_CLIPS,
    MUSICGEN_LARGE,
    WEB_LOCK,
    DeploymentSettings,
)


def test_the_defaults_are_what_the_contract_says():
    settings = DeploymentSettings.from_environment({})
    assert settings.models == (MUSICGEN_LARGE,) and MUSICGEN_LARGE.startswith(
        "facebook/musicgen-large@"
    )
    assert settings.gpu == ("A10", "A100") and settings.scaledown_window_s == 120


def test_clips_at_once_are_the_longest_clips_that_the_engine_says_a_gpu_holds():
    """The written table against the engine's arithmetic; stereo models may need a little more."""
    for size, table in LONGEST_CLIPS.items():
        models = [released_config(size, stereo=stereo) for stereo in (False, True)]
        counted = {
            gpu: min(capacity_on_gpu(model, memory).clips(DURATION_MAX_S) for model in models)
            for gpu, memory in GPU_MEMORY_BYTES.items()
        }
        assert table == counted, size


def test_modal_adds_containers_by_the_smallest_gpu_and_a_container_may_take_more():
    settings = DeploymentSettings.from_environment({"MUSICGEN_GPU": "A10,A100"})
    assert settings.clips_by_gpu == {MUSICGEN_LARGE: {"A10": 10, "A100": 24}}
    assert (settings.clips_least, settings.clips_most) == (10, AUTO_CLIPS_MAX)
    settings = DeploymentSettings.from_environment({"MUSICGEN_CLIPS_AT_ONCE": "5"})
    assert (settings.clips_least, settings.clips_most) == (5, 5)


def test_the_images_hold_nothing_of_notebooks_of_tests_or_of_the_reference_engine():
    packages = {line.partition("==")[0] for lock in (GPU_LOCK, WEB_LOCK)
                for line in lock.read_text().splitlines()}  # fmt: skip
    assert {"torch", "fastapi"} <= packages
    unused = {"audiocraft", "ipython", "jupyterlab", "librosa", "matplotlib", "modal", "pandas",
              "playwright", "pytest", "ruff", "torchaudio", "xformers"}  # fmt: skip
    assert not packages & unused
    assert "torch" not in WEB_LOCK.read_text()


def test_what_the_containers_are_told_is_what_was_deployed():
    given = {"MUSICGEN_MODELS": "a@1, b@2", "MUSICGEN_GPU": "cpu", "MUSICGEN_PROXY_AUTH": "true"}
    settings = DeploymentSettings.from_environment(given)
    assert settings.models == ("a@1", "b@2") and settings.gpu == () and settings.proxy_auth
    assert DeploymentSettings.from_environment(settings.environment()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("MUSICGEN_MODELS", "facebook/musicgen-large"), ("MUSICGEN_MODELS", ""),
     ("MUSICGEN_SCALEDOWN_WINDOW", "1"), ("MUSICGEN_SCALEDOWN_WINDOW", "two"),
     ("MUSICGEN_TIMEOUT", "-5"), ("MUSICGEN_PROXY_AUTH", "maybe"), ("MUSICGEN_GPU", "A1000"),
     ("MUSICGEN_MODELS", "facebook/musicgen-large@main"), ("MUSICGEN_APP", "My App"),
     ("MUSICGEN_MODELS", f"facebook/musicgen-melody@{40 * 'a'}"), ("MUSICGEN_PUBLIC", "yes"),
     ("MUSICGEN_MODELS", f"facebook/musicgen-style@{40 * 'a'}"), ("MUSICGEN_CLIPS_AT_ONCE", "64"),
     ("MUSICGEN_ALLOWED_ORIGINS", "example.org"), ("MUSICGEN_WAITING", "501")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        DeploymentSettings.from_environment({name: value})
