"""`sweep` and `generate`: what is made of their options and files."""

from __future__ import annotations

import sys

import pytest
import soundfile

from musicgen_lab import PackageMissing, Results, Sweep
from tests.support.command import run_here
from tests.support.sines import PreciseSines, SineBackend
from tests.support.sources import hum

PROMPT = ("--prompt", "piano")


@pytest.fixture
def run():
    """Return a function that runs the command in this process: exit code, output, errors."""

    def run(*arguments):
        done = run_here(*arguments)
        return done.returncode, done.stdout, done.stderr

    return run


def test_prompts_come_from_a_file_one_a_line(run, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("slow, sad piano\n\n  fast drums  \n", encoding="utf-8-sig")
    code, output, _ = run("sweep", "--prompt-file", path, "--out", tmp_path / "run", "--plan")
    assert code == 0
    assert "clips           2\n" in output


@pytest.mark.parametrize("text", [
    'prompt,cfg_coef,temperature\n"slow, sad piano",3,\ndrums,5,0.7\n',
    "prompt;cfg_coef;temperature\nslow, sad piano;3;\ndrums;5;0.7\n;;\n",
    "prompt\tcfg_coef\ttemperature\nslow, sad piano\t3\t\ndrums\t5\t0.7\n",
])  # fmt: skip
def test_a_csv_file_has_a_combination_a_row(run, tmp_path, monkeypatch, text):
    monkeypatch.setattr("musicgen_lab.backends.connect", lambda *_, **__: SineBackend())
    path = tmp_path / ("rows.tsv" if "\t" in text else "rows.csv")
    path.write_text(text)
    code, _, errors = run(
        "sweep", "--prompt-file", path, "--seed", "0:2", "--duration", 1, "--out", tmp_path / "run"
    )
    assert code == 0, errors
    frame = Results.open(tmp_path / "run").frame
    assert list(frame["prompt"]) == ["slow, sad piano"] * 2 + ["drums"] * 2
    assert list(frame["temperature"]) == [1, 1, 0.7, 0.7]
    assert list(frame["cfg_coef"]) == [3, 3, 5, 5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", " \n", "a.txt is empty"),
        ("a.csv", "promt\nx\n", "unknown field 'promt' (did you mean prompt?)"),
        ("a.csv", "prompt\nslow, sad\n", "line 2 of"),
        ("a.csv", "prompt,prompt\nx,y\n", "the column prompt twice"),
        ("a.csv", "prompt,cfg_coef\nx,3\n", "cfg_coef is in the rows already"),
        ("a.csv", 'prompt,temperature\nx,"0,7"\n', "with a decimal point it is 0.7"),
        ("a.csv", 'prompt\n"x\n' + "y\n" * 70_000, "a double quote that is not closed"),
    ],
)
def test_a_file_of_prompts_that_makes_no_sense_is_refused(run, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    code, _, errors = run(
        "sweep", "--prompt-file", tmp_path / name, "--cfg-coef", 3, "--out", tmp_path / "run"
    )
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors


def test_clips_of_another_precision_are_kept_with_a_warning_refused_or_made_again(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "musicgen_lab.backends.connect",
        lambda _, dtype="float32": PreciseSines(dtype),
    )
    sweep = ("sweep", *PROMPT, "--duration", 1, "--out", tmp_path)
    assert run(*sweep)[0] == 0
    code, _, errors = run(*sweep, "--dtype", "bfloat16")
    assert code == 0
    assert "warning: 1 of the clips" in errors
    assert "made otherwise: in float32 instead of bfloat16. They are kept; --remake" in errors
    code, _, errors = run(*sweep, "--dtype", "bfloat16", "--only-matching")
    assert code == 2
    assert "give another folder, or let them be made again (--remake" in errors
    code, _, errors = run(*sweep, "--dtype", "bfloat16", "--remake")
    assert "1 made, 0 already there" in errors
    assert list(Results.open(tmp_path).frame["dtype"]) == ["bfloat16"]


def test_a_clip_is_made_with_a_word_on_what_is_waited_for(run, tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen_lab.backends.connect", lambda *_, **__: SineBackend())
    arguments = ("generate", *PROMPT, "--duration", 1, "--out", tmp_path / "clip.wav")
    code, output, errors = run(*arguments)
    assert (code, output) == (0, f"{tmp_path / 'clip.wav'}\n")
    assert errors.startswith("waiting for sines\n1 of 1 s of sound, 1 of 1 clips")
    assert "of sound" not in run(*arguments, "--quiet")[2]


@pytest.mark.parametrize(
    ("package", "command", "message"),
    [
        ("torch", ("bench",), "this command needs torch, not installed here: pip install"),
        ("papermill", ("report", "run"), "a report needs papermill, not installed here"),
        ("ipykernel", ("report", "run"), "a report needs ipykernel, not installed here"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(
    run, tmp_path, monkeypatch, package, command, message
):
    Sweep(prompt="a", duration=1).run(SineBackend(), tmp_path / "run", progress=False)
    monkeypatch.chdir(tmp_path)
    for module in [name for name in sys.modules if name.startswith("musicgen_lab.")]:
        if package in vars(sys.modules[module]):  # it is imported anew
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    code, _, errors = run(*command)
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors


def test_listening_without_jupyter_says_what_to_install(tmp_path, monkeypatch):
    results = Sweep(prompt="a", duration=1).run(SineBackend(), tmp_path, progress=False)
    clip = results.clip(results.frame["key"][0])
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    for listen in (results.listen, clip.play):
        with pytest.raises(PackageMissing, match="needs IPython, not installed here: pip install"):
            listen()


@pytest.mark.parametrize("option", [("--device", "mps"), ("--device", "toaster")])
def test_a_device_is_checked_before_it_is_needed(run, tmp_path, option):
    code, _, errors = run("sweep", *PROMPT, "--out", tmp_path, "--plan", *option)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"device must be one of this machine, such as auto or cpu, got '{option[1]}'" in errors


def test_a_clip_that_continues_a_sound_is_written_with_it_or_without(run, tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen_lab.backends.connect", lambda *_, **__: SineBackend())
    path = tmp_path / "hum.wav"
    path.write_bytes(hum().content)
    for options, seconds in (((), 5), (("--no-include-start",), 3.5)):
        code, output, errors = run(
            "generate", *PROMPT, "--begin-with", path, "--begin-at", 0.5, "--begin-s", 1.5,
            "--duration", 5, *options, "--quiet", "--out", tmp_path / "out.wav",
        )  # fmt: skip
        assert code == 0, errors
        assert soundfile.info(output.strip()).duration == pytest.approx(seconds, abs=0.01)


def test_sounds_prompts_and_mixes_are_axes_of_a_sweep(run, tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen_lab.backends.connect", lambda *_, **__: SineBackend())
    for name, frequency_hz in (("a.wav", 220), ("b.wav", 300)):
        (tmp_path / name).write_bytes(hum(frequency_hz=frequency_hz).content)
    code, output, errors = run(
        "sweep", *PROMPT, "--prompt-b", "drums", "--mix", "0:1:0.5", "--negative-prompt", "noise",
        "--begin-with", tmp_path / "a.wav", "--begin-with", tmp_path / "b.wav",
        "--duration", 40, "--extend-stride", "12,18", "--out", tmp_path / "run", "--plan",
    )  # fmt: skip
    assert code == 0, errors
    assert "clips           12\n" in output and "to make         12 (456 s of audio)" in output


def test_a_csv_file_may_name_a_sound_in_every_row(run, tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen_lab.backends.connect", lambda *_, **__: SineBackend())
    (tmp_path / "a.wav").write_bytes(hum().content)
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt,begin_with,include_start\nx,{tmp_path / 'a.wav'},false\ny,,\n")
    code, _, errors = run("sweep", "--prompt-file", path, "--out", tmp_path / "run", "--quiet")
    assert code == 0, errors
    rows = Results.open(tmp_path / "run").table.rows
    assert list(rows["begin_with"]) == [hum().digest, ""]
    assert list(rows["include_start"]) == [False, True]


@pytest.mark.parametrize("command", ["generate", "sweep"])
def test_a_sound_that_cannot_be_begun_with_is_one_line_and_opens_nothing(run, tmp_path, command):
    path = tmp_path / "song.wav"
    path.write_bytes(b"no sound")
    out = tmp_path / ("out.wav" if command == "generate" else "run")
    code, _, errors = run(command, *PROMPT, "--begin-with", path, "--out", out)
    assert code == 2
    assert errors == (
        "error: song.wav holds no sound that can be read; a source is a WAV, FLAC, MP3 or Ogg "
        "file\n"
    )
    assert not out.exists()
