"""`DeploymentSettings`: what `modal deploy` is told, all in one place, by environment variables.

Standard library alone: a machine that deploys needs nothing but modal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GPU_LOCK = Path(__file__).with_name("gpu.lock")  # the packages of the GPU image
WEB_LOCK = Path(__file__).with_name("web.lock")  # and of the web image
MUSICGEN_LARGE = "facebook/musicgen-large@15ccdc92099879e47b6da12c350cdb71d4eab3ca"
FOR_CPU = ("", "cpu", "none")  # ways to say "no GPU", for a small model or a test


@dataclass(frozen=True)
class DeploymentSettings:
    """One deployment of the service.

    Attributes
    ----------
    app : str
        Name of the Modal app, and of the web address's host. MUSICGEN_APP.
    models : tuple of str
        "name@revision" each; the first one is served when none is asked for, each from
        containers of its own. MUSICGEN_MODELS, separated by commas.
    gpu : tuple of str
        GPUs in the order of preference; empty for the CPU. MUSICGEN_GPU.
    cores : int
        CPU cores beside the GPU. MUSICGEN_CORES.
    memory_gib : int
        Memory beside the GPU. MUSICGEN_MEMORY_GIB.
    clips_at_once : int
        Clips that a container is meant to make at once before Modal adds another.
        MUSICGEN_CLIPS_AT_ONCE.
    containers_max : int
        GPU containers per model. MUSICGEN_CONTAINERS_MAX.
    scaledown_window_s : int
        How long an idle GPU container is kept. MUSICGEN_SCALEDOWN_WINDOW.
    timeout_s : int
        How long a clip may take, in seconds. MUSICGEN_TIMEOUT.
    proxy_auth : bool
        Whether Modal itself asks for Modal-Key and Modal-Secret. MUSICGEN_PROXY_AUTH.
    memory_snapshot : bool
        Whether containers start from a snapshot of the imported program.
        MUSICGEN_MEMORY_SNAPSHOT.
    """

    app: str = "musicgen"
    models: tuple[str, ...] = (MUSICGEN_LARGE,)
    gpu: tuple[str, ...] = ("A10", "A100")
    cores: int = 2
    memory_gib: int = 16
    clips_at_once: int = 12
    containers_max: int = 4
    scaledown_window_s: int = 120
    timeout_s: int = 600
    proxy_auth: bool = False
    memory_snapshot: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> DeploymentSettings:
        """Read the variables that are set; the rest keeps its default.

        Raises
        ------
        ValueError
            When one is not what it should be. The message names it.
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

        models = words("MUSICGEN_MODELS", cls.models)
        unpinned = [model for model in models if not model.partition("@")[2]]
        if unpinned or not models:
            raise ValueError(
                f"MUSICGEN_MODELS must name models with their revisions, name@revision, got "
                f"{', '.join(unpinned) or 'none'}"
            )
        gpu = words("MUSICGEN_GPU", cls.gpu)
        return cls(
            app=environment.get("MUSICGEN_APP", cls.app),
            models=models,
            gpu=tuple(kind for kind in gpu if kind.lower() not in FOR_CPU),
            cores=number("MUSICGEN_CORES", cls.cores, 1, 64),
            memory_gib=number("MUSICGEN_MEMORY_GIB", cls.memory_gib, 1, 336),
            clips_at_once=number("MUSICGEN_CLIPS_AT_ONCE", cls.clips_at_once, 1, 64),
            containers_max=number("MUSICGEN_CONTAINERS_MAX", cls.containers_max, 1, 1000),
            scaledown_window_s=number("MUSICGEN_SCALEDOWN_WINDOW", cls.scaledown_window_s, 2, 3600),
            timeout_s=number("MUSICGEN_TIMEOUT", cls.timeout_s, 10, 86400),
            proxy_auth=switch("MUSICGEN_PROXY_AUTH", cls.proxy_auth),
            memory_snapshot=switch("MUSICGEN_MEMORY_SNAPSHOT", cls.memory_snapshot),
        )

    def environment(self) -> dict[str, str | None]:
        """Return the variables that say the same to the containers, where app.py runs again."""
        return {
            "MUSICGEN_APP": self.app,
            "MUSICGEN_MODELS": ",".join(self.models),
            "MUSICGEN_GPU": ",".join(self.gpu) or "cpu",
            "MUSICGEN_CORES": str(self.cores),
            "MUSICGEN_MEMORY_GIB": str(self.memory_gib),
            "MUSICGEN_CLIPS_AT_ONCE": str(self.clips_at_once),
            "MUSICGEN_CONTAINERS_MAX": str(self.containers_max),
            "MUSICGEN_SCALEDOWN_WINDOW": str(self.scaledown_window_s),
            "MUSICGEN_TIMEOUT": str(self.timeout_s),
            "MUSICGEN_PROXY_AUTH": str(int(self.proxy_auth)),
            "MUSICGEN_MEMORY_SNAPSHOT": str(int(self.memory_snapshot)),
        }
