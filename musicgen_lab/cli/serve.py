"""`serve`: the web endpoints on this machine."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from musicgen_lab.cli.options import Seconds, engine_options
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.errors import BackendUnavailable


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--model", default="demo", show_default=True, metavar="NAME|PATH", help="Model to serve."
)
@engine_options
@click.option(
    "--waiting",
    default=256,
    show_default=True,
    type=click.IntRange(min=0),
    help="Requests that may wait for a slot; more are answered 429.",
)
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    type=Seconds(min=0, min_open=True),
    help="Seconds that a clip may take.",
)
@click.option(
    "--drain",
    default=30.0,
    show_default=True,
    type=Seconds(min=0),
    help="Seconds to finish after SIGTERM.",
)
@click.option(
    "--runs",
    default="runs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which clips that are kept on the page become run folders.",
)
def serve(
    host: str,
    port: int,
    model: str,
    options: EngineOptions,
    waiting: int,
    timeout: float,
    drain: float,
    runs: Path,
) -> None:
    """Serve the live page and the HTTP API until Ctrl-C.

    The page at / makes clips while you listen; POST /generate_endpoint and GET /health are for
    programs. SIGTERM ends it like Ctrl-C.

    Clients must send a key as a bearer token if MUSICGEN_API_KEY is set, or if
    MUSICGEN_API_KEY_FILE names a file with one. Web pages of the origins in
    MUSICGEN_ALLOWED_ORIGINS may call it from a browser. /docs describes the endpoints.
    """
    needed = ("fastapi", "prometheus_client", "torch", "uvicorn")
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
        raise BackendUnavailable(
            f"serving needs {', '.join(missing)}, not installed here: "
            "pip install 'musicgen-lab[local,serve]'"
        )
    from musicgen_lab.conversion.prepare import prepare
    from musicgen_lab.models.locate import locate

    source = locate(model)  # a wrong name is reported before torch is imported
    from musicgen_lab.backends.local import estimate_cpu_s
    from musicgen_lab.backends.worker import EngineWorker
    from musicgen_lab.engine.engine import Engine
    from musicgen_lab.live.page import add_live_page
    from musicgen_lab.web.server import listening_socket
    from musicgen_lab.web.server import serve as serve_backend
    from musicgen_lab.web.settings import WebSettings

    settings = replace(
        WebSettings.from_environment(), waiting_max=waiting, timeout_s=timeout, drain_s=drain
    )
    listening = listening_socket(host, port)  # a port that is taken is reported before the wait
    folder = prepare(source)
    # In a thread that ends: if two threads had OpenMP workers, there would be more workers than
    # cores, and OpenMP would let them sleep between operations, at 50 us each time.
    with ThreadPoolExecutor(1) as opening:
        engine = opening.submit(Engine.open, folder, options).result()
    config, is_cpu = source.config(), engine.provenance.device == "cpu"
    worker = EngineWorker(
        engine,
        source.identity,
        expect_s=lambda requests: (
            estimate_cpu_s(requests, config, engine.max_clips) if config and is_cpu else None
        ),
    )
    serve_backend(worker, listening, settings=settings, extend=partial(add_live_page, runs=runs))
