"""`DeploymentSettings`: the settings of `modal deploy`, from environment variables.

Standard library only: a machine that deploys needs nothing but modal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from musicgen_lab.backends.gpus import ALIASES, GPUS
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.web.settings import read_duration_max, read_origins

GPU_LOCK = Path(__file__).with_name("gpu.lock")  # the packages of the GPU image
WEB_LOCK = Path(__file__).with_name("web.lock")  # and of the web image
MUSICGEN_LARGE = "facebook/musicgen-large@15ccdc92099879e47b6da12c350cdb71d4eab3ca"
FOR_CPU = ("", "cpu", "none")  # ways to say "no GPU", for a small model or a test
API_KEY = "MUSICGEN_API_KEY"  # what the secret holds
APP_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")  # it is part of a host name
WEB_INPUTS_MAX = 1000  # that Modal gives the web container at once
COMMIT = re.compile(r"[0-9a-f]{40}")
NOT_SERVED = re.compile(r"musicgen-.*(melody|style)")  # conditioned on sound, not on text alone

CPU = "CPU"
CLIPS_MAX = 64  # of the engine
CLIPS_ON_CPU = 8
LONGEST_CLIPS: Mapping[str, Mapping[str, int]] = {
    "small": {**dict.fromkeys(GPUS, CLIPS_MAX), "T4": 34, "L4": 58, "A10": 58},
    "medium": {
        **dict.fromkeys(GPUS, CLIPS_MAX),
        "T4": 8,
        "L4": 16,
        "A10": 16,
        "L40S": 41,
        "A100-40GB": 35,
    },
    "large": {
        **dict.fromkeys(GPUS, CLIPS_MAX),
        "T4": 4,
        "L4": 10,
        "A10": 10,
        "L40S": 28,
        "A100-40GB": 24,
        "A100-80GB": 57,
        "H100": 57,
    },
}
"""Clips of 30 s that a GPU holds at once, by the model's size, as `engine.capacity` counts them.

Written down because a machine that deploys has not got what that module imports; a test compares.
"""

Access = Literal["public", "key", "proxy"]


@dataclass(frozen=True)
class DeploymentSettings:
    """One deployment of the service.

    Attributes
    ----------
    app : str
        Name of the Modal app, and of the web address's host. MUSICGEN_APP.
    models : tuple of str
        "name@revision" each, a commit for a model on the Hub; the first one is served when none
        is asked for, each from containers of its own. MUSICGEN_MODELS, separated by commas.
    gpu : tuple of str
        GPUs in order of preference; empty for the CPU. MUSICGEN_GPU.
    cores : int
        CPU cores of a container. MUSICGEN_CORES.
    memory_gib : int
        Main memory of a container. MUSICGEN_MEMORY_GIB.
    clips_at_once : int or None
        Clips that a container makes at once, instead of as many as fit. MUSICGEN_CLIPS_AT_ONCE.
    containers_max : int
        GPU containers per model. MUSICGEN_CONTAINERS_MAX.
    scaledown_window_s : int
        How long an idle GPU container is kept. MUSICGEN_SCALEDOWN_WINDOW.
    timeout_s : int
        How long a clip may take, in seconds. MUSICGEN_TIMEOUT.
    waiting_max : int
        Requests that may wait beyond those being made; more are answered 429. MUSICGEN_WAITING.
    duration_max_s : float
        The longest clip that web clients may ask for, in seconds. MUSICGEN_DURATION_MAX.
    allowed_origins : tuple of str
        Origins whose pages may call the service from a browser, such as "https://example.org".
        MUSICGEN_ALLOWED_ORIGINS, separated by commas.
    memory_snapshot : bool
        Whether containers start from a snapshot of the program with the weights in memory.
        MUSICGEN_MEMORY_SNAPSHOT.
    secret : str
        Name of the Modal secret with MUSICGEN_API_KEY, the key that clients must send; empty for
        none. MUSICGEN_SECRET.
    proxy_auth : bool
        Whether Modal itself requires Modal-Key and Modal-Secret. MUSICGEN_PROXY_AUTH.
    public : bool
        Whether a service that had a key may be redeployed without one. MUSICGEN_PUBLIC.
    live : bool
        Whether the live page is at /, for listening in a browser. MUSICGEN_LIVE.
    """

    app: str = "musicgen"
    models: tuple[str, ...] = (MUSICGEN_LARGE,)
    gpu: tuple[str, ...] = ("A10", "A100")
    cores: int = 2
    memory_gib: int = 16
    clips_at_once: int | None = None
    containers_max: int = 4
    scaledown_window_s: int = 120
    timeout_s: int = 600
    waiting_max: int = 256
    duration_max_s: float = WINDOW_S
    allowed_origins: tuple[str, ...] = ()
    memory_snapshot: bool = True
    secret: str = ""
    proxy_auth: bool = False
    public: bool = False
    live: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> DeploymentSettings:
        """Read the variables that are set; the rest keeps its default.

        Raises
        ------
        ValueError
            When one is invalid. The message is one line that names it.
        """

        def number(name: str, default: int, low: int, high: int) -> int:
            text = environment.get(name, str(default))
            if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
                raise ValueError(
                    f"{name} must be a whole number from {low} to {high:,}, got {text!r}"
                )
            return int(text)

        def words(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
            text = environment.get(name)
            if text is None:
                return default
            return tuple(word.strip() for word in text.split(",") if word.strip())

        def switch(name: str, default: bool) -> bool:
            text = environment.get(name, str(int(default))).lower()
            if text not in ("0", "1", "true", "false"):
                raise ValueError(f"{name} must be 1 or 0, got {text!r}")
            return text in ("1", "true")

        app = environment.get("MUSICGEN_APP", cls.app)
        if not APP_NAME.fullmatch(app):
            raise ValueError(
                "MUSICGEN_APP must be 1 to 40 lower-case letters, digits and hyphens, for it "
                f"becomes part of the web address, got {app!r}"
            )
        gpu = words("MUSICGEN_GPU", cls.gpu)
        proxy_auth = switch("MUSICGEN_PROXY_AUTH", cls.proxy_auth)
        live = switch("MUSICGEN_LIVE", cls.live)
        if live and proxy_auth:
            raise ValueError(
                "MUSICGEN_LIVE must be 0 with MUSICGEN_PROXY_AUTH=1, got 1: no browser sends "
                "Modal-Key and Modal-Secret; use MUSICGEN_SECRET for a live page with a key"
            )
        return cls(
            app=app,
            models=_check_models(words("MUSICGEN_MODELS", cls.models)),
            gpu=() if len(gpu) < 2 and "".join(gpu).lower() in FOR_CPU else _check_gpu(gpu),
            cores=number("MUSICGEN_CORES", cls.cores, 1, 64),
            memory_gib=number("MUSICGEN_MEMORY_GIB", cls.memory_gib, 1, 336),
            clips_at_once=(
                number("MUSICGEN_CLIPS_AT_ONCE", CLIPS_MAX, 1, CLIPS_MAX)
                if environment.get("MUSICGEN_CLIPS_AT_ONCE")
                else None
            ),
            containers_max=number("MUSICGEN_CONTAINERS_MAX", cls.containers_max, 1, 1000),
            scaledown_window_s=number("MUSICGEN_SCALEDOWN_WINDOW", cls.scaledown_window_s, 2, 3600),
            timeout_s=number("MUSICGEN_TIMEOUT", cls.timeout_s, 10, 86400),
            waiting_max=number("MUSICGEN_WAITING", cls.waiting_max, 0, WEB_INPUTS_MAX // 2),
            duration_max_s=read_duration_max(environment),
            allowed_origins=read_origins(environment),
            memory_snapshot=switch("MUSICGEN_MEMORY_SNAPSHOT", cls.memory_snapshot),
            secret=environment.get("MUSICGEN_SECRET", cls.secret).strip(),
            proxy_auth=proxy_auth,
            public=switch("MUSICGEN_PUBLIC", cls.public),
            live=live,
        )

    def environment(self) -> dict[str, str | None]:
        """Return the variables with these settings for the containers, where app.py runs again."""
        return {
            "MUSICGEN_APP": self.app,
            "MUSICGEN_MODELS": ",".join(self.models),
            "MUSICGEN_GPU": ",".join(self.gpu) or "cpu",
            "MUSICGEN_CORES": str(self.cores),
            "MUSICGEN_MEMORY_GIB": str(self.memory_gib),
            "MUSICGEN_CLIPS_AT_ONCE": str(self.clips_at_once or ""),
            "MUSICGEN_CONTAINERS_MAX": str(self.containers_max),
            "MUSICGEN_SCALEDOWN_WINDOW": str(self.scaledown_window_s),
            "MUSICGEN_TIMEOUT": str(self.timeout_s),
            "MUSICGEN_WAITING": str(self.waiting_max),
            "MUSICGEN_DURATION_MAX": f"{self.duration_max_s:g}",
            "MUSICGEN_ALLOWED_ORIGINS": ",".join(self.allowed_origins),
            "MUSICGEN_MEMORY_SNAPSHOT": str(int(self.memory_snapshot)),
            "MUSICGEN_SECRET": self.secret,
            "MUSICGEN_PROXY_AUTH": str(int(self.proxy_auth)),
            "MUSICGEN_PUBLIC": str(int(self.public)),
            "MUSICGEN_LIVE": str(int(self.live)),
        }

    @property
    def clips_by_gpu(self) -> dict[str, dict[str, int]]:
        """Clips that a container makes at once, by model and by GPU, or "CPU"."""
        return {
            model: {gpu: self.clips_at_once or count_clips(model, gpu) for gpu in self.gpu or [CPU]}
            for model in self.models
        }

    @property
    def clips_least(self) -> int:
        """Clips at once of a container with the smallest GPU in the list."""
        return min(clips for by_gpu in self.clips_by_gpu.values() for clips in by_gpu.values())

    @property
    def clips_most(self) -> int:
        """The most clips at once of any container; each one determines its actual limit."""
        return self.clips_at_once or CLIPS_MAX

    @property
    def access(self) -> Access:
        """Who may use the web address: clients with the key, with a proxy token, or everybody."""
        return "proxy" if self.proxy_auth else "key" if self.secret else "public"


def count_clips(model: str, gpu: str) -> int:
    """Return how many of the longest clips fit on a GPU; a model of unknown size counts as large.

    Parameters
    ----------
    model : str
        "name@revision".
    gpu : str
        As Modal names it, or "CPU".
    """
    if gpu == CPU:
        return CLIPS_ON_CPU
    size = model.partition("@")[0].rpartition("-")[2]
    return LONGEST_CLIPS.get(size, LONGEST_CLIPS["large"])[ALIASES.get(gpu, gpu)]


def _check_models(models: tuple[str, ...]) -> tuple[str, ...]:
    if not models:
        raise ValueError("MUSICGEN_MODELS must name at least one model, name@revision, got none")
    for model in models:
        name, _, revision = model.partition("@")
        if not revision:
            raise ValueError(
                f"MUSICGEN_MODELS must name models with their revisions, name@revision, got {model}"
            )
        if "/" in name and not COMMIT.fullmatch(revision):
            raise ValueError(
                "MUSICGEN_MODELS must pin a model on the Hub by its commit of 40 hexadecimal "
                f"digits, as its page lists them, got {model}"
            )
        if NOT_SERVED.search(name):
            raise ValueError(
                f"MUSICGEN_MODELS must name text models (small, medium, large, stereo), got {name}"
            )
    return models


def _check_gpu(gpu: tuple[str, ...]) -> tuple[str, ...]:
    for name in gpu:
        if name not in GPUS and name not in ALIASES:
            known = ", ".join(sorted({*GPUS, *ALIASES}))
            raise ValueError(f"MUSICGEN_GPU must name GPUs of {known}, or be cpu, got {name!r}")
    return gpu


def check_access(settings: DeploymentSettings) -> str:
    """Return one line on who may use the web address; refuse to make a private service public.

    If the new service would be public, the currently deployed one is queried, which starts one of
    its small containers.

    Raises
    ------
    ValueError
        When the service would become public, or its current state is unknown, and MUSICGEN_PUBLIC
        is not set.
    """
    if API_KEY in os.environ:
        raise ValueError(
            f"{API_KEY} is not taken from this shell, so that no other shell deploys without it: "
            f"create a secret once, `modal secret create musicgen-key {API_KEY}=…`, deploy with "
            f"MUSICGEN_SECRET=musicgen-key, and unset {API_KEY}"
        )
    if settings.access == "key":
        return f"the web address needs the key in the Modal secret {settings.secret!r}"
    if settings.access == "proxy":
        return "the web address needs a proxy token of Modal's, Modal-Key and Modal-Secret"
    if not settings.public and deployed_access(settings.app) in ("key", "proxy"):
        raise ValueError(
            f"{settings.app!r} is deployed with a key and would become public: deploy it with the "
            "same MUSICGEN_SECRET or MUSICGEN_PROXY_AUTH, or with MUSICGEN_PUBLIC=1 if this is "
            "meant"
        )
    return (
        "the web address is PUBLIC: anyone who knows it can use your GPUs; set MUSICGEN_SECRET "
        "or MUSICGEN_PROXY_AUTH=1 to require a key"
    )


def deployed_access(app: str) -> str | None:
    """Return who may use the app that is deployed under a name; None if none is.

    Raises
    ------
    ValueError
        When it cannot be queried.
    """
    import modal

    try:
        about = modal.Function.from_name(app, "about").remote()
    except (modal.exception.NotFoundError, modal.exception.AuthError):  # `deploy` tells the latter
        return None
    except modal.exception.Error as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{app!r}, if deployed, cannot be asked whether it has a key ({reason}): try again, or "
            "deploy with MUSICGEN_SECRET or MUSICGEN_PROXY_AUTH=1, or with MUSICGEN_PUBLIC=1 if "
            "everybody may use it"
        ) from None
    return str(about.get("access"))
