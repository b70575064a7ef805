"""MusicGen on Modal: a GPU class that makes music, and a small web app in front of it.

    modal deploy service/app.py
    modal run service/app.py --prompt "jazzy piano solo" --duration 10
    modal run service/app.py::prepare     # fetches the weights before the first request does

Settings are environment variables, read when this file is deployed:

| variable | default | meaning |
|---|---|---|
| MUSICGEN_APP | musicgen | name of the app, and part of the web address |
| MUSICGEN_MODELS | facebook/musicgen-large@… | models with revisions, the default one first |
| MUSICGEN_GPU | A10,A100 | GPUs in order of preference; cpu for none |
| MUSICGEN_CORES | 2 | CPU cores of a container |
| MUSICGEN_MEMORY_GIB | 16 | GiB of main memory of a container |
| MUSICGEN_CLIPS_AT_ONCE | | clips per container; by default as many as fit on its GPU |
| MUSICGEN_CONTAINERS_MAX | 4 | maximum number of GPU containers per model |
| MUSICGEN_SCALEDOWN_WINDOW | 120 | seconds that an idle GPU is kept |
| MUSICGEN_TIMEOUT | 600 | seconds that a clip may take |
| MUSICGEN_WAITING | 256 | requests that may wait for a GPU; more are answered 429 |
| MUSICGEN_DURATION_MAX | 30 | longest clip of the web endpoint in seconds, up to 300 |
| MUSICGEN_ALLOWED_ORIGINS | | origins whose web pages may call the service from a browser |
| MUSICGEN_MEMORY_SNAPSHOT | 1 | start containers from a snapshot of the imported program |
| MUSICGEN_SECRET | | Modal secret with MUSICGEN_API_KEY, the key that clients must send |
| MUSICGEN_PROXY_AUTH | 0 | 1 makes Modal require Modal-Key and Modal-Secret |
| MUSICGEN_PUBLIC | 0 | 1 allows a service that had a key to be deployed without one |
| MUSICGEN_LIVE | 0 | 1 shows the live page at /, for listening in a browser |
"""

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import modal
import modal.experimental

if modal.is_local():  # import the packages of this checkout, from any working directory
    PROJECT = Path(__file__).resolve().parents[1]
    if not (PROJECT / "service" / "deployment.py").is_file():
        raise SystemExit(
            f"error: {Path(__file__).name} needs a checkout of MusicGen Lab with its folders "
            "service/ and musicgen_lab/; clone the repository and deploy from there"
        )
    sys.path.insert(0, str(PROJECT))

from service.deployment import (
    API_KEY,
    GPU_LOCK,
    WEB_INPUTS_MAX,
    WEB_LOCK,
    DeploymentSettings,
    check_access,
)

MINUTES = 60  # seconds
GIB = 1024  # MiB, Modal's unit of memory
MODELS = "/models"
ANSWER_WITHIN_S = 140  # Modal redirects after 150 s, which plain curl does not follow
STARTUP_S = 30 * MINUTES  # the very first start fetches and converts the weights

try:
    settings = DeploymentSettings.from_environment()
    if modal.is_local() and {"deploy", "serve"} & set(sys.argv[1:2]):
        print(check_access(settings))
except ValueError as error:
    raise SystemExit(f"error: {error}") from None
app = modal.App(settings.app)

# ## The images
#
# Each has exactly the packages of its lock file, checksums compared, without dependency resolution:
# `gpu.lock` for the engine, `web.lock` for the small web app. `debian_slim` includes the C compiler
# that Triton needs. Our own source and the embedded model are mounted when a container starts, so
# that changing them does not rebuild an image.

OWN_SOURCE = ["**/*.pyc", "**/__pycache__"]
MODEL_HOME = {
    "MUSICGEN_LAB_MODELS": MODELS,
    "HF_HUB_CACHE": "/tmp/hub",
    "TRITON_CACHE_DIR": f"{MODELS}/compiled/triton",
    "NUMBA_CACHE_DIR": f"{MODELS}/compiled/numba",
}
base = modal.Image.debian_slim(python_version="3.11")
gpu_image = (
    base.uv_pip_install(requirements=[str(GPU_LOCK)], extra_options="--no-deps --require-hashes")
    .env(MODEL_HOME)
    .add_local_python_source("musicgen_lab", "service", ignore=OWN_SOURCE)
)
web_image = (
    base.uv_pip_install(requirements=[str(WEB_LOCK)], extra_options="--no-deps --require-hashes")
    .env({"MUSICGEN_LAB_MODELS": MODELS})
    .add_local_python_source("musicgen_lab", "service", ignore=[*OWN_SOURCE, "**/*.safetensors"])
)

# ## The weights
#
# They are stored in a volume in the engine's format, so that a container only reads them. Only
# `prepare` writes there: Modal runs one container of it, for one call at a time, so that nothing is
# fetched twice, and a call that was killed leaves no lock behind.

volume = modal.Volume.from_name(f"{settings.app}-models", create_if_missing=True)
jobs = modal.Dict.from_name(f"{settings.app}-jobs", create_if_missing=True)
sources = modal.Dict.from_name(f"{settings.app}-sources", create_if_missing=True)


@app.function(
    image=gpu_image,
    env=settings.environment(),
    volumes={MODELS: volume},
    cpu=4,
    memory=32 * GIB,
    timeout=60 * MINUTES,
    max_containers=1,
)
def prepare(model: str = settings.models[0]) -> str:
    """Fetch and convert a model's weights into the volume, once, and return where they are."""
    from musicgen_lab.conversion.prepare import prepare as prepare_model
    from musicgen_lab.errors import ModelUnavailable
    from musicgen_lab.models.locate import locate

    volume.reload()
    try:
        folder = prepare_model(locate(model), verified=True, on_stage=print)
    except ModelUnavailable as error:
        raise RuntimeError(str(error)) from None  # a class that every caller has
    volume.commit()
    print(f"{model} is ready in {folder}; {MODELS} is the volume {settings.app}-models")
    return str(folder)


def fetch(model: str) -> None:
    """Make sure that a model's weights are in the volume, as seen by this container."""
    from musicgen_lab.errors import ModelUnavailable
    from musicgen_lab.models.locate import find_prepared

    volume.reload()
    if find_prepared(model) is None:
        try:
            prepare.remote(model)
        except RuntimeError as error:
            raise ModelUnavailable(str(error)) from None
        volume.reload()


# ## The GPU class
#
# Concurrent requests share one running batch, each with its own parameters; a request joins between
# two steps. Modal scales as if each container took only as many of the longest clips as fit on the
# smallest GPU in the list (`target_inputs`). Each container sets its actual limit, at most
# `max_inputs`, by its GPU and the clips in progress: it accepts another clip only while one of any
# length fits, so that none waits inside a container while another container could start.
#
# A memory snapshot includes the imported program and the weights, which are copied to the GPU
# afterwards. A start never fails: see `ModelContainer`.


@app.cls(
    image=gpu_image,
    env=settings.environment(),
    gpu=list(settings.gpu) or None,
    cpu=settings.cores,
    memory=settings.memory_gib * GIB,
    volumes={MODELS: volume},
    scaledown_window=settings.scaledown_window_s,
    timeout=settings.timeout_s,
    startup_timeout=STARTUP_S,
    max_containers=settings.containers_max,
    enable_memory_snapshot=settings.memory_snapshot,
)
@modal.concurrent(max_inputs=settings.clips_most, target_inputs=settings.clips_least)
class MusicGen:
    """One model on one GPU."""

    model: str = modal.parameter(default=settings.models[0])

    @modal.enter(snap=settings.memory_snapshot)
    def load_model(self) -> None:
        """Read the weights into memory, fetching them if necessary; use no GPU."""
        from musicgen_lab.backends.modal_container import ModelContainer

        log_lines()
        device = "cuda" if settings.gpu else "cpu"
        self.container = ModelContainer(
            self.model,
            device=device,
            fetch=fetch,
            read_source=read_source,
            on_broken=retire,
            on_room=limit_inputs,
        )
        self.container.load()

    @modal.enter(snap=False)
    def open_model(self) -> None:
        """Copy the weights to the GPU, make a first clip, and accept as many clips as fit."""
        self.container.open()
        volume.commit()  # kernels that were compiled

    @modal.method()
    async def generate(
        self, request: dict[str, Any], request_id: str = "", report: bool = False
    ) -> dict[str, Any]:
        """Make one clip; a failure is returned, not raised."""
        return await self.container.generate(
            request, request_id, write_progress if report else None
        )

    @modal.method()
    async def stream(
        self, request: dict[str, Any], request_id: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Make one clip, and yield this call's id, the sound while it is made, and the clip."""
        yield {"call": str(modal.current_function_call_id())}
        async with aclosing(self.container.stream(request, request_id)) as messages:
            async for message in messages:
                yield message

    @modal.method()
    async def describe(self) -> dict[str, Any]:
        """Return the state of this container."""
        return self.container.describe()

    @modal.exit()
    def close(self) -> None:
        """Let running clips finish."""
        self.container.close(drain_s=settings.timeout_s)


async def write_progress(steps_done: int, steps: int) -> None:
    """Record the progress of the current job."""
    from musicgen_lab.backends.modal_jobs import progress_key

    job_id = str(modal.current_function_call_id())
    await jobs.put.aio(progress_key(job_id), [steps_done, steps])


async def read_source(digest: str) -> bytes | None:
    """Return the sound or codes that a caller has put into the dict of sources."""
    content: bytes | None = await sources.get.aio(digest)
    return content


def limit_inputs(clips: int) -> None:
    """Set the number of clips that this container accepts at once."""
    modal.experimental.set_local_input_concurrency(min(clips, settings.clips_most))


def retire() -> None:
    """Accept no more inputs: Modal ends this container after the current ones."""
    modal.experimental.stop_fetching_inputs()


def log_lines() -> None:
    """Log one line of JSON per request, for `modal app logs`."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")


# ## The functions without a GPU
#
# `musicgen_lab.connect("modal")` calls `about` first, and `read_prompts` before clips are made, in
# the image of the GPU class, which has the tokenizer. `web` is the web app; it waits for the GPU
# class of its app, and one small container does so for many clients.


@app.function(
    image=web_image,
    env=settings.environment(),
    volumes={MODELS: volume.with_mount_options(read_only=True)},
)
def about() -> dict[str, Any]:
    """Return the served models, their GPUs, who may use them, and the message format."""
    from musicgen_lab.backends.wire import FORMAT, plain
    from musicgen_lab.models.locate import codebook_sizes

    served = {
        "format": FORMAT,
        "models": list(settings.models),
        "codebook_sizes": codebook_sizes(settings.models),
        "gpu": list(settings.gpu),
        "cores": settings.cores,
        "memory_gib": settings.memory_gib,
        "clips_at_once": settings.clips_by_gpu,
        "containers_max": settings.containers_max,
        "scaledown_window_s": settings.scaledown_window_s,
        "access": settings.access,
    }
    return plain(served)


@app.function(
    image=gpu_image,
    env=settings.environment(),
    volumes={MODELS: volume.with_mount_options(read_only=True)},
)
def read_prompts(model: str, prompts: list[str]) -> list[dict[str, Any]] | None:
    """Return what a model's text encoder reads of prompts; None if the model is not prepared."""
    from musicgen_lab.backends.wire import pack_prompts
    from musicgen_lab.models.locate import find_prepared
    from musicgen_lab.models.tokenizer import open_tokenizer, read_prompt

    volume.reload()
    folder = find_prepared(model)
    if folder is None:
        return None
    tokenizer = open_tokenizer(folder)
    return pack_prompts(read_prompt(tokenizer, prompt) for prompt in prompts)


secrets = [modal.Secret.from_name(settings.secret, required_keys=[API_KEY])]


@app.function(
    image=web_image,
    env=settings.environment(),
    secrets=secrets if settings.secret else [],
    volumes={MODELS: volume.with_mount_options(read_only=True)},
    max_containers=1,  # so that it alone counts the requests that wait
    timeout=settings.timeout_s + 5 * MINUTES,  # the GPU class's own, and a cold start
    scaledown_window=5 * MINUTES,
)
@modal.concurrent(max_inputs=WEB_INPUTS_MAX)
@modal.asgi_app(label=settings.app, requires_proxy_auth=settings.proxy_auth)
def web() -> Any:
    """Answer `POST /generate_endpoint` and `GET /health`."""
    from dataclasses import replace

    from musicgen_lab.backends.modal import ModalBackend
    from musicgen_lab.backends.modal_jobs import ModalJobs
    from musicgen_lab.backends.modal_preparation import Preparation
    from musicgen_lab.live.page import add_live_page
    from musicgen_lab.web.app import create_app
    from musicgen_lab.web.settings import WebSettings

    log_lines()
    limits = replace(
        WebSettings.from_environment(),
        timeout_s=settings.timeout_s + 4 * MINUTES,
        waiting_max=settings.waiting_max,
        answer_within_s=ANSWER_WITHIN_S,
        public=settings.access == "public",
    )
    weights = Preparation(volume, prepare)
    backend = ModalBackend(
        settings.app,
        MusicGen,
        about=about.local(),
        read_prompts=read_prompts,
        require=weights.require,
    )
    app = create_app(
        backend, settings=limits, served=settings.models, jobs=ModalJobs(backend, jobs)
    )
    if settings.live:
        add_live_page(app)
    return app


# ## From the command line


@app.local_entrypoint()
def main(
    prompt: str,
    duration: float = 8.0,
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    cfg_coef: float = 3.0,
    seed: int | None = None,
    model: str | None = None,
    out: str = "clip.wav",
) -> None:
    """Make one clip on Modal, write it as a WAV file, and print its path."""
    fields: dict[str, Any] = {
        "prompt": prompt,
        "duration": duration,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "cfg_coef": cfg_coef,
        **({} if seed is None else {"seed": seed}),
        **({} if model is None else {"model": model}),
    }
    file = Path(out).absolute()
    if file.suffix.lower() != ".wav" or not file.parent.is_dir() or file.is_dir():
        raise SystemExit(f"error: --out must be a .wav file in a folder that exists, got {out}")
    try:
        from musicgen_lab.request import GenerationRequest
    except ImportError:  # a machine with modal alone: the GPU class checks the request
        pass
    else:
        try:
            GenerationRequest(**fields)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None
    served = {name.partition("@")[0]: name for name in reversed(settings.models)}
    wanted = served.get(model or settings.models[0], model or settings.models[0])
    musicgen: Any = MusicGen(model=wanted)  # type: ignore[call-arg]  # by modal.parameter
    answer = musicgen.generate.remote(fields)
    if answer["status"] != "ok":
        raise SystemExit(f"error: {answer['error_type']}: {answer['message']}")
    file.write_bytes(answer["wav"])
    device = answer["provenance"]["device"]
    print(f"seed {answer['request']['seed']}, {answer['elapsed_s']:.1f} s on {device}")
    print(out)
