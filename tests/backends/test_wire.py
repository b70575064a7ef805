"""How results travel: builtin values only, so that a reader needs none of the writer's packages."""

import pickletools
from dataclasses import replace

import numpy as np
import pytest
from modal._serialization import serialize

from musicgen_lab.backends.wire import FORMAT, pack, plain, unpack
from musicgen_lab.clip import CODEC, Clip, Failure
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.models.locate import EMBEDDED_FOLDER, locate
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import SourceCodes
from tests.support.sines import MODEL, sine_clip

REQUEST = GenerationRequest(prompt="x", duration=1, seed=3).with_model(MODEL)


class VersionString(str):
    """What torch.__version__ is: a subclass of str that looks like one."""


def test_a_clip_arrives_as_it_was_sent():
    clip = sine_clip(REQUEST)
    arrived = unpack(pack(clip), REQUEST)
    assert isinstance(arrived, Clip)
    np.testing.assert_array_equal(arrived.samples, clip.samples)
    assert arrived.provenance == clip.provenance


def test_a_failure_arrives_as_it_was_sent():
    failure = Failure(REQUEST, "OutOfMemoryError", "no room for it", 0.5)
    assert unpack(pack(failure), REQUEST) == failure


def test_a_clip_of_the_engine_is_pickled_without_a_name_to_import():
    engine = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu", max_clips=1))
    (clip,) = engine.generate([REQUEST.with_model(locate("demo").identity)])
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(serialize(pack(clip)))}
    assert not opcodes & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ"}


@pytest.mark.parametrize("foreign", [VersionString("2.11"), np.float64(1.0), (1, 2), {1, 2}])
def test_a_foreign_type_deep_in_a_message_is_refused_before_it_is_sent(foreign):
    message = {"provenance": {"details": {"libraries": [{"torch": foreign}]}}}
    path = r"\['provenance'\]\['details'\]\['libraries'\]\[0\]\['torch'\] is a"
    with pytest.raises(TypeError, match=path):
        plain(message)


def test_a_provenance_of_foreign_types_is_refused_or_sent_as_builtin_values():
    clip = sine_clip(REQUEST)
    made_by = replace(clip.provenance, details={"torch": VersionString("2.11")})
    sent = pack(replace(clip, provenance=made_by))["provenance"]["details"]["torch"]
    assert (type(sent), sent) == (str, "2.11")
    with pytest.raises(ValueError, match="details"):
        replace(clip.provenance, details={"torch": {1, 2}})


def test_a_key_of_a_foreign_type_is_refused_too():
    with pytest.raises(TypeError, match=r"the key 'gpu' of message is a .*VersionString"):
        plain({VersionString("gpu"): 1})


def test_a_message_of_another_format_is_refused_by_name():
    with pytest.raises(BackendUnavailable, match=f"uses format {FORMAT + 1}"):
        unpack({**pack(sine_clip(REQUEST)), "format": FORMAT + 1}, REQUEST)


def test_the_codes_of_a_clip_arrive_with_it_and_are_checked_against_its_sound():
    made_by = replace(sine_clip(REQUEST).provenance, details={CODEC: "codec-1"})
    codes = np.arange(200).reshape(4, 50)
    message = pack(replace(sine_clip(REQUEST), provenance=made_by, codes=codes))
    arrived = unpack(message, REQUEST)
    np.testing.assert_array_equal(arrived.codes, codes)
    longer = SourceCodes(np.zeros((4, 100), np.uint16), "codec-1", 50.0).to_bytes()
    for wrong in (b"PK", longer, "text"):
        assert unpack({**message, "codes": wrong}, REQUEST).error_type == "InvalidAnswer"
    assert "codes" not in pack(sine_clip(REQUEST))
