"""Settings of a deployment: defaults that the contract names, and environment variables."""

import importlib.metadata
import sys
import tomllib

import grimp
import pytest

from musicgen_lab.backends.gpus import GPUS
from musicgen_lab.engine.capacity import AUTO_CLIPS_MAX_GPU
from musicgen_lab.limits import DURATION_MAX_S
from musicgen_lab.models.released import released_config
from service.deployment import (
    GPU_LOCK,
    LONGEST_CLIPS,
    MUSICGEN_LARGE,
    WEB_LOCK,
    DeploymentSettings,
)
from tests.support.capacity import capacity_on_gpu
from tests.support.environments import PROJECT


def test_the_defaults_are_what_the_contract_says():
    settings = DeploymentSettings.from_environment({})
    assert settings.models == (MUSICGEN_LARGE,) and MUSICGEN_LARGE.startswith(
        "facebook/musicgen-large@"
    )
    assert settings.gpu == ("A10", "A100") and settings.scaledown_window_s == 120


def test_clips_at_once_are_the_longest_clips_that_fit_by_the_engines_capacity():
    """The written table against the engine's arithmetic; stereo models may need a little more."""
    for size, table in LONGEST_CLIPS.items():
        models = [released_config(size, stereo=stereo) for stereo in (False, True)]
        counted = {
            name: min(
                capacity_on_gpu(model, gpu.memory_bytes).clips(DURATION_MAX_S) for model in models
            )
            for name, gpu in GPUS.items()
        }
        assert table == counted, size


def test_modal_adds_containers_by_the_smallest_gpu_and_a_container_may_take_more():
    settings = DeploymentSettings.from_environment({"MUSICGEN_GPU": "A10,A100"})
    assert settings.clips_by_gpu == {MUSICGEN_LARGE: {"A10": 10, "A100": 24}}
    assert (settings.clips_least, settings.clips_most) == (10, AUTO_CLIPS_MAX_GPU)
    settings = DeploymentSettings.from_environment({"MUSICGEN_CLIPS_AT_ONCE": "5"})
    assert (settings.clips_least, settings.clips_most) == (5, 5)


RUN_IN_IMAGES = {
    "gpu": ["musicgen_lab.backends.modal_container", "musicgen_lab.models.locate"],
    "web": ["musicgen_lab.backends.modal_jobs", "musicgen_lab.backends.modal_preparation",
            "musicgen_lab.web.app", "musicgen_lab.runs.run_folder"],
}  # fmt: skip
NOT_REACHED = {  # imports inside functions that are not called in an image
    "gpu": {"audiocraft", "ipython", "omegaconf"},
    "web": {"huggingface-hub", "ipython", "platformdirs"},
}  # fmt: skip
FROM_MODAL = {"modal"}  # put into every container


def imported_by(modules):
    """Return the packages that modules of the project import, and all that those import."""
    graph = grimp.build_graph(
        "musicgen_lab",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    upstream = {name for module in modules for name in graph.find_upstream_modules(module)}
    external = {name for name in upstream if not name.startswith("musicgen_lab")}
    packages = importlib.metadata.packages_distributions()  # without audiocraft if not installed
    return {packages.get(name, [name])[0].lower().replace("_", "-")
            for name in external - sys.stdlib_module_names}  # fmt: skip


@pytest.mark.parametrize(("image", "lock"), [("gpu", GPU_LOCK), ("web", WEB_LOCK)])
def test_an_image_has_exactly_the_packages_that_are_imported_there(image, lock):
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())["dependency-groups"]
    locked = {line.partition("==")[0] for line in lock.read_text().splitlines() if "==" in line}
    imported = imported_by(RUN_IN_IMAGES[image])
    assert imported - locked == NOT_REACHED[image] | FROM_MODAL
    assert set(groups[f"{image}-image"]) <= imported


def test_the_images_hold_nothing_of_notebooks_of_tests_or_of_the_reference_engine():
    packages = {line.partition("==")[0] for lock in (GPU_LOCK, WEB_LOCK)
                for line in lock.read_text().splitlines() if "==" in line}  # fmt: skip
    unused = {"audiocraft", "ipython", "jupyterlab", "librosa", "matplotlib", "modal", "pandas",
              "playwright", "pytest", "ruff", "torchaudio", "xformers"}  # fmt: skip
    assert not packages & unused


def test_the_containers_get_the_settings_that_were_deployed():
    given = {"MUSICGEN_MODELS": "a@1, b@2", "MUSICGEN_GPU": "cpu", "MUSICGEN_SECRET": "key",
             "MUSICGEN_DURATION_MAX": "120", "MUSICGEN_LIVE": "1"}  # fmt: skip
    settings = DeploymentSettings.from_environment(given)
    assert settings.models == ("a@1", "b@2") and settings.gpu == () and settings.access == "key"
    assert settings.duration_max_s == 120 and settings.live
    assert DeploymentSettings.from_environment(settings.environment()) == settings


def test_a_live_page_that_no_browser_could_open_is_refused():
    with pytest.raises(ValueError, match="MUSICGEN_LIVE must be 0 with MUSICGEN_PROXY_AUTH=1"):
        DeploymentSettings.from_environment({"MUSICGEN_LIVE": "1", "MUSICGEN_PROXY_AUTH": "1"})
    settings = DeploymentSettings.from_environment({"MUSICGEN_PROXY_AUTH": "1"})
    assert settings.access == "proxy"
    assert DeploymentSettings.from_environment(settings.environment()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("MUSICGEN_MODELS", "facebook/musicgen-large"), ("MUSICGEN_MODELS", ""),
     ("MUSICGEN_SCALEDOWN_WINDOW", "1"), ("MUSICGEN_SCALEDOWN_WINDOW", "two"),
     ("MUSICGEN_TIMEOUT", "-5"), ("MUSICGEN_PROXY_AUTH", "maybe"), ("MUSICGEN_GPU", "A1000"),
     ("MUSICGEN_GPU", "A10,cpu"),
     ("MUSICGEN_MODELS", "facebook/musicgen-large@main"), ("MUSICGEN_APP", "My App"),
     ("MUSICGEN_MODELS", f"facebook/musicgen-melody@{40 * 'a'}"), ("MUSICGEN_PUBLIC", "yes"),
     ("MUSICGEN_MODELS", f"facebook/musicgen-style@{40 * 'a'}"), ("MUSICGEN_CLIPS_AT_ONCE", "65"),
     ("MUSICGEN_ALLOWED_ORIGINS", "example.org"),
     ("MUSICGEN_ALLOWED_ORIGINS", "https://a.example?b"), ("MUSICGEN_WAITING", "501"),
     ("MUSICGEN_DURATION_MAX", "301"), ("MUSICGEN_DURATION_MAX", "long")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        DeploymentSettings.from_environment({name: value})
