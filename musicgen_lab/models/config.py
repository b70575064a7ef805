"""`ModelConfig`: the `config.json` of a model folder, checked before anything is loaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.limits import WINDOW_S

CONFIG_FILE = "config.json"
LM_FILE = "lm.safetensors"
WEIGHTS_FILE = "model.safetensors"  # of the text encoder and of the codec
TEXT_ENCODER_FOLDER = "text_encoder"
CODEC_FOLDER = "codec"

FORMAT_VERSION: Final = 1
PARAMETERS_MAX = 20_000_000_000  # six times the largest released model
CONFIG_BYTES_MAX = 1_000_000  # a config file of this size is not a config file

Dtype = Literal["float32", "bfloat16", "float16"]
Size = Annotated[int, Field(ge=1)]
Part = TypeVar("Part", bound=BaseModel)


class Source(BaseModel):
    """The source of a model's weights.

    Attributes
    ----------
    name : str
        Hub id or folder name.
    revision : str or None
        The Hub's commit, if there is one.
    sha256 : dict of str to str
        File name to checksum of every weight file that was read.
    parts : dict of str to Source
        "text_encoder" and "codec", if they came from other repositories.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    revision: str | None = None
    sha256: dict[str, str] = Field(default_factory=dict)
    parts: dict[str, Source] = Field(default_factory=dict)


class ModelConfig(BaseModel):
    """The configuration of a model, known before its weights are opened.

    Attributes
    ----------
    dim, layers, heads, ffn_dim : int
        Width, depth, attention heads and feed-forward width of the LM.
    text_dim : int
        Width of the text encoder's output.
    card : int
        Codes per codebook; the code `card` itself is the special token.
    delays : list of int
        Steps by which each codebook lags, one per codebook, in ascending order.
    bias_proj : bool
        Whether the output layers have biases.
    max_period, positional_scale : float
        Of the sinusoidal position embedding.
    channels : int
        1, or 2 with the codebooks of left and right interleaved.
    sample_rate : int
        In Hz.
    frame_rate : float
        Codec frames per second.
    window_s : float
        Seconds that the LM attends to at most, as many as it was trained on. A longer clip is
        made in windows of this length, each of which begins with the end of the one before it.
    dtype : {"float32", "bfloat16", "float16"}
        Precision of `lm.safetensors`.
    source : Source
        Where the weights came from.
    license : str
        Licence of the weights; "unknown" if the source does not state it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    dim: Size = Field(le=16_384)
    layers: Size = Field(le=512)
    heads: Size = Field(le=512)
    ffn_dim: Size = Field(le=131_072)
    text_dim: Size = Field(le=16_384)
    card: Size = Field(le=65_536)
    delays: list[Annotated[int, Field(ge=0, le=64)]] = Field(min_length=1, max_length=64)
    bias_proj: bool = False
    max_period: float = Field(10_000.0, gt=1.0)
    positional_scale: float = 1.0
    channels: Literal[1, 2] = 1
    sample_rate: Size = Field(le=192_000)
    frame_rate: float = Field(gt=0.0, le=1_000.0)
    window_s: Annotated[float, Field(ge=1.0, le=300.0)] = WINDOW_S
    dtype: Dtype
    source: Source
    license: str = "unknown"

    @model_validator(mode="after")
    def _check_sizes_agree(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.dim % 2 or self.dim < 4:
            raise ValueError(f"dim must be even and at least 4, got {self.dim}")
        if self.delays != sorted(self.delays):
            raise ValueError(f"delays must be ascending, got {self.delays}")
        if self.codebooks % self.channels:
            raise ValueError(f"{self.codebooks} codebooks cannot be shared by two channels")
        if self.parameters > PARAMETERS_MAX:
            raise ValueError(
                f"{self.parameters:,} parameters are more than the limit of {PARAMETERS_MAX:,}"
            )
        return self

    @property
    def codebooks(self) -> int:
        """Codebooks of the LM: those of all channels."""
        return len(self.delays)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads

    @property
    def special_token(self) -> int:
        """The token where a codebook has no code."""
        return self.card

    @property
    def max_steps(self) -> int:
        """LM steps of a window."""
        return self.count_steps(self.window_s)

    @property
    def parameters(self) -> int:
        """Parameters of the LM, text projection included."""
        per_layer = 8 * self.dim**2 + 2 * self.dim * self.ffn_dim + 6 * self.dim
        tables = self.codebooks * (2 * self.card + 1) * self.dim
        return self.layers * per_layer + tables + self.text_dim * self.dim + 3 * self.dim

    def count_frames(self, duration_s: float) -> int:
        """Return the codec frames of a clip, rounded down as in audiocraft."""
        return int(duration_s * self.frame_rate)

    def count_steps(self, duration_s: float) -> int:
        """Return the LM steps of a clip: one per frame, plus the last codebook's delay."""
        return self.count_frames(duration_s) + self.delays[-1]

    def save(self, folder: Path) -> None:
        """Write `config.json` into a model folder."""
        (folder / CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_config(folder: Path) -> ModelConfig:
    """Read and check the `config.json` of a model folder.

    Raises
    ------
    ModelUnavailable
        When the file is missing, is not JSON, or has invalid values.
    """
    with suppress(OSError):  # such as of a folder closed to this user, which is reported below
        if not (folder / CONFIG_FILE).exists():
            raise ModelUnavailable(
                f"{folder} is not a model folder: it has no {CONFIG_FILE}; make one with "
                "`musicgen-lab models prepare`"
            )
    return load_part_config(ModelConfig, folder)


def load_part_config(kind: type[Part], folder: Path) -> Part:
    """Read and check the `config.json` of a model folder, of its text encoder or its codec.

    Parameters
    ----------
    kind : type of BaseModel
        `ModelConfig`, `T5Config` or `CodecConfig`.
    folder : Path

    Raises
    ------
    ModelUnavailable
        When the file is missing, is not JSON, or has invalid values.
    """
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise ModelUnavailable(f"{path} is larger than {CONFIG_BYTES_MAX:,} bytes")
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelUnavailable(
            f"{path} cannot be read ({error.strerror}); prepare the model again"
        ) from None
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(map(str, detail["loc"])) or "the file"
        raise ModelUnavailable(
            f"{path} is damaged ({where}: {detail['msg']}); prepare the model again"
        ) from None


def is_model_folder(folder: Path) -> bool:
    """Return whether the engine can open a folder, without loading its weights."""
    return (folder / CONFIG_FILE).is_file() and (folder / LM_FILE).is_file()


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in `lm.safetensors`."""
    dim, ffn_dim = config.dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (config.codebooks, config.card + 1, dim),
        "text_projection.weight": (dim, config.text_dim),
        "text_projection.bias": (dim,),
        "out_norm.weight": (dim,),
        "out_norm.bias": (dim,),
        "heads.weight": (config.codebooks * config.card, dim),
    }
    if config.bias_proj:
        shapes["heads.bias"] = (config.codebooks * config.card,)
    for index in range(config.layers):
        layer: dict[str, tuple[int, ...]] = {
            "self_qkv.weight": (3 * dim, dim),
            "self_out.weight": (dim, dim),
            "cross_q.weight": (dim, dim),
            "cross_kv.weight": (2 * dim, dim),
            "cross_out.weight": (dim, dim),
            "ffn_in.weight": (ffn_dim, dim),
            "ffn_out.weight": (dim, ffn_dim),
        }
        for norm in ("self_norm", "cross_norm", "ffn_norm"):
            layer |= {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)}
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes
