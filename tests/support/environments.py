"""Python environments that hold what a process of the service, or of one of its users, really has.

uv builds them, hard-linked from its cache, into pytest's cache folder, where they stay from one
run to the next for as long as their lists of packages stay the same. `pytest --cache-clear`
removes them.
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import filelock
import modal
import modal_proto
import modal_version
import pytest
import synchronicity

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / ".pytest_cache" / "environments"
LOCK = PROJECT / "requirements.lock"
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"


def uv(*arguments):
    """Run uv; raise RuntimeError with its error output when it fails."""
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        raise RuntimeError("uv, which builds the environments, is not on the PATH")
    surroundings = {name: text for name, text in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        [program, *map(str, arguments)], env=surroundings, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"uv {arguments[0]} failed: {done.stderr.strip()}")


def build(name, contents, fill):
    """Return a folder that `fill` has filled, anew when the text `contents` is another one."""
    digest = hashlib.sha256(contents.encode()).hexdigest()[:12]
    folder = FOLDER / f"{name}-{digest}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(FOLDER / f"{name}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            fill(folder)
            (folder / "complete").touch()
    return folder


def share_compiled(there):
    """Let packages have what Python and numba have compiled here of the files that are the same.

    Nothing is shared where uv copies files instead of linking them.
    """
    here = Path(sysconfig.get_path("purelib"))
    for package in there.iterdir():
        for compiled in (here / package.name).rglob("__pycache__/*"):
            name = compiled.name.partition(".")[0].removeprefix("guf-")  # numba's of a ufunc
            module = compiled.parents[1] / f"{name}.py"
            target = there / compiled.relative_to(here)
            if is_same_file(module, target.parents[1] / module.name) and not target.exists():
                target.parent.mkdir(exist_ok=True)
                target.hardlink_to(compiled)


def is_same_file(one, other):
    return one.exists() and other.exists() and one.samefile(other)


def copy_compiled(source, target):
    """Give a copy of a module its time of change, by which caches are valid, and its caches."""
    shutil.copystat(source, target)
    folder = target.parent / "__pycache__"
    folder.mkdir(exist_ok=True)
    for cached in source.parent.glob(f"__pycache__/{source.stem}.*"):
        shutil.copy2(cached, folder)


def copy_compiled_package(site):
    """Give an installed wheel of this project what is compiled of its files here."""
    for path in (site / "musicgen_lab").rglob("*.py"):
        copy_compiled(PROJECT / path.relative_to(site), path)


def environment(name, python, *installs):
    """Return a virtual environment in which each of `installs` was given to `uv pip install`.

    A word of them that is bytes is the content of a file of requirements.
    """

    def fill(folder):
        uv("venv", "--python", python, folder)
        for number, words in enumerate(installs):
            given = list(words)
            for place, word in enumerate(words):
                if isinstance(word, bytes):
                    given[place] = folder / f"requirements-{number}-{place}.txt"
                    given[place].write_bytes(word)
            uv("pip", "install", "--python", folder, *given)
        share_compiled(*folder.glob("lib/*/site-packages"))

    return build(name, repr((python, installs)), fill)


@functools.cache
def caller():
    """Return the environment of a person who typed `pip install modal`."""
    try:
        return environment("caller", CURRENT, ("-c", LOCK.read_bytes(), "modal"))
    except RuntimeError as error:
        pytest.skip(str(error))


@functools.cache
def wheel():
    """Build the wheel of this project as it is now; return its path."""
    folder = FOLDER / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    uv("build", "--wheel", "--out-dir", folder, PROJECT)
    (path,) = folder.glob("*.whl")
    return path


@functools.cache
def base():
    """Return the environment of a person who installed this package without any extra."""
    project = (PROJECT / "pyproject.toml").read_text() + LOCK.read_text()

    def fill(folder):
        uv("venv", "--python", CURRENT, folder)
        uv("pip", "install", "--python", folder, "-c", LOCK, wheel())
        share_compiled(*folder.glob("lib/*/site-packages"))

    try:
        folder = build("base", CURRENT + project, fill)
        uv("pip", "install", "--python", folder, "--no-deps", "--reinstall", wheel())
        copy_compiled_package(*folder.glob("lib/*/site-packages"))
    except RuntimeError as error:
        pytest.skip(str(error))
    return folder


def modal_client(builder, python):
    """Return the path entry that Modal adds to the path of its containers, behind the image's own.

    It holds Modal's client, and lets what the client needs be found after all that an image has:
    the packages that Modal lists for it, at this project's versions.
    """
    requirements = (Path(modal.__file__).parent / "builder" / f"{builder}.txt").read_text()
    names = set(re.findall(r"^[\w-]+", requirements, re.MULTILINE))
    names.discard("async-timeout")  # for Python before 3.11

    def fill(folder):
        target = folder / "deps"
        uv("pip", "install", "--no-deps", "--python-version", python, "--target", target,
           "-c", LOCK, *sorted(names))  # fmt: skip
        share_compiled(target)
        packages = folder / "pkg"
        packages.mkdir()
        for module in (modal, modal_proto, modal_version, synchronicity):
            source = Path(module.__file__).parent
            (packages / source.name).symlink_to(source)
        (packages / "sitecustomize.py").write_text(f"import sys; sys.path.append({str(target)!r})")

    contents = repr((modal.__version__, modal.__file__, python)) + requirements + LOCK.read_text()
    return build("modal-client", contents, fill) / "pkg"
