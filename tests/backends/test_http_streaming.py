"""A clip of a service is heard while it is made, through `lab.connect("http://…")`."""

import threading

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from musicgen_lab.backends import Streams
from musicgen_lab.backends.wire import FORMAT
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import ClipFailed
from musicgen_lab.web.streams import encode_event
from tests.support.demo_engine import open_demo
from tests.support.serving import running, serving
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import MODEL


def ask(seed=0, **fields):
    fields = {"prompt": "calm acoustic guitar melody", "duration": 2.0, **fields}
    return GenerationRequest(seed=seed, **fields)


def joined(chunks):
    return np.concatenate([chunk.samples for chunk in chunks], axis=1)


@pytest.fixture(scope="module")
def demo():
    """Yield the embedded model and the address of a service of it."""
    worker = open_demo(max_clips=2)
    with serving(worker) as address:
        yield worker, address


def test_chunks_come_as_from_the_service_itself_and_end_with_the_clip(connect, demo):
    worker, address = demo
    backend = connect(address)
    clip = worker.submit(worker.resolve(ask())).result()
    assert isinstance(backend, Streams)

    chunks = list(backend.stream(ask()))

    starts = np.cumsum([0, *(chunk.samples.shape[1] for chunk in chunks)])
    assert len(chunks) > 2
    assert [chunk.start_s for chunk in chunks] == [n / 32_000 for n in starts[:-1]]
    np.testing.assert_allclose(joined(chunks), clip.samples, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(chunks[-1].clip.samples, clip.samples)
    assert chunks[-1].clip.provenance == clip.provenance
    assert chunks[0].steps_done < chunks[0].steps == chunks[-1].steps_done


def test_several_streams_at_once_end_with_their_own_clips(connect, demo):
    worker, address = demo
    requests = [ask(seed, duration=1.0) for seed in (1, 2)]
    last = {}

    for index, chunk in connect(address).stream_all(requests):
        last[index] = chunk

    for index, request in enumerate(requests):
        expected = worker.submit(worker.resolve(request)).result()
        np.testing.assert_array_equal(last[index].clip.samples, expected.samples)


def test_a_stream_that_is_closed_frees_its_slot_at_the_service(connect, demo):
    worker, address = demo
    made = worker.describe()["made"]
    streams = [connect(address).stream(ask(seed, duration=30.0)) for seed in (1, 2)]
    for stream in streams:
        next(stream)

    for stream in streams:
        stream.close()

    assert isinstance(worker.submit(worker.resolve(ask(duration=1.0))).result(), Clip)
    assert worker.describe()["made"] == made + 1


def test_a_failure_ends_its_own_stream_alone(connect):
    with serving(sine_worker()) as address:
        prompts = ["fail in the middle", "guitar", "fail at once"]
        events = list(connect(address).stream_all([ask(prompt=prompt) for prompt in prompts]))
    last = dict(events)
    assert [type(last[i]) for i in (0, 2)] == [Failure, Failure]
    assert last[0].error_type == "MemoryError" and last[0].message == "no room for it"
    assert isinstance(last[1].clip, Clip)


def test_a_connection_that_is_lost_in_the_middle_is_a_failure(connect):
    class Silent(SineEngine):
        def hand_out(self, request, on_chunk):
            super().hand_out(request, on_chunk)
            halfway.set()
            assert gate.wait(60)

    halfway, gate = threading.Event(), threading.Event()
    worker = sine_worker(Silent())
    with serving(worker) as address:
        stream = connect(address).stream(ask())
        next(stream)
        assert halfway.wait(60)
        closing = threading.Thread(target=worker.close)
        closing.start()
        with pytest.raises(ClipFailed, match="shut down before this was made"):
            list(stream)
        gate.set()
        closing.join()


def test_a_model_that_the_service_does_not_have_is_refused_at_once(connect):
    with serving(sine_worker()) as address, pytest.raises(ModelUnavailable, match="serves sines@1"):
        connect(address).stream(ask(model="facebook/musicgen-large"))


CHUNK = {
    "audio_base64": "",
    "sample_rate": 8_000,
    "start_s": 0.0,
    "steps_done": 1,
    "steps": 2,
    "total_samples": 16_000,
}


def service_that_sends(content):
    """Return the app of a service that answers every request with some bytes of events."""
    app = FastAPI()
    app.state.backend = sine_worker()

    @app.get("/models")
    def models():
        return {"format": FORMAT, "models": [MODEL]}

    @app.post("/generate_endpoint")
    def generate():
        return StreamingResponse(iter([content]), media_type="text/event-stream")

    return app


@pytest.mark.parametrize(
    "content",
    [
        encode_event("sound", CHUNK),
        encode_event("sound", CHUNK | {"steps_done": 3}),
        encode_event("sound", {}),
        encode_event("done", {}),
        b"event: sound\ndata: [1]\n\n",
        b"event: sound\ndata: {\n\n",
        b"\xff\n\n",
    ],
)
def test_events_that_cannot_be_a_clip_are_a_failure(connect, content):
    with (
        running(service_that_sends(content)) as address,
        pytest.raises(ClipFailed, match="InvalidAnswer"),
    ):
        list(connect(address).stream(ask()))


def test_events_that_end_before_the_clip_are_a_lost_connection(connect):
    with (
        running(service_that_sends(b": nothing yet\n\n")) as address,
        pytest.raises(ClipFailed, match="ConnectionLost"),
    ):
        list(connect(address).stream(ask()))
