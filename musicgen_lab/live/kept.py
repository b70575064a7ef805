"""Kept clips: the run folder that clips of the live page become, its report and its zip file.

Where a service keeps no run folders, the folder is a temporary one, for its zip file alone.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest, RunFolderUnwritable
from musicgen_lab.fields import REQUEST_FIELDS
from musicgen_lab.live.blind import mount_blind_tests
from musicgen_lab.live.recent_clips import RecentClips
from musicgen_lab.report.provenance import cli_command, python_code
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.interpreter import (
    NEUTRAL_FOLDER,
    interpreter_command,
    interpreter_environment,
)
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.sweep import Sweep
from musicgen_lab.web.responses import Refusal, json_response, refuse_field

# A report contains its scripts and styles; it is shown without rights to the service.
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "media-src data:; sandbox allow-scripts"
)
STATE_WITHIN_S = 5  # as long as a report's state is waited for, also when the service is to end
TEMPORARY_MAX = 8  # folders; the oldest is removed for another one
ReadRequests = Callable[[Request], Awaitable[list[dict[str, Any]]]]


class OnceSent(FileResponse):
    """A file that is removed when it was sent, or could not be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink()


@dataclass(eq=False)
class KeptRun:
    """A run folder of kept clips, and its report.

    Attributes
    ----------
    folder : Path
    report : str
        "making", "made" or "failed".
    detail : str
        Why it failed.
    ended : asyncio.Event
        Set when it is not being made any more.
    """

    folder: Path
    report: str = "making"
    detail: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


def add_kept_runs(
    app: FastAPI,
    runs: Path | None,
    clips: RecentClips,
    read_requests: ReadRequests,
    instance: str,
) -> None:
    """Add the endpoints that keep clips.

    Parameters
    ----------
    app : FastAPI
    runs : Path or None
        The folder of the run folders; None for temporary ones.
    clips : RecentClips
        The clips that can be kept.
    read_requests : callable
        Returns the fields of every request in a request's body.
    instance : str
        Of the running service, as `/live/about` has it: the addresses are known as long as it runs.
    """
    kept: dict[str, KeptRun] = {}  # by an address that nobody can guess: a link carries no key
    tasks: set[asyncio.Task[None]] = set()
    reporting = asyncio.Lock()
    temporary = None if runs else tempfile.TemporaryDirectory(prefix="musicgen-lab-")
    place = Path(temporary.name) if temporary else Path(runs or "").absolute()

    @app.post("/live/kept", include_in_schema=False)
    async def keep(request: Request) -> Response:
        wanted = {app.state.resolve(fields): None for fields in await read_requests(request)}
        chosen = [clip for one in wanted if (clip := clips.get(one.key())) is not None]
        missing = len(wanted) - len(chosen)
        if missing:
            raise Refusal(
                409,
                f"{missing} of these clips are not in memory any more; "
                "load the page again and press Make, or leave them out",
            )
        folder = place / f"live-{datetime.now():%Y-%m-%d-%H%M%S}-{secrets.token_hex(2)}"
        try:
            run, design = await asyncio.to_thread(store, folder, chosen)
        except InvalidRequest as error:
            raise refuse_field(error) from None
        except RunFolderUnwritable as error:
            raise Refusal(507, str(error)) from error
        name = secrets.token_urlsafe(16)
        kept[name] = KeptRun(folder)
        made = [describe(clip) for clip in chosen]
        body = {
            "folder": folder.name if temporary else str(folder),
            "command": cli_command(design, made, run),
            "python": python_code(design, made, run),
            "zip": f"live/kept/{name}/{folder.name}.zip",
            "instance": instance,
        }
        if temporary:
            while len(kept) > TEMPORARY_MAX:
                await asyncio.to_thread(shutil.rmtree, kept.pop(next(iter(kept))).folder)
            return json_response(body)
        task = asyncio.create_task(make_report(kept[name], reporting))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return json_response(
            body
            | {
                "state": f"live/kept/{name}",
                "report": f"live/kept/{name}/report.html",
                "blind": f"live/kept/{name}/blind/",
            }
        )

    def find(name: str) -> KeptRun:
        if name not in kept:
            raise Refusal(404, "nothing is kept at this address any more; keep the clips again")
        return kept[name]

    @app.get("/live/kept/{name}/{file}.zip", include_in_schema=False)
    async def zipped(name: str, file: str) -> Response:
        run = find(name)
        path = await asyncio.to_thread(zip_run, run.folder)
        return OnceSent(path, filename=f"{run.folder.name}.zip", media_type="application/zip")

    if temporary is not None:
        return

    @app.get("/live/kept/{name}", include_in_schema=False)
    async def state(name: str) -> Response:
        run = find(name)
        with suppress(TimeoutError):
            await asyncio.wait_for(run.ended.wait(), STATE_WITHIN_S)
        return json_response({"report": run.report, "detail": run.detail})

    @app.get("/live/kept/{name}/report.html", include_in_schema=False)
    async def report(name: str) -> Response:
        run = find(name)
        if run.report != "made":
            raise Refusal(404, "the report has not been made yet")
        headers = {"Content-Security-Policy": REPORT_POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(run.folder / "report.html", headers=headers)

    mount_blind_tests(app, lambda name: find(name).folder)


def store(folder: Path, clips: Sequence[Clip]) -> tuple[RunFolder, dict[str, Any]]:
    """Write a run folder of clips, and return it with its design.

    Raises
    ------
    InvalidRequest
        When the clips differ in a field that has no effect on them.
    RunFolderUnwritable
    """
    sweep = as_sweep([clip.request for clip in clips])
    run = RunFolder(folder)
    run.create()
    run.add_sweep(sweep.design, [clip.request for clip in clips])
    for clip in clips:
        run.put(clip)
    return run, sweep.design


def as_sweep(requests: Sequence[GenerationRequest]) -> Sweep:
    """Return the sweep of these requests: a grid if they are one, or else their rows.

    Fields that have their default in all requests, and a model that all share, are left out.
    """
    fields = [_plain_fields(request) for request in requests]
    values = {name: list(dict.fromkeys(one[name] for one in fields)) for name in fields[0]}
    defaults = {name: field.default for name, field in GenerationRequest.model_fields.items()}
    values = {
        name: given
        for name, given in values.items()
        if len(given) > 1 or (name != "model" and given != [defaults[name]])
    }
    if math.prod(map(len, values.values())) == len(set(requests)):
        return Sweep(**values)  # type: ignore[arg-type]
    common = {name: given[0] for name, given in values.items() if len(given) == 1}
    rows = [{name: one[name] for name in values if name not in common} for one in fields]
    return Sweep.from_rows(rows, **common)  # type: ignore[arg-type]


def _plain_fields(request: GenerationRequest) -> dict[str, Any]:
    fields = {name: getattr(request, name) for name in REQUEST_FIELDS}
    return fields | {"model": str(request.model).partition("@")[0]}


def describe(clip: Clip) -> dict[str, Any]:
    """Return what the code that makes a clip again is written from."""
    made_by = clip.provenance
    return {
        "status": "ok",
        "model": clip.request.model,
        "engine": made_by.engine,
        "device": made_by.device,
        "dtype": made_by.dtype,
    }


async def make_report(run: KeptRun, reporting: asyncio.Lock) -> None:
    """Make the report of a run in a process of its own, one at a time."""
    arguments = ("-m", "musicgen_lab", "report", str(run.folder), "--self-contained")
    async with reporting:
        try:
            process = await asyncio.create_subprocess_exec(
                *interpreter_command(*arguments, "--format", "html"),
                env=interpreter_environment(),
                cwd=NEUTRAL_FOLDER,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            run.report, run.detail = "failed", str(error)
            run.ended.set()
            return
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
    lines = errors.decode(errors="replace").strip().splitlines()
    made = process.returncode == 0
    run.detail = "" if made else (lines[-1] if lines else f"status {process.returncode}")
    run.report = "made" if made else "failed"
    run.ended.set()


def zip_run(folder: Path) -> Path:
    """Write a run folder, without what is hidden in it, to a new temporary zip file."""
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for path in sorted(folder.rglob("*")):
                    inside = path.relative_to(folder)
                    if path.is_file() and not path.is_symlink() and not inside.name.startswith("."):
                        archive.write(path, Path(folder.name) / inside)
        except BaseException:
            Path(file.name).unlink()
            raise
    return Path(file.name)
