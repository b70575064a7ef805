"""`Model`: a model folder, opened."""

from __future__ import annotations

from pathlib import Path

from musicgen_lab.engine.codec import CodecFiles
from musicgen_lab.engine.text import TextEncoderFiles
from musicgen_lab.models.checkpoint import open_checkpoint
from musicgen_lab.models.config import CODEC_FOLDER, TEXT_ENCODER_FOLDER


class Model:
    """A model folder's configurations, tokenizer and weights, on no device yet.

    Opening it reads headers only and touches no GPU; the weights stay in their files until they
    are needed, or are read at once by `load`.

    Parameters
    ----------
    folder : Path
        Made by `conversion.convert`.

    Attributes
    ----------
    config : ModelConfig
    lm : Checkpoint
    text_encoder : TextEncoderFiles
    codec : CodecFiles

    Raises
    ------
    ModelUnavailable
        When a file is missing, damaged, or does not fit its configuration.
    """

    def __init__(self, folder: Path) -> None:
        self.config, self.lm = open_checkpoint(folder)
        self.text_encoder = TextEncoderFiles(folder / TEXT_ENCODER_FOLDER)
        self.codec = CodecFiles(folder / CODEC_FOLDER)

    def load(self) -> None:
        """Read all weights into this process's memory, in the precision they are stored in.

        A snapshot of the process then holds them, and no file is read after it.
        """
        for weights in (self.lm, self.text_encoder.weights, self.codec.weights):
            weights.load()
