"""The memory that is free here."""

import pytest
import torch

from musicgen_lab.engine import device
from musicgen_lab.engine.device import free_bytes

STAT = "anon 700000\nfile 300000\ninactive_file 200000\nactive_file 50000\nshmem 50000\n"


@pytest.mark.parametrize(
    ("limit", "free"), [("1500000\n", 750_000), ("900000\n", 150_000), ("700000\n", 0)]
)
def test_a_container_has_what_its_limit_leaves_and_what_it_keeps_of_files(
    tmp_path, monkeypatch, limit, free
):
    for name, content in (("max", limit), ("current", "1000000\n"), ("stat", STAT)):
        (tmp_path / f"memory.{name}").write_text(content)
    monkeypatch.setattr(device, "_CGROUP", tmp_path)

    assert free_bytes(torch.device("cpu")) == free


@pytest.mark.parametrize("limit", ["max\n", None])
def test_a_machine_without_a_limit_has_what_the_system_says(tmp_path, monkeypatch, limit):
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(device, "_CGROUP", tmp_path)

    assert free_bytes(torch.device("cpu")) > 1e8
