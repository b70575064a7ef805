"""A CLAP model in small, with random weights, in transformers' format as the Hub gives it."""

from __future__ import annotations


def make_clap(folder):
    """Write the model into a folder and return its name."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        PreTrainedTokenizerFast,
    )

    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "piano": 4, "drums": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=20
    ).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ClapConfig(
        text_config=small
        | {"vocab_size": 6, "intermediate_size": 16, "max_position_embeddings": 30},
        audio_config={
            "patch_embeds_hidden_size": 8,
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 1, 1],
            "hidden_size": 64,
        },
        projection_dim=12,
    )
    torch.manual_seed(0)
    ClapModel(config).save_pretrained(folder)
    return str(folder)
