"""The events of the live page's clips, over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading

import httpx2
import numpy as np
import pytest

from musicgen_lab.live.recent_clips import RecentClips
from musicgen_lab.live.streams import LiveStreams
from musicgen_lab.request import GenerationRequest
from musicgen_lab.web.app import create_app
from musicgen_lab.web.responses import Refusal
from musicgen_lab.web.settings import WebSettings
from tests.support.demo_engine import open_demo
from tests.support.live import live_service
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import sine_clip

TWO = {"fields": {"prompt": "calm", "duration": 1, "seed": 7}, "cells": [{"temperature": 0.7}, {}]}
ENDLESS = {"fields": {"prompt": "calm", "duration": 30}, "cells": [{"seed": n} for n in range(3)]}


@pytest.fixture(scope="module")
def service():
    with live_service(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module")
def demo():
    worker = open_demo()
    with live_service(worker) as address, httpx2.Client(base_url=address, timeout=120) as client:
        client.worker = worker
        yield client


def events_of(client, body):
    answer = client.post("/live/clips", json=body)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def of(events, kind, cell):
    return [event for event in events if event["type"] == kind and event["cell"] == cell]


def pcm(events, cell):
    parts = [base64.b64decode(event["pcm"]) for event in of(events, "sound", cell)]
    return np.frombuffer(b"".join(parts), "<i2") / 32767


def wait_until_free(worker):
    """Wait for the worker to drop what was cancelled."""
    with worker._changed:
        assert worker._changed.wait_for(lambda: not worker._in_flight, timeout=60)


def test_every_cell_is_started_heard_in_parts_and_ended_within_one_response(service):
    events = events_of(service, TWO)
    assert events[0]["type"] == "stream" and events[-1] == {"type": "end"}
    for cell, temperature in enumerate((0.7, 1.0)):
        (started,), (clip,) = of(events, "started", cell), of(events, "clip", cell)
        assert started["request"] | {"temperature": temperature, "seed": 7} == started["request"]
        assert len(of(events, "sound", cell)) == 2  # a part of it, and the rest
        assert of(events, "progress", cell)[-1]["steps_done"] == 1
        assert clip["warnings"] == [] and abs(clip["matched_gain_db"]) < 20


def test_the_parts_of_a_sound_are_the_clip_that_the_endpoint_returns(demo):
    body = {"prompt": "calm guitar", "duration": 1, "seed": 3}
    whole = demo.post("/generate_endpoint", json=body, headers={"Accept": "audio/wav"}).content
    events = events_of(demo, {"fields": body, "cells": [{}, {"temperature": 0.5}]})
    sound = np.frombuffer(whole[44:], "<i2") / 32768
    assert len(of(events, "sound", 0)) > 2
    np.testing.assert_allclose(pcm(events, 0), sound, atol=2e-4)
    assert not np.allclose(pcm(events, 1), sound, atol=2e-2)


def test_a_failure_ends_its_cell_alone_and_says_why(service):
    cells = [{"prompt": "fail"}, {"prompt": "fail in the middle"}, {"prompt": "calm"}]
    events = events_of(service, {"fields": {"duration": 1}, "cells": cells})
    for cell in (0, 1):
        (failed,) = of(events, "failed", cell)
        assert failed["detail"].endswith("MemoryError: no room for it")
    assert of(events, "clip", 2) and not of(events, "failed", 2)


def test_a_client_that_leaves_frees_its_rows(demo):
    with demo.stream("POST", "/live/clips", json=ENDLESS) as answer:
        lines = answer.iter_lines()
        while '"sound"' not in next(lines):
            pass
        made = demo.worker.describe()["made"]
        assert demo.worker.describe()["in_flight"] == 3
    wait_until_free(demo.worker)
    assert demo.worker.describe()["made"] == made  # they were given up, not finished


def test_one_cell_can_be_cancelled_while_the_others_go_on(demo):
    body = {"fields": {"prompt": "calm", "seed": 1}, "cells": [{"duration": 30}, {"duration": 1}]}
    with demo.stream("POST", "/live/clips", json=body) as answer:
        lines = map(json.loads, answer.iter_lines())
        stream = next(lines)["id"]
        assert demo.delete(f"/live/clips/{stream}/0").status_code == 204
        rest = list(lines)
    assert of(rest, "failed", 0)[0]["detail"] == "stopped"
    assert of(rest, "clip", 1) and rest[-1] == {"type": "end"}
    assert demo.delete(f"/live/clips/{stream}/0").status_code == 204  # it has ended: nothing to do


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"cells": [{"prompt": "a", "duration": 0}]}, "duration", "duration must be a number from"),
        ({"cells": [{"promt": "a"}]}, "promt", "did you mean prompt"),
        ({"fields": {"prompt": "a"}, "cells": [{}] * 101}, "cells", "1 to 100, got 101"),
        ({"fields": {"prompt": "a"}, "cells": []}, "cells", "1 to 100, got 0"),
        ({"fields": {"prompt": "a"}}, None, "the body must be an object with fields"),
        ({"fields": [], "cells": [{}]}, None, "the body must be an object with fields"),
        ({"cells": [{"prompt": "a", "model": "other"}]}, "model", "this service serves sines@1"),
    ],
)
def test_bad_cells_are_refused_with_the_field_before_anything_is_made(service, body, field, detail):
    for path in ("/live/clips", "/live/plan"):
        answer = service.post(path, json=body)
        assert answer.status_code == 422
        assert answer.json()["field"] == field and detail in answer.json()["detail"]


def test_more_clips_than_may_wait_are_refused_and_none_of_them_is_made():
    class Stuck(SineEngine):
        def step(self):
            return []

    worker = sine_worker(Stuck())
    settings = WebSettings(waiting_max=1)
    with live_service(worker, settings=settings) as address:
        body = {"fields": {"prompt": "a"}, "cells": [{"seed": n} for n in range(5)]}
        answer = httpx2.post(f"{address}/live/clips", json=body)
        assert answer.status_code == 429 and answer.headers["Retry-After"]
        wait_until_free(worker)


def test_clips_that_are_not_finished_in_time_fail_with_the_limit_and_free_their_rows(caplog):
    class StuckAfterOne(SineEngine):
        def step(self):
            return [] if self.made else super().step()

    caplog.set_level(logging.INFO, "musicgen_lab.service")
    worker = sine_worker(StuckAfterOne())
    with live_service(worker, settings=WebSettings(timeout_s=0.3)) as address:
        body = {"fields": {"prompt": "a"}, "cells": [{"seed": n} for n in range(3)]}
        events = events_of(httpx2.Client(base_url=address, timeout=60), body)
        wait_until_free(worker)
    assert of(events, "clip", 0)
    for cell in (1, 2):
        assert of(events, "failed", cell)[0]["detail"].startswith(
            "no clip was finished within 0.3 s; make fewer or shorter ones"
        )
    assert events[-1] == {"type": "end"}
    line = json.loads(caplog.messages[-1])
    assert (line["clips"], line["failed"], line["error"]) == (3, 2, "Timeout")


def test_sound_is_sent_in_short_parts_by_turns_so_that_no_cell_waits_for_another(service):
    cells = [{"seed": n} for n in range(3)]
    events = events_of(service, {"fields": {"prompt": "a", "duration": 4}, "cells": cells})
    sounds = [event for event in events if event["type"] == "sound"]
    seconds = [len(base64.b64decode(event["pcm"])) / 2 / event["sample_rate"] for event in sounds]
    assert max(seconds) <= 0.5
    for cell in range(3):
        assert pcm(events, cell).size == 4 * sounds[0]["sample_rate"]


def test_sound_that_nobody_reads_is_there_once_and_no_more_is_begun_beyond_a_limit():
    async def read_late():
        worker = sine_worker()
        admission = create_app(worker).state.admission
        streams = LiveStreams(
            worker, admission, RecentClips(0), timeout_s=60, unsent_max_bytes=50_000
        )
        request = worker.resolve(GenerationRequest(prompt="a", duration=2))
        clip = sine_clip(request)
        unread = streams.start([request], {})
        events = unread.events()
        await asyncio.wrap_future(unread._cells[0].future)
        assert unread.unsent_bytes == clip.samples.nbytes  # it came in parts, and then whole
        with pytest.raises(Refusal, match="sound wait to be read by slow clients") as refused:
            streams.start([request], {})
        kinds = [event["type"] async for event in events]
        size = (refused.value.status, unread.unsent_bytes)
        unread.close()
        streams.start([request], {}).close()
        worker.close()
        return kinds, size

    kinds, (status, unsent_bytes) = asyncio.run(read_late())
    assert (status, unsent_bytes) == (429, 0)
    assert kinds[:2] == ["stream", "started"] and kinds[-2:] == ["clip", "end"]
    assert kinds.count("sound") == 4


def test_a_clip_that_is_finished_while_a_part_is_sent_is_sent_whole_and_can_be_kept():
    heard = threading.Event()

    class Waiting(SineEngine):
        def make(self, request):
            heard.wait(timeout=60)
            return super().make(request)

    async def finish_in_between():
        worker, recent = sine_worker(Waiting()), RecentClips()
        streams = LiveStreams(worker, create_app(worker).state.admission, recent, timeout_s=60)
        request = worker.resolve(GenerationRequest(prompt="a", duration=1))
        stream = streams.start([request], {})
        making, events = stream._cells[0].future, []
        async for event in stream.events():
            events.append(event)
            if event["type"] == "sound":
                heard.set()
                making.result(timeout=60)  # in another thread: the event loop does not know yet
        stream.close()
        worker.close()
        return events, recent.get(request.key())

    events, kept = asyncio.run(finish_in_between())
    assert pcm(events, 0).size == kept.samples.shape[1]
    assert [event["type"] for event in events[-2:]] == ["clip", "end"]


def test_a_plan_says_how_many_clips_how_long_and_what_has_no_effect(service):
    body = {"fields": {"prompt": "a", "duration": 2, "top_p": 0.5, "top_k": 10}, "cells": [{}, {}]}
    plan = service.post("/live/plan", json=body).json()
    assert (plan["clips"], plan["audio_s"]) == (2, 4)
    assert plan["warnings"] == ["top_k does nothing: top_p 0.5 replaces it"]
    assert plan["estimate_s"] is None or plan["estimate_s"] >= 0


def test_with_a_key_the_page_opens_and_everything_else_needs_it(tmp_path):
    settings = WebSettings(api_key="k")
    with live_service(sine_worker(), tmp_path, settings) as address:
        assert httpx2.get(f"{address}/").status_code == 200
        for path in ("clips", "plan", "kept"):
            url = f"{address}/live/{path}"
            assert httpx2.post(url, json=TWO).status_code == 401
            key = {"Authorization": "Bearer k"}
            assert httpx2.post(url, json=TWO, headers=key).status_code in (200, 409)
        assert httpx2.delete(f"{address}/live/clips/a/0").status_code == 401
