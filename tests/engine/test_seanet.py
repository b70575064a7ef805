"""The codec's decoder is that of transformers, layer for layer."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from musicgen_lab.engine.codec import Codec, CodecFiles
from musicgen_lab.engine.seanet import Upsampling
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.library_noise import quiet

CARD, CODEBOOKS = 32, 4


def write_encodec(folder, **fields):
    """Write a small EnCodec of transformers, with random weights and without an LSTM."""
    from transformers import EncodecConfig, EncodecModel

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = EncodecConfig(
            **{
                "sampling_rate": 32_000,
                "hidden_size": 16,
                "num_filters": 4,
                "upsampling_ratios": [8, 5, 4, 4],
                "codebook_size": CARD,
                "target_bandwidths": [1.1],
                **fields,
            }
        )
        model = EncodecModel(config).eval()
        for parameter in model.decoder.layers[1].parameters():
            parameter.data.zero_()
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_()
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return model


def open_codec(folder):
    return Codec(
        CodecFiles(folder), channels=1, codebooks=CODEBOOKS, card=CARD, device=torch.device("cpu")
    )


@pytest.mark.parametrize("frames", [1, 2, 3, 57])
@pytest.mark.parametrize(
    "fields",
    [
        {"use_causal_conv": False, "use_conv_shortcut": False},
        {"use_causal_conv": True, "trim_right_ratio": 0.4},
        {"num_residual_layers": 3, "pad_mode": "constant", "use_causal_conv": False},
        {
            "num_residual_layers": 0,
            "kernel_size": 5,
            "upsampling_ratios": [3, 2],
            "target_bandwidths": [120.0],
        },
    ],
)
def test_the_sound_is_that_of_transformers(tmp_path, fields, frames):
    model = write_encodec(tmp_path / "codec", **fields)
    codes = torch.randint(CARD, (CODEBOOKS, frames), generator=torch.Generator().manual_seed(1))

    (sound,) = open_codec(tmp_path / "codec").decode([codes])

    with torch.inference_mode():
        expected = model.decoder(model.quantizer.decode(codes[:, None]))[0]
    assert sound.shape == expected.shape
    assert torch.allclose(sound, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_type": "time_group_norm"}, "norm_type: Input should be 'weight_norm'"),
        ({"num_filters": 10**6}, "num_filters: Input should be less than or equal to 1024"),
        ({"num_residual_layers": 2}, "decoder.layers.5.block.1"),
        ({"codebook_size": None, "upsampling_ratios": [8, 5, 4, 3]}, "kernel of 8, not 6"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(tmp_path, change, message):
    write_encodec(tmp_path / "codec")
    path = tmp_path / "codec" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ModelUnavailable, match=message):
        open_codec(tmp_path / "codec")


@pytest.mark.parametrize(("stride", "length"), [(1, 1), (4, 1), (5, 37), (40, 111)])
def test_upsampling_is_the_transposed_convolution(stride, length):
    torch.manual_seed(0)
    conv = nn.ConvTranspose1d(6, 3, 2 * stride, stride)
    x = torch.randn(1, 6, length)

    with torch.no_grad():
        expected, y = conv(x), Upsampling(conv.weight, conv.bias)(x)

    assert y.shape == expected.shape
    assert torch.allclose(y, expected, atol=1e-5)
