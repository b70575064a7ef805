"""The tokenizer of a text encoder: it is checked that it distinguishes words; it reads prompts.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import tokenizers

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.config import TEXT_ENCODER_FOLDER
from musicgen_lab.models.hub import PINNED
from musicgen_lab.models.prompt_tokens import PromptTokens

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_BYTES_MAX = 64_000_000  # T5's has 1.4 million
MISSING_TOKENIZER = (
    "copy the tokenizer.json or spiece.model of its T5 into the checkpoint (for T5-base: "
    f"`hf download t5-base spiece.model --revision {PINNED['t5-base']} --local-dir FOLDER`), "
    "then prepare the model again"
)
UNKNOWN = "<unk>"  # the token of what is in no T5's vocabulary


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer and check that it distinguishes words.

    transformers creates an empty vocabulary if the files of a T5 tokenizer are missing. Every
    prompt would then become the same few tokens.

    Parameters
    ----------
    path : Path
        A `tokenizer.json`.

    Raises
    ------
    ModelUnavailable
        When the file cannot be read, or its vocabulary is empty.
    """
    try:
        if path.stat().st_size > TOKENIZER_BYTES_MAX:
            raise ValueError(f"it is larger than {TOKENIZER_BYTES_MAX:,} bytes")
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        reason = " ".join(str(error).split())[:120]
        raise ModelUnavailable(
            f"{path} cannot be read ({reason}); prepare the model again"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if not _tells_words(tokenizer):
        raise ModelUnavailable(
            f"{path} cannot tell words apart: its vocabulary holds none, so every prompt would "
            f"become the same tokens; {MISSING_TOKENIZER}"
        )
    return tokenizer


def check_vocabulary(tokenizer: tokenizers.Tokenizer, path: Path, vocab_size: int) -> None:
    """Reject a tokenizer with more tokens than its text encoder has.

    Raises
    ------
    ModelUnavailable
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocab_size:
        raise ModelUnavailable(
            f"{path} has tokens up to number {largest:,}, but the text encoder knows "
            f"{vocab_size:,}: it is another encoder's; {MISSING_TOKENIZER}"
        )


def open_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer of a model folder.

    Raises
    ------
    ModelUnavailable
        As `read_tokenizer`.
    """
    return read_tokenizer(folder / TEXT_ENCODER_FOLDER / TOKENIZER_FILE)


def _tells_words(tokenizer: tokenizers.Tokenizer) -> bool:
    """Return whether at least two pieces of the vocabulary are encoded as different tokens."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = (piece.strip("▁Ġ ") for piece in tokenizer.get_vocab().keys() - special)
    encoded: set[tuple[int, ...]] = set()
    for word in words:
        if any(character.isalnum() for character in word):
            encoded.add(tuple(tokenizer.encode(word, add_special_tokens=False).ids))
            if len(encoded) == 2:
                return True
    return False


def read_prompt(tokenizer: tokenizers.Tokenizer, prompt: str) -> PromptTokens:
    """Return what a text encoder reads of a prompt."""
    encoding = tokenizer.encode(prompt)
    unknown = tokenizer.token_to_id(UNKNOWN)
    unread = (
        prompt[start:end].strip()
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        if token == unknown
    )
    digest = hashlib.sha256(repr(encoding.ids).encode()).hexdigest()
    return PromptTokens(digest, tuple(word for word in dict.fromkeys(unread) if word))
