"""A lease has one holder at a time, and ends with its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from musicgen_lab.errors import RunFolderUnwritable
from musicgen_lab.runs.leases import Leases

A, B = "a" * 64, "b" * 64
HOLD = (
    "import sys; from pathlib import Path; from musicgen_lab.runs.leases import Leases\n"
    "with Leases(Path(sys.argv[1])) as leases:\n"
    "    print(leases.take(sys.argv[2]), flush=True); sys.stdin.read()"
)


def hold(folder, key):
    """Start a process that takes a lease and keeps it until its input ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return holder, holder.stdout.readline()


def test_one_process_has_a_lease_and_others_are_refused_that_one_alone(tmp_path):
    holder, taken = hold(tmp_path, A)
    with holder, Leases(tmp_path) as leases:
        assert taken == "True\n"
        assert not leases.take(A)
        assert leases.take(B)
        assert hold(tmp_path, B)[1] == "False\n"
        holder.stdin.close()


def test_a_lease_ends_with_its_process_however_that_ends(tmp_path):
    holder, _ = hold(tmp_path, A)
    with holder, Leases(tmp_path) as leases:
        assert not leases.take(A)
        holder.kill()
        holder.wait()
        assert leases.take(A)


def test_two_sweeps_in_one_process_exclude_each_other(tmp_path):
    with Leases(tmp_path) as first:
        with Leases(tmp_path) as second:
            assert first.take(A) and first.take(A)
            assert not second.take(A)
            first.release(A)
            assert second.take(A)
        assert first.take(A)  # the end of the second gave it up
        assert first.take(B)
        holder, taken = hold(tmp_path, B)  # and kept those of the first
        with holder:
            assert taken == "False\n"
            holder.stdin.close()


def test_a_file_of_leases_that_is_a_link_is_neither_followed_nor_made_elsewhere(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / ".leases").symlink_to(elsewhere)
    with pytest.raises(RunFolderUnwritable), Leases(tmp_path):
        pass
    assert not elsewhere.exists()


def test_giving_up_a_lease_twice_does_not_take_it_from_the_sweep_that_has_it_now(tmp_path):
    with Leases(tmp_path) as first, Leases(tmp_path) as second, Leases(tmp_path) as third:
        assert first.take(A)
        first.release(A)
        assert second.take(A)
        first.release(A)
        assert not third.take(A)
