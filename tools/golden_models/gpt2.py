"""GPT-2."""

GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 150, "n_embd": 48, "n_layer": 2, "n_head": 4,
    "n_positions": 128, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False,
    "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "gpt2": GPT2,
    "gpt2_inner": GPT2 | {"n_inner": 99, "n_embd": 51, "n_head": 3, "layer_norm_epsilon": 0.02, "n_layer": 3},
    "gpt2_untied": GPT2 | {"tie_word_embeddings": False, "n_embd": 72, "n_head": 6, "vocab_size": 257},
    "gpt2_layer_scale": GPT2 | {"scale_attn_by_inverse_layer_idx": True, "n_head": 6},
}
