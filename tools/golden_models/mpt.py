"""MPT: ALiBi, clipped Q, K and V, no biases. transformers ignores what MosaicML's own code reads besides
(`alibi_bias_max`, `expansion_ratio`): the usual values are all that can be recorded."""

MPT = {
    "architectures": ["MptForCausalLM"], "model_type": "mpt", "vocab_size": 150, "d_model": 48, "n_heads": 4, "n_layers": 2,
    "expansion_ratio": 4, "max_seq_len": 128, "no_bias": True, "layer_norm_epsilon": 1e-5, "bos_token_id": 1,
    "eos_token_id": 2, "attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": None, "softmax_scale": None},
}

CONFIGS = {
    "mpt": MPT,
    "mpt_clip": MPT | {"attn_config": {"alibi": True, "clip_qkv": 2.0}, "d_model": 60, "n_heads": 6, "n_layers": 3},
    "mpt_scale": MPT | {"attn_config": {"softmax_scale": 0.5}, "d_model": 51, "n_heads": 3, "tie_word_embeddings": False,
                        "layer_norm_epsilon": 0.02},
}
