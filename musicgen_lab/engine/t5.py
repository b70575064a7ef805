"""`T5Encoder`: the encoder of T5, for one prompt at a time.

"Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (Raffel et al.,
2020): pre-norm blocks of self-attention without scaling, with a learned bias per distance that all
blocks share, and a feed-forward network. Importing transformers for it would take longer than
making a short clip. On the CPU the result is that of transformers' `T5EncoderModel` bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor
from torch.nn import functional as F

_Size = Annotated[int, Field(ge=1, le=65_536)]


def _gelu_tanh(x: Tensor) -> Tensor:
    """Approximate GELU by tanh, with the operations of transformers' "gelu_new"."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": F.relu,
    "gated-gelu": _gelu_tanh,
}


class T5Config(BaseModel):
    """The fields of a transformers `T5Config` that the encoder needs, with its defaults."""

    model_config = ConfigDict(frozen=True)

    vocab_size: int = Field(32_128, ge=1, le=10_000_000)
    d_model: _Size = 512
    d_kv: _Size = 64
    d_ff: _Size = 2048
    num_layers: int = Field(6, ge=1, le=256)
    num_heads: _Size = 8
    relative_attention_num_buckets: int = Field(32, ge=4, le=4096)
    relative_attention_max_distance: int = Field(128, ge=2, le=65_536)
    layer_norm_epsilon: float = Field(1e-6, gt=0.0, le=1.0)
    feed_forward_proj: str = "relu"

    @field_validator("feed_forward_proj")
    @classmethod
    def _check_activation(cls, value: str) -> str:
        if value not in _ACTIVATIONS:
            raise ValueError(f"must be {' or '.join(_ACTIVATIONS)}, got {value!r}")
        return value


EMBEDDING = "shared.weight"
_DISTANCE_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
_FINAL_NORM = "encoder.final_layer_norm.weight"


def expected_shapes(config: T5Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every tensor of an encoder, as transformers names them."""
    dim, inner, ffn = config.d_model, config.num_heads * config.d_kv, config.d_ff
    yield EMBEDDING, (config.vocab_size, dim)
    yield _DISTANCE_BIAS, (config.relative_attention_num_buckets, config.num_heads)
    yield _FINAL_NORM, (dim,)
    shapes = {"norm": (dim,), "ffn_norm": (dim,), "o": (dim, inner), "wo": (dim, ffn)}
    shapes |= dict.fromkeys("qkv", (inner, dim))
    for index in range(config.num_layers):
        for part, name in _block_parts(config).items():
            yield f"encoder.block.{index}.layer.{name}.weight", shapes.get(part, (ffn, dim))


def _block_parts(config: T5Config) -> dict[str, str]:
    """Return the tensors of a block: what they are called here, and there."""
    gated = config.feed_forward_proj.startswith("gated-")
    inputs = ("wi_0", "wi_1") if gated else ("wi",)
    return {
        "norm": "0.layer_norm",
        **{part: f"0.SelfAttention.{part}" for part in "qkvo"},
        "ffn_norm": "1.layer_norm",
        **{part: f"1.DenseReluDense.{part}" for part in (*inputs, "wo")},
    }


class T5Encoder:
    """T5's encoder in float32.

    Parameters
    ----------
    config : T5Config
    tensors : mapping of str to Tensor
        Named as in transformers' `T5EncoderModel`, in any precision.
    device : torch.device

    Raises
    ------
    KeyError, ValueError
        When a tensor is missing or does not fit the configuration.
    """

    def __init__(
        self, config: T5Config, tensors: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self._config = config
        weights: dict[str, Tensor] = {}
        for name, shape in expected_shapes(config):
            tensor = tensors[name]
            if tensor.shape != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
            weights[name] = tensor.to(device, torch.float32)

        self._embedding = weights[EMBEDDING]
        self._blocks = [
            {
                part: weights[f"encoder.block.{index}.layer.{name}.weight"]
                for part, name in _block_parts(config).items()
            }
            for index in range(config.num_layers)
        ]
        self._distance_bias = weights[_DISTANCE_BIAS]
        self._final_norm = weights[_FINAL_NORM]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Encode one prompt: (T,) tokens to (T, d_model)."""
        x = self._embedding[tokens]
        bias = self._position_bias(len(tokens))
        for block in self._blocks:
            x = x + self._attend(block, self._norm(x, block["norm"]), bias)
            x = x + self._feed_forward(block, self._norm(x, block["ffn_norm"]))
        return self._norm(x, self._final_norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Divide each row by its root mean square."""
        variance = x.pow(2).mean(-1, keepdim=True)
        return weight * (x * torch.rsqrt(variance + self._config.layer_norm_epsilon))

    def _attend(self, block: Mapping[str, Tensor], x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            F.linear(x, block[name]).view(1, len(x), -1, self._config.d_kv).transpose(1, 2)
            for name in "qkv"
        )  # (1, H, T, d_kv)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return F.linear(attended.transpose(1, 2).reshape(len(x), -1), block["o"])

    def _feed_forward(self, block: Mapping[str, Tensor], x: Tensor) -> Tensor:
        activation = _ACTIVATIONS[self._config.feed_forward_proj]
        if "wi" in block:
            return F.linear(activation(F.linear(x, block["wi"])), block["wo"])
        gate = activation(F.linear(x, block["wi_0"]))
        return F.linear(gate * F.linear(x, block["wi_1"]), block["wo"])

    def _position_bias(self, length: int) -> Tensor:
        """Return the bias of each head for each pair of positions: (1, H, T, T)."""
        positions = torch.arange(length)
        buckets = self._bucket(positions[None, :] - positions[:, None])  # keys minus queries
        bias = self._distance_bias[buckets.to(self._distance_bias.device)]  # (T, T, H)
        return bias.permute(2, 0, 1).unsqueeze(0).contiguous()

    def _bucket(self, distance: Tensor) -> Tensor:
        """Map distances to buckets: half of them per direction, small distances exactly."""
        half = self._config.relative_attention_num_buckets // 2
        exact = half // 2
        farthest = self._config.relative_attention_max_distance
        far = distance.abs()
        scaled = torch.log(far.float() / exact) / math.log(farthest / exact) * (half - exact)
        beyond = (exact + scaled.to(torch.long)).clamp(max=half - 1)
        return (distance > 0) * half + torch.where(far < exact, far, beyond)
