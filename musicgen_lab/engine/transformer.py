"""`Transformer`: MusicGen's language model, one step at a time, over a paged key-value cache.

It computes the same function as audiocraft's for a batch whose rows have different context lengths
and prompts. The result of a row depends on that row alone:

- linear layers give a row the same bits independent of the other rows;
- self-attention runs over exactly a row's own context, and cross-attention over exactly its own
  prompt, with keys and values computed once per prompt;
- rows without a text (for classifier-free guidance) skip cross-attention: its keys and values would
  be zero (the text is zeroed and there are no biases), and so would its result.

A step uses torch's operations with the layers of `engine.linear` and `engine.attention`
(`TorchStep`, the reference), or on a GPU the kernels of `engine.kernels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.attention import Attend, attend, attend_among, store
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.linear import Linear, PlainLinear, make_linear
from musicgen_lab.engine.positions import sinusoidal_positions
from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.models.config import ModelConfig

_NORM_EPS = 1e-5


class Steps(Protocol):
    """A device's implementation of the steps of a `Transformer`.

    Attributes
    ----------
    prefill_clips : int
        As in `Transformer`.
    """

    prefill_clips: int

    def __call__(self, rows: StepRows, cache: Tensor) -> Tensor:
        """Run one step, see `Transformer.step`."""

    def prefill(self, rows: StepRows, cache: Tensor) -> None:
        """Run many steps, see `Transformer.prefill`."""


class Transformer:
    """MusicGen's language model on one device.

    Parameters
    ----------
    config : ModelConfig
    tensors : mapping of str to Tensor
        As in `lm.safetensors`; read one by one, so that a mapping that reads from disk never has
        the whole model in memory twice.
    device, dtype : torch.device, torch.dtype
        Where and in which precision to compute.
    rows : int
        The most rows that a step may have.

    Attributes
    ----------
    prefill_clips : int
        The most clips whose steps `prefill` should take at once.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        rows: int,
    ) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        make = _LinearMaker(device, dtype, rows)
        weights = (tensors[f"layers.{i}.cross_kv.weight"] for i in range(config.layers))
        # The rows are the tokens of one prompt, always multiplied together: plain layers suffice.
        make_cross_kv = make.linear if device.type == "cpu" else make.plain_linear
        self._cross_kv = [make_cross_kv(weight) for weight in weights]
        self._steps = _make_steps(config, tensors, device=device, dtype=dtype, rows=rows)
        self.prefill_clips = self._steps.prefill_clips
        self._cache_dtype = cache_dtype(device, dtype)

    def make_cache(self, blocks: int, block_len: int) -> Tensor:
        """Allocate blocks of keys and values, for steps and prompts.

        Returns
        -------
        Tensor
            (L, 2, blocks, H, block_len, D). On the CPU memory is only used once it is written.
        """
        c = self.config
        shape = (c.layers, 2, blocks, c.heads, block_len, c.head_dim)
        return torch.empty(shape, device=self.device, dtype=self._cache_dtype)

    def encode_prompt(self, text: Tensor) -> Tensor:
        """Compute a prompt's keys and values for cross-attention.

        Parameters
        ----------
        text : Tensor
            (T, dim), from the text encoder.

        Returns
        -------
        Tensor
            (L, 2, H, T, D)
        """
        c = self.config
        text = text.to(self.device, self.dtype)
        projected = torch.stack([cross_kv(text) for cross_kv in self._cross_kv])
        split = projected.view(c.layers, len(text), 2, c.heads, c.head_dim)  # (L, T, 2, H, D)
        return split.permute(0, 2, 3, 1, 4).to(self._cache_dtype)  # (L, 2, H, T, D)

    def step(self, rows: StepRows, cache: Tensor) -> Tensor:
        """Run one step of every row, writing its keys and values to the cache.

        Parameters
        ----------
        rows : StepRows
            B of them.
        cache : Tensor
            From `make_cache`, with the prompts that the rows refer to in blocks of their own.

        Returns
        -------
        Tensor
            (B, K, card) logits, float32.
        """
        return self._steps(rows, cache)

    def prefill(self, rows: StepRows, cache: Tensor) -> None:
        """Write the keys and values of many steps at once, whose tokens are all known.

        On the CPU they are bit for bit those of single steps. On a GPU the order of additions in
        attention is another one, so that in 16 bits the logits of the next step differ by their
        rounding errors. That does not depend on a clip's company: the kernels of a GPU give a row
        the same bits beside any others, and torch's operations get the steps of one clip alone.

        Parameters
        ----------
        rows : StepRows
            B of them, which may be different steps of the same sequence.
        cache : Tensor
            As for `step`.
        """
        self._steps.prefill(rows, cache)


def _make_steps(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    rows: int,
) -> Steps:
    """Return a device's implementation of the steps; the parameters are those of `Transformer`."""
    if triton_works(device):
        from musicgen_lab.engine.kernels.transformer import TritonStep

        return TritonStep(config, tensors, device=device, dtype=dtype, rows=rows)
    return TorchStep(config, tensors, device=device, dtype=dtype, rows=rows)


class TorchStep:
    """Steps in torch operations; the parameters are those of `Transformer`."""

    prefill_clips = 1  # a CPU gains nothing by more, and a GPU's bits may depend on the number

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        rows: int,
    ) -> None:
        self._config, self._dtype = config, dtype
        make = _LinearMaker(device, dtype, rows)
        self._embedding = make.tensor(tensors["embedding"])  # (K, card + 1, dim)
        self._positions = sinusoidal_positions(config).to(device, dtype)  # (steps, dim)
        self._layers = [_Layer(tensors, f"layers.{i}", make) for i in range(config.layers)]
        self._out_norm = tuple(make.tensor(tensors[f"out_norm.{p}"]) for p in ("weight", "bias"))
        bias = tensors["heads.bias"] if config.bias_proj else None
        self._heads = make.linear(tensors["heads.weight"], bias)  # to (B, K * card)

    def __call__(self, rows: StepRows, cache: Tensor) -> Tensor:
        """Run a step, see `Transformer.step`."""
        x = self._run_layers(self._layers, rows, cache, attend)
        weight, bias = self._out_norm
        logits = self._heads(F.layer_norm(x, weight.shape, weight, bias, _NORM_EPS))
        return logits.float().view(len(x), self._config.codebooks, self._config.card)

    def prefill(self, rows: StepRows, cache: Tensor) -> None:
        """Run many steps, see `Transformer.prefill`; of the last layer nothing else is needed."""
        *layers, last = self._layers
        x = self._run_layers(layers, rows, cache, attend_among)
        store(
            self._split(last.self_qkv(last.norm("self_norm", x)), 3)[:, 1:], cache[-1], rows.spans
        )

    def _run_layers(
        self, layers: Sequence[_Layer], rows: StepRows, cache: Tensor, attend_own: Attend
    ) -> Tensor:
        """Run the first layers: the rows' hidden states, (B, dim)."""
        x = self._embed(rows.tokens) + self._positions[rows.spans.context_lens - 1]  # (B, dim)
        prompted = len(rows.prompt_spans.context_lens)
        for index, layer in enumerate(layers):
            qkv = self._split(layer.self_qkv(layer.norm("self_norm", x)), 3)
            x = x + layer.self_out(self._attend(attend_own, qkv, cache[index], rows.spans))
            if prompted:
                q = self._split(layer.cross_q(layer.norm("cross_norm", x[:prompted])), 1)
                attended = self._attend(attend, q, cache[index], rows.prompt_spans)
                x[:prompted] += layer.cross_out(attended)
            x = x + layer.ffn_out(F.gelu(layer.ffn_in(layer.norm("ffn_norm", x))))
        return x

    def _embed(self, tokens: Tensor) -> Tensor:
        """Add up the embeddings of a step's codes: (B, K) to (B, dim)."""
        x = self._embedding[0, tokens[:, 0]]
        for k in range(1, self._config.codebooks):
            x = x + self._embedding[k, tokens[:, k]]
        return x

    def _split(self, projected: Tensor, kinds: int) -> Tensor:
        """Split queries, or queries, keys and values, by heads: to (B, kinds, H, D)."""
        return projected.view(len(projected), kinds, self._config.heads, -1)

    def _attend(self, attend: Attend, qkv: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
        """Attend with (B, kinds, H, D) queries, or queries, keys and values: to (B, dim)."""
        return attend(qkv, cache, spans).flatten(1).to(self._dtype)


class _Layer:
    """The weights of one layer, pre-norm."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, make: _LinearMaker) -> None:
        self.norms = {
            name: (
                make.tensor(tensors[f"{prefix}.{name}.weight"]),
                make.tensor(tensors[f"{prefix}.{name}.bias"]),
            )
            for name in ("self_norm", "cross_norm", "ffn_norm")
        }
        self.self_qkv = make.linear(tensors[f"{prefix}.self_qkv.weight"])
        self.self_out = make.linear(tensors[f"{prefix}.self_out.weight"])
        self.cross_q = make.linear(tensors[f"{prefix}.cross_q.weight"])
        self.cross_out = make.linear(tensors[f"{prefix}.cross_out.weight"])
        self.ffn_in = make.linear(tensors[f"{prefix}.ffn_in.weight"])
        self.ffn_out = make.linear(tensors[f"{prefix}.ffn_out.weight"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Normalise (B, dim)."""
        weight, bias = self.norms[name]
        return F.layer_norm(x, weight.shape, weight, bias, _NORM_EPS)


@dataclass(frozen=True)
class _LinearMaker:
    device: torch.device
    dtype: torch.dtype
    rows: int

    def tensor(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)

    def plain_linear(self, weight: Tensor) -> Linear:
        return PlainLinear(self.tensor(weight), None)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        return make_linear(weight, bias, device=self.device, dtype=self.dtype, rows=self.rows)


def cache_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the precision of the cache, for a device and the precision of everything else.

    On the CPU it is float32, as the attention kernel does not support 16-bit floats.
    """
    return torch.float32 if device.type == "cpu" else dtype
