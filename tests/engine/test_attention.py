"""Attention of one step: what it computes, and that rows which share a call do not change."""

import pytest
import torch
from torch.nn import functional as F

from musicgen_lab.engine import attention
from musicgen_lab.engine.attention import attend, rows_may_share

CPU = torch.device("cpu")


def drawn(rows, heads, keys, head_dim):
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, heads, 1, head_dim), *[(rows, heads, keys, head_dim)] * 2)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("keys", [1, 7, 300])
def test_it_is_scaled_dot_product_attention(keys):
    query, known, values = drawn(5, 4, keys, 40)

    expected = F.scaled_dot_product_attention(query, known, values)

    assert torch.allclose(attend(query, known, values), expected, atol=1e-6)


@pytest.mark.parametrize("keys", [1, 9, 130])
def test_a_query_that_lies_among_others_counts_like_one_that_lies_alone(keys):
    """Queries come as a third of rows of queries, keys and values."""
    _, known, values = drawn(6, 4, keys, 40)
    wide = torch.randn(6, 3, 4, 40, generator=torch.Generator().manual_seed(0))
    query = wide[:, 0].unsqueeze(2)

    together = attend(query, known, values)

    for row in range(6):
        one = slice(row, row + 1)
        assert torch.equal(attend(query[one], known[one], values[one])[0], together[row])


def test_rows_may_not_share_where_company_shows(monkeypatch):
    """A kernel that adds up differently for many rows than for one is found by the trial."""
    right = attention.attend

    def wrong(query, keys, values):
        return right(query, keys, values) * (1 + 1e-7 * (len(query) > 3))

    trial = {"rows": 8, "device": CPU, "dtype": torch.float32, "threads": torch.get_num_threads()}
    assert rows_may_share(4, 16, **trial)
    rows_may_share.cache_clear()
    monkeypatch.setattr(attention, "attend", wrong)
    try:
        assert not rows_may_share(4, 16, **trial)
    finally:
        rows_may_share.cache_clear()
