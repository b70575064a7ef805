"""The command prints one line for every error a user can make, before anything slow starts."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from tests.support.command import PROMPT, run_command, run_here

SWEEP_ERRORS = {
    "a temperature of warm": (
        ["--temperature", "warm"],
        "temperature must be a number from 0 to 10, got 'warm'",
    ),
    "a duration of 345": (
        ["--duration", "345"],
        "duration must be a number from 1 to 300 seconds, got 345",
    ),
    "a cfg_coef that is not a number": (
        ["--cfg-coef", "1,nan"],
        "cfg_coef must be a number from 0 to 100, got nan",
    ),
    "a prompt of 10,000 characters": (
        ["--prompt", "x" * 10_000],
        "prompt must be text of 1 to 1,000 characters, got 10000 characters; shorten it",
    ),
    "an unknown model": (
        ["--model", "nope"],
        "no model is called 'nope'; use demo, facebook/musicgen-small,",
    ),
    "a folder without a model": (
        ["--model", "."],
        "holds no model: a model folder has config.json",
    ),
    "an unknown backend": (["--backend", "cloud"], "no backend is called 'cloud'; use local"),
    "a misspelt option": (["--cfg-coeff", "3"], "No such option '--cfg-coeff'. Did you mean"),
    "values separated by spaces": (
        ["--temperature", "0.7", "1.0"],
        "(1.0); quote a text with spaces, and separate several values by commas alone",
    ),
    "a range without end": (["--seed", "0:10:0"], "0:10:0 is not a range: its step is 0"),
    "a range beyond all sense": (["--seed", "0:4294967296"], "a sweep has at most 1,000,000 clips"),
    "no slots": (["--max-clips", "0"], "max_clips must be auto or at least 1, got 0"),
    "a swept field that cannot act": (
        ["--top-p", "0.9", "--top-k", "50,250"],
        "sweeping top_k does nothing where top_p 0.9 replaces it",
    ),
    "ten thousand clips": (["--seed", "0:10000"], "10,000 clips are many; add --yes to make them"),
}


@pytest.mark.parametrize("mistake", SWEEP_ERRORS)
def test_a_mistake_ends_in_one_line_and_exit_code_2(tmp_path, mistake):
    arguments, message = SWEEP_ERRORS[mistake]
    done = run_here("sweep", *PROMPT, *arguments, "--out", tmp_path / "run", cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, done.stdout) == (2, "")
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--port", "99999", "99999 is not in the range 0<=x<=65535"),
        ("--drain", "nan", "nan is not a finite number of seconds"),
        ("--timeout", "-1", "-1.0 is not in the range x>0"),
    ],
)
def test_a_service_is_not_started_with_what_cannot_be(option, value, message):
    done = run_here("serve", option, value)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named_before_the_model_is_opened(monkeypatch):
    monkeypatch.setattr("musicgen_lab.conversion.prepare.prepare", None)  # nothing may call it
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_here("serve", "--port", port)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port} (")
    assert done.stderr.endswith("name another with --port\n")


def test_a_missing_prompt_is_named():
    done = run_command("sweep", "--out", "x")
    assert (done.returncode, done.stderr) == (
        2,
        "error: Missing option '--prompt' or '--prompt-file'.\n",
    )


def test_a_folder_with_other_contents_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    done = run_here("sweep", *PROMPT, "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path} holds something else (thesis.tex); give a")


def test_generate_refuses_a_file_it_cannot_write_before_it_makes_the_clip(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    for out, message in (
        ("a.mp3", "must end in .wav"),
        ("no/a.wav", "a folder that exists"),
        ("folder.wav", "a file that can be written"),
    ):
        done = run_here("generate", *PROMPT, "--out", tmp_path / out)
        assert done.returncode == 2
        assert message in done.stderr


def test_a_report_of_a_folder_without_a_run_is_refused(tmp_path):
    done = run_here("report", tmp_path)
    assert done.returncode == 2
    assert "holds no run" in done.stderr


def test_a_report_of_a_run_refuses_the_options_of_a_backend_which_it_has_no_use_for(tmp_path):
    done = run_here("report", tmp_path, "--device", "cuda")
    assert done.returncode == 2
    assert "--device is for --batch, which makes clips; leave it out" in done.stderr


def test_the_plan_is_printed_and_nothing_is_made(tmp_path):
    done = run_here(
        "sweep", *PROMPT, "--temperature", "0.7,1.0", "--temperature", "1.3", "--cfg-coef", "1,3,5",
        "--seed", "0:2", "--duration", "4", "--out", tmp_path / "run", "--plan",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = dict(
        line.split(maxsplit=1) for line in done.stdout.replace("to make", "to_make").splitlines()
    )
    assert lines["cells"] == "9"
    assert lines["clips"] == "18"
    assert lines["to_make"] == "18 (72 s of audio)"
    assert not (tmp_path / "run").exists()


def test_prompts_are_repeated_rather_than_split_at_commas(tmp_path):
    done = run_here(
        "sweep", "--prompt", "slow, sad piano", "--prompt", "fast, glad piano",
        "--out", tmp_path / "run", "--plan",
    )  # fmt: skip
    assert "cells           2" in done.stdout


def test_without_torch_it_says_which_extra_to_install(tmp_path):
    """A base install has no torch: an import hook simulates that."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
    )
    done = run_command(
        "generate", *PROMPT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "needs torch" in done.stderr
    assert "pip install 'musicgen-lab[local]'" in done.stderr


@pytest.mark.parametrize("module", ["click", "pydantic", "torch"])
def test_ctrl_c_while_a_library_is_imported_ends_in_one_line(tmp_path, module):
    """An import hook interrupts the process at the moment when the library is looked up."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    done = run_command(
        "generate", *PROMPT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path
    )
    assert done.returncode == 130
    assert done.stderr == "\nerror: stopped\n"  # after the terminal's ^C


def test_help_names_every_command_and_every_field():
    assert run_here().returncode == 2
    assert {"generate", "sweep", "report"} <= set(run_here("--help").stdout.split())
    text = run_here("sweep", "--help").stdout
    for option in ("--prompt", "--duration", "--temperature", "--top-k", "--top-p", "--cfg-coef"):
        assert option in text


def test_importing_the_library_needs_no_torch():
    import subprocess

    code = "import sys, musicgen_lab; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout == "[]\n"
