"""The OpenAPI document against the running app: schemathesis makes up requests of every kind."""

from dataclasses import replace

import pytest
from hypothesis import settings

from tests.support.serving import running
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import sine_clip

schemathesis = pytest.importorskip("schemathesis")
positive_data_acceptance = pytest.importorskip(
    "schemathesis.specs.openapi.checks"
).positive_data_acceptance


class ShortSines(SineEngine):
    """Sines a hundredth as long, so that hundreds of requests take seconds."""

    def make(self, request):
        short = sine_clip(request.model_copy(update={"duration": request.duration / 100}))
        return replace(short, request=request)


@pytest.fixture(scope="module")
def api():
    from musicgen_lab.web.app import create_app

    app = create_app(sine_worker(ShortSines()))
    with running(app) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=60, deadline=None)
def test_every_generated_request_is_answered_as_documented(case):
    # A schema cannot say which bytes are a sound: all others are answered 422.
    is_sound = case.path == "/sources"
    case.call_and_validate(excluded_checks=[positive_data_acceptance] if is_sound else [])


def test_the_document_has_descriptions_ranges_defaults_and_examples(api):
    body = api.raw_schema["components"]["schemas"]["GenerationRequest"]["properties"]
    documented = ("prompt", "duration", "temperature", "top_k", "top_p", "cfg_coef")
    assert all(body[name]["description"] for name in documented)
    ranges = {n: (body[n]["minimum"], body[n]["maximum"]) for n in documented[1:]}
    assert ranges["duration"] == (1, 30) and ranges["cfg_coef"] == (0, 100)
    defaults = {n: body[n]["default"] for n in documented[1:]}
    assert defaults == {
        "duration": 8.0, "temperature": 1.0, "top_k": 250, "top_p": 0.0, "cfg_coef": 3.0,
    }  # fmt: skip
    route = api.raw_schema["paths"]["/generate_endpoint"]["post"]
    assert route["requestBody"]["content"]["application/json"]["example"]["prompt"]


def test_the_document_says_how_long_the_results_of_jobs_are_kept(api):
    job = api.raw_schema["paths"]["/generate_endpoint/{job_id}"]["get"]
    assert (
        "kept for 60 minutes, the last 64 of them up to 268 MB; on Modal all, for 7 days"
        in job["description"]
    )
