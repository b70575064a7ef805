"""The text encoder is transformers' T5, and its tokenizer's tokens are transformers'."""

import json
import string

import pytest
import torch

from musicgen_lab.engine.text import TextEncoder, TextEncoderFiles
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.library_noise import quiet

CPU, WIDTH = torch.device("cpu"), 48
PROMPTS = [
    "piano",
    "  Calm  acoustic gUitar melody, 100%!",
    "épique 日本 <pad></s> <extra_id_1>",
    "a long piano piece " * 40,  # beyond the farthest distance that has a bucket of its own
]


def write_t5(folder, **fields):
    """Write a small T5 of transformers with random weights, and a tokenizer of letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters += [(letter, -4.0) for letter in string.ascii_letters + string.digits]
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 5}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = T5Tokenizer(vocab=letters, extra_ids=2)
        model = T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes, **fields)).eval()
        bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        bias.weight.data.normal_()  # else no distance would matter
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return model, tokenizer


def open_encoder(folder):
    projection = {
        "text_projection.weight": torch.eye(WIDTH),
        "text_projection.bias": torch.zeros(WIDTH),
    }
    return TextEncoder(TextEncoderFiles(folder), projection, CPU)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"feed_forward_proj": "gated-gelu"},
        {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 32},
    ],
)
def test_a_prompt_is_encoded_as_by_transformers(tmp_path, fields, prompt):
    model, tokenizer = write_t5(tmp_path / "t5", **fields)

    encoded = open_encoder(tmp_path / "t5").encode(prompt)

    with torch.inference_mode(), quiet():
        tokens = tokenizer([prompt], return_tensors="pt")["input_ids"]
        expected = model(input_ids=tokens).last_hidden_state[0]
    assert torch.equal(encoded, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feed_forward_proj": "gated-silu"}, "must be relu or gated-gelu, got 'gated-silu'"),
        ({"d_model": 64}, "has width 64, but the model was made for 48"),
        ({"d_ff": 32}, r"DenseReluDense.* has shape .*64.*, not .*32"),
        ({"num_layers": 4}, "encoder.block.3"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, change, message):
    write_t5(tmp_path / "t5")
    path = tmp_path / "t5" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ModelUnavailable, match=message):
        open_encoder(tmp_path / "t5")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_missing_or_damaged_tokenizer_is_refused_by_name(tmp_path, content):
    write_t5(tmp_path / "t5")
    path = tmp_path / "t5" / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)

    with pytest.raises(ModelUnavailable, match=r"tokenizer.json cannot be read .* prepare"):
        open_encoder(tmp_path / "t5")
