"""Fixtures that several packages of tests share, and how tests are spread over processes."""

from __future__ import annotations

import os
import signal

import pytest

from musicgen_lab import make_report
from tests.support.attacks import print_attacks
from tests.support.report_runs import make_run


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The page of a 3 x 3 run with a failed, a silent, a missing and a too loud clip.

    Its sounds lie beside it.
    """
    folder = make_run(
        tmp_path_factory.mktemp("reports") / "a run {with} braces & spaces",
        prompt="calm <b>guitar</b> & $5 {drums}",
        temperature=[0.7, 1.0, 1.3],
        cfg_coef=[1, 3, 5],
        loud=[0],
        missing=[2],
        failed=[4],
        silent=[6],
        duration=2,
    )
    return make_report(folder, self_contained=False, progress=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give whole files to the workers, since tests of a file share what is slow to make."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_configure(config):
    """Prepare what the processes of the tests inherit.

    They hear Ctrl-C, which a shell's background jobs ignore. With several workers their threads do
    not spin: one that spins takes the core from a thread of another worker, and clips take ten
    times as long.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None):
        os.environ["GOMP_SPINCOUNT"] = "0"


def pytest_collection_modifyitems(items):
    """Run what starts processes last; first with several workers, which then end together."""
    several = "PYTEST_XDIST_WORKER" in os.environ
    items.sort(key=lambda item: ("e2e" in item.path.parts) != several)


def pytest_terminal_summary(terminalreporter):
    """Print how much was tried against the package; here, as the process of `-n 2` needs it."""
    print_attacks(terminalreporter)
