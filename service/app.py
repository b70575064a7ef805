"""MusicGen on Modal: a GPU class that makes music, and a small web app in front of it.

    modal deploy service/app.py
    modal run service/app.py --prompt "jazzy piano solo" --duration 10
    modal run service/app.py::prepare     # fetches the weights before the first request does

Settings are environment variables, read when this file is deployed:

| variable | default | what it says |
|---|---|---|
| MUSICGEN_APP | musicgen | name of the app and of the web address |
| MUSICGEN_MODELS | facebook/musicgen-large@… | models with revisions, the default one first |
| MUSICGEN_GPU | A10,A100 | GPUs in the order of preference; cpu for none |
| MUSICGEN_CORES | 2 | CPU cores beside the GPU |
| MUSICGEN_MEMORY_GIB | 16 | GiB of memory beside the GPU |
| MUSICGEN_CLIPS_AT_ONCE | 12 | clips per container before Modal adds another one |
| MUSICGEN_CONTAINERS_MAX | 4 | GPU containers per model at most |
| MUSICGEN_SCALEDOWN_WINDOW | 120 | seconds that an idle GPU is kept |
| MUSICGEN_TIMEOUT | 600 | seconds that a clip may take |
| MUSICGEN_MEMORY_SNAPSHOT | 1 | start containers from a snapshot of the imported program |
| MUSICGEN_PROXY_AUTH | 0 | 1 lets Modal ask for Modal-Key and Modal-Secret |
| MUSICGEN_API_KEY | | the key that clients must send as a bearer token |
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import modal

if modal.is_local():  # the packages beside this file, wherever `modal` was started
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.deployment import GPU_LOCK, WEB_LOCK, DeploymentSettings

MINUTES = 60  # seconds
GIB = 1024  # MiB, Modal's unit of memory
MODELS = "/models"
STARTUP_S = 30 * MINUTES  # the first start of all fetches and converts the weights

settings = DeploymentSettings.from_environment()
app = modal.App(settings.app)

# ## The images
#
# Each holds exactly the packages of its lock file, installed without dependency resolution:
# `gpu.lock` what the engine needs, `web.lock` the little that answers first. `debian_slim` brings
# the C compiler that triton makes kernels with. Our own source, its version and its embedded model
# are mounted when a container starts, so that a change of them builds nothing.

OWN_SOURCE = ["**/*.pyc", "**/__pycache__"]
MODEL_HOME = {"MUSICGEN_LAB_MODELS": MODELS, "HF_HUB_CACHE": "/tmp/hub"}
base = modal.Image.debian_slim(python_version="3.11")
gpu_image = (
    base.uv_pip_install(requirements=[str(GPU_LOCK)], extra_options="--no-deps")
    .env(MODEL_HOME)
    .add_local_python_source("musicgen_lab", "service", ignore=OWN_SOURCE)
)
web_image = base.uv_pip_install(
    requirements=[str(WEB_LOCK)], extra_options="--no-deps"
).add_local_python_source("musicgen_lab", "service")

# ## The weights
#
# They lie in a volume in the engine's own format, so that a container only reads them.

volume = modal.Volume.from_name(f"{settings.app}-models", create_if_missing=True)


@app.function(
    image=gpu_image,
    env=settings.environment(),
    volumes={MODELS: volume},
    cpu=4,
    memory=32 * GIB,
    timeout=60 * MINUTES,
)
def prepare(model: str = settings.models[0]) -> str:
    """Fetch and convert a model's weights into the volume, once, and return where they are."""
    from musicgen_lab.engine.source import locate

    folder = locate(model).prepare()
    volume.commit()
    return str(folder)


# ## The GPU class
#
# Requests that come together share one running batch, each with its own parameters: Modal hands a
# container up to `max_inputs` at once, and the engine lets each join between two steps. When more
# come, Modal adds containers. A memory snapshot spares the imports; only the weights are loaded
# onto the GPU at every start.


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
@modal.concurrent(max_inputs=settings.clips_at_once + 4, target_inputs=settings.clips_at_once)
class MusicGen:
    """One model on one GPU."""

    model: str = modal.parameter(default=settings.models[0])

    @modal.enter(snap=True)
    def load_program(self) -> None:
        """Import what takes seconds to import, by opening the embedded model; touch no GPU."""
        from musicgen_lab.engine.engine import Engine
        from musicgen_lab.engine.source import EMBEDDED, locate

        Engine.open(locate(EMBEDDED).prepare(), device="cpu", slots=1)

    @modal.enter(snap=False)
    def open_model(self) -> None:
        """Put the weights onto the GPU, fetching them where nobody did before."""
        from musicgen_lab.backends.worker import EngineWorker
        from musicgen_lab.engine.engine import Engine
        from musicgen_lab.engine.source import locate

        source = locate(self.model)
        if source.prepared is None:
            source.prepare()
            volume.commit()
        device = "cuda" if settings.gpu else "cpu"
        engine = Engine.open(source.prepare(), device=device)
        self.engine = EngineWorker(engine, source.identity)

    @modal.method()
    async def generate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make one clip; a failure is returned, not raised, so that any version can read it."""
        from musicgen_lab.backends.wire import FORMAT, pack, plain
        from musicgen_lab.errors import InvalidRequest, ModelUnavailable
        from musicgen_lab.request import GenerationRequest

        try:
            wanted = self.engine.resolve(GenerationRequest(**request))
        except (InvalidRequest, ModelUnavailable) as error:
            refused = {"error_type": type(error).__name__, "message": str(error), "elapsed_s": 0.0}
            return plain({"format": FORMAT, "status": "failed", "request": request, **refused})
        return pack(await asyncio.wrap_future(self.engine.submit(wanted)))

    @modal.method()
    async def describe(self) -> dict[str, Any]:
        """Say what this container is doing."""
        from musicgen_lab.backends.wire import plain

        return plain(self.engine.describe())

    @modal.exit()
    def close(self) -> None:
        """Let running clips finish."""
        self.engine.close(drain_s=settings.timeout_s)


# ## What answers without a GPU
#
# `about` is what `musicgen_lab.connect("modal")` asks first. `web` is the web app; it waits for
# the GPU class by name, and one small container does so for many clients.


@app.function(image=web_image, env=settings.environment())
def about() -> dict[str, Any]:
    """Say which models are served, on what, and in which format."""
    from musicgen_lab.backends.wire import FORMAT, plain

    served = {
        "format": FORMAT,
        "models": list(settings.models),
        "gpu": list(settings.gpu),
        "cores": settings.cores,
        "memory_gib": settings.memory_gib,
        "clips_at_once": settings.clips_at_once,
        "containers_max": settings.containers_max,
        "scaledown_window_s": settings.scaledown_window_s,
    }
    return plain(served)


api_key = {name: os.environ[name] for name in ("MUSICGEN_API_KEY",) if os.environ.get(name)}


@app.function(
    image=web_image,
    env=settings.environment(),
    secrets=[modal.Secret.from_dict(dict(api_key))],
    timeout=settings.timeout_s + 5 * MINUTES,  # the GPU class's own, and a cold start
    scaledown_window=5 * MINUTES,
)
@modal.concurrent(max_inputs=200)
@modal.asgi_app(label=settings.app, requires_proxy_auth=settings.proxy_auth)
def web() -> Any:
    """Answer `POST /generate_endpoint` and `GET /health`."""
    from dataclasses import replace

    from musicgen_lab.backends.modal import ModalBackend
    from musicgen_lab.web.app import create_app
    from musicgen_lab.web.settings import WebSettings

    limits = replace(WebSettings.from_environment(), timeout_s=settings.timeout_s + 4 * MINUTES)
    backend = ModalBackend(settings.app, about=about.local())
    return create_app(backend, settings=limits, served=settings.models)


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
    fields = {
        "prompt": prompt,
        "duration": duration,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "cfg_coef": cfg_coef,
        **({} if seed is None else {"seed": seed}),
        **({} if model is None else {"model": model}),
    }
    if Path(out).suffix.lower() != ".wav" or not Path(out).absolute().parent.is_dir():
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
    Path(out).write_bytes(answer["wav"])
    print(f"seed {answer['request']['seed']}, {answer['elapsed_s']:.1f} s on the GPU")
    print(out)
