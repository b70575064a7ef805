"""`Model`: a model folder, opened."""

from __future__ import annotations

from pathlib import Path

from musicgen_lab.engine.codec import CodecFiles
from musicgen_lab.engine.text import TextEncoderFiles
from musicgen_lab.models.checkpoint import open_checkpoint
from musicgen_lab.models.checksums import check_headers
from musicgen_lab.models.config import CODEC_FOLDER, TEXT_ENCODER_FOLDER


class Model:
    """A model folder's configurations, tokenizer and weights, not loaded onto a device.

    Opening it reads headers only and uses no GPU; the weights are read from their files when they
    are needed, or all at once by `load`.

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
        When a file is missing, damaged, not what it was when the model was prepared, or does not
        fit its configuration.
    """

    def __init__(self, folder: Path) -> None:
        check_headers(folder)
        self.config, self.lm = open_checkpoint(folder)
        self.text_encoder = TextEncoderFiles(folder / TEXT_ENCODER_FOLDER)
        self.codec = CodecFiles(folder / CODEC_FOLDER)

    def load(self) -> None:
        """Read all weights into this process's memory, in their stored precision.

        A snapshot of the process then includes them, so that no file is read after a restore.
        """
        for weights in (self.lm, self.text_encoder.weights, self.codec.weights):
            weights.load()
