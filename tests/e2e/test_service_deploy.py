"""What `modal deploy` registers, read back from the server, with the default settings."""

import re
import shutil

import pytest

from service.deployment import GPU_LOCK, MUSICGEN_LARGE, WEB_LOCK
from tests.modal_server.deployed import PROJECT, run_modal
from tests.modal_server.server import modal_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Deployed as the contract has it: `modal deploy app.py`, from the service's own folder."""
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        done = run_modal(server, "deploy", "app.py", cwd=PROJECT / "service")
        assert done.returncode == 0, done.stdout + done.stderr
        yield server


@pytest.fixture
def servicer(server):
    return server.servicer


def deployed(servicer):
    (app,) = (app for app in servicer.apps.values() if app.published and app.name == "musicgen")
    return app


def find(servicer, name):
    return servicer.functions[deployed(servicer).functions[name]]


def image_layers(servicer, definition):
    """Return the layers of a function's image, the topmost first."""
    layers, image_id = [], definition.image_id
    while image_id:
        layers.append(servicer.images[image_id])
        image_id = layers[-1].base_images[0].image_id if layers[-1].base_images else ""
    return layers


def mounted(servicer, definition):
    mounts = [servicer.mounts[mount] for mount in definition.mount_ids]
    return {file.filename for files in mounts for file in files}


def test_the_gpu_class_asks_for_an_a10_first_and_an_a100_else(servicer):
    data = find(servicer, "MusicGen.*").function_data
    ranked = sorted(data.ranked_functions, key=lambda choice: choice.rank)
    assert [c.function.resources.gpu_config.gpu_type for c in ranked] == ["A10", "A100"]
    for choice in ranked:
        assert (choice.function.resources.milli_cpu, choice.function.resources.memory_mb) == (
            2000,
            16 * 1024,
        )
    assert data.class_parameter_info.schema[0].string_default == MUSICGEN_LARGE


def test_the_gpu_class_is_kept_for_two_minutes_and_scales_by_modals_own_means(servicer):
    data = find(servicer, "MusicGen.*").function_data
    assert data.autoscaler_settings.scaledown_window == 120
    assert data.autoscaler_settings.max_containers == 4
    assert (data.timeout_secs, data.startup_timeout_secs) == (600, 1800)
    function = data.ranked_functions[0].function
    assert (function.max_concurrent_inputs, function.target_concurrent_inputs) == (64, 10)
    assert function.checkpointing_enabled


def test_the_weights_are_in_a_volume(servicer):
    for name in ("MusicGen.*", "prepare"):
        (mount,) = servicer.definition(deployed(servicer).functions[name]).volume_mounts
        assert mount.mount_path == "/models"
        assert servicer.volumes[mount.volume_id] == "musicgen-models"


@pytest.mark.parametrize(("name", "lock"), [("MusicGen.*", GPU_LOCK), ("web", WEB_LOCK)])
def test_an_image_installs_its_lock_without_resolution_and_mounts_our_source(servicer, name, lock):
    definition = servicer.definition(deployed(servicer).functions[name])
    layers = image_layers(servicer, definition)
    commands = "\n".join(line for image in layers for line in image.dockerfile_commands)
    assert {"--no-deps", "--requirements", "--require-hashes"} <= {*commands.split()}
    assert [f.data for image in layers for f in image.context_files] == [lock.read_bytes()]
    assert "/root/musicgen_lab/web/app.py" in mounted(servicer, definition)


def test_the_embedded_model_is_mounted_for_the_gpu_class(servicer):
    definition = servicer.definition(deployed(servicer).functions["MusicGen.*"])
    files = mounted(servicer, definition)
    assert "/root/musicgen_lab/engine/engine.py" in files
    assert "/root/musicgen_lab/models/embedded/lm.safetensors" in files


def test_a_release_or_a_new_linter_builds_no_image(server, servicer, tmp_path):
    """Modal builds a layer again when its definition changes; these change none."""
    for folder in ("service", "musicgen_lab"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    (tmp_path / "musicgen_lab" / "version.py").write_text('VERSION = "9.0.0"')
    (tmp_path / "requirements.lock").write_text("ruff==99.0.0")
    before = set(servicer.images)
    done = run_modal(server, "deploy", "service/app.py", cwd=tmp_path, MUSICGEN_APP="released")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(servicer.images) == before


def test_the_web_app_has_its_label_its_key_and_no_gpu(servicer):
    function = find(servicer, "web").function
    assert function.webhook_config.requested_suffix == "musicgen"
    assert not function.webhook_config.requires_proxy_auth
    assert function.max_concurrent_inputs == 1000
    assert not function.resources.gpu_config.gpu_type
    assert function.timeout_secs > 600


@pytest.mark.parametrize(("folder", "file"), [("service", "app.py"), (".", "service/app.py")])
def test_modal_serve_shows_the_web_address_until_it_is_ended(server, folder, file):
    done = run_modal(server, "serve", file, "--timeout", "1", cwd=PROJECT / folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"http://127.0.0.1:\d+", done.stdout)
