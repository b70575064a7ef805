"""`add_live_page`: the live page at `/`, and the endpoints that its script calls.

The page is static. It reads fields, limits and defaults from `/openapi.json`, and asks for clips
with `POST /live/clips`, whose response is one stream of events for any number of clips.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from musicgen_lab.live.kept import add_kept_runs
from musicgen_lab.live.loudness import can_match
from musicgen_lab.live.recent_clips import RecentClips
from musicgen_lab.live.streams import LiveStreams
from musicgen_lab.player import base_style, player_script, player_style
from musicgen_lab.request import GenerationRequest, ignored_by_choice
from musicgen_lab.web.access import check_key
from musicgen_lab.web.body import check_fields, parse_object, read_fields
from musicgen_lab.web.responses import Refusal, json_response
from musicgen_lab.web.streams import Streamed

STATIC = Path(__file__).parent / "static"
PAGE_STYLE = Path(__file__).parents[1] / "report" / "templates" / "page" / "page.css"
CELLS_MAX = 100
SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
NOT_SNIFFED = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def add_live_page(app: FastAPI, *, runs: Path | None = None) -> None:
    """Add the live page to the web app.

    Parameters
    ----------
    app : FastAPI
        As `musicgen_lab.web.app.create_app` returns it.
    runs : Path, optional
        The folder in which kept clips become run folders; without it they are downloaded.
    """
    backend, settings, models = app.state.backend, app.state.settings, app.state.models
    instance = secrets.token_hex(8)  # what is kept is known until the service ends
    clips = RecentClips()
    streams = LiveStreams(backend, app.state.admission, clips, timeout_s=settings.timeout_s)
    files = {name: _reader(STATIC / name) for name in ("live.css", *_script_names())} | {
        "page.css": lambda: base_style() + PAGE_STYLE.read_text(encoding="utf-8"),
        "player.css": player_style,
        "player.js": player_script,
    }

    async def read_requests(request: Request) -> list[dict[str, Any]]:
        check_key(request, settings)
        return _fields_of_cells(parse_object(await read_fields(request, settings)))

    @app.get("/", include_in_schema=False)
    async def live_page() -> Response:
        nonce = secrets.token_urlsafe(16)
        page = (STATIC / "live.html").read_text(encoding="utf-8").replace("{nonce}", nonce)
        headers = {**NOT_SNIFFED, "Content-Security-Policy": _policy(nonce)}
        return Response(page, headers=headers, media_type="text/html")

    @app.get("/live/about", include_in_schema=False)
    async def about() -> Response:
        keep = "folder" if runs else "zip"
        described = {"models": models, "keep": keep, "match": can_match(), "instance": instance}
        return json_response(described)

    @app.post("/live/plan", include_in_schema=False)
    async def plan(request: Request) -> Response:
        cells = await read_requests(request)
        wanted = [app.state.resolve(fields) for fields in cells]
        warnings = [
            warning
            for one, fields in zip(wanted, cells, strict=True)
            for warning in ignored_by_choice(
                one, _not_default(fields), backend.codebook_size(str(one.model))
            )
        ]
        return json_response(
            {
                "clips": len(wanted),
                "audio_s": sum(one.duration for one in wanted),
                "estimate_s": backend.estimate_s(wanted),
                "warnings": list(dict.fromkeys(warnings)),
            }
        )

    @app.post("/live/clips", include_in_schema=False)
    async def make_clips(request: Request) -> Response:
        cells = await read_requests(request)
        wanted = [app.state.resolve(fields) for fields in cells]
        request.state.log |= {"clips": len(wanted)}
        stream = streams.start(wanted, request.state.log)
        return Streamed(stream.lines(), stream.close, "application/x-ndjson")

    @app.delete("/live/clips/{stream}/{cell}", include_in_schema=False)
    async def cancel_clip(request: Request, stream: str, cell: int) -> Response:
        check_key(request, settings)
        streams.cancel(stream, cell)
        return Response(status_code=204)

    add_kept_runs(app, runs, clips, read_requests, instance)

    @app.get("/live/{name}", include_in_schema=False)
    async def static_file(name: str) -> Response:
        if name not in files:
            raise Refusal(404, f"there is no file {name[:100]!r}")
        kind = SCRIPT if name.endswith(".js") else STYLE
        headers = {**NOT_SNIFFED, "Cache-Control": "no-cache"}
        return Response(files[name](), headers=headers, media_type=kind)


def _fields_of_cells(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of every request in a body: `fields` of all of them, `cells` of each.

    Raises
    ------
    Refusal
        422.
    """
    common, cells = body.get("fields", {}), body.get("cells")
    is_list = isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)
    if set(body) - {"fields", "cells"} or not isinstance(common, dict) or not is_list:
        raise Refusal(
            422,
            "the body must be an object with fields, an object, and cells, an array of objects",
            field=None,
            limit=None,
        )
    assert isinstance(cells, list)
    if not 1 <= len(cells) <= CELLS_MAX:
        raise Refusal(
            422,
            f"cells must be 1 to {CELLS_MAX}, got {len(cells)}; vary fewer values",
            field="cells",
            limit={"minItems": 1, "maxItems": CELLS_MAX},
        )
    return [check_fields({**common, **cell}) for cell in cells]


def _not_default(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields whose values were chosen: the page sends all of them."""
    defaults = {name: field.default for name, field in GenerationRequest.model_fields.items()}
    return [name for name, value in fields.items() if value != defaults[name]]


def _script_names() -> Sequence[str]:
    return sorted(path.name for path in STATIC.glob("*.js"))


def _reader(path: Path) -> Callable[[], str]:
    return lambda: path.read_text(encoding="utf-8")


def _policy(nonce: str) -> str:
    """Return the page's content security policy: its own files alone; the nonce is wavesurfer's."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
