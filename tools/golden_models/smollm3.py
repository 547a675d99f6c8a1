"""SmolLM3: Llama whose every fourth layer has no rotary positions."""
from golden_models.common import new_spelling, old_spelling

SMOLLM3 = {
    "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 75, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "attention_bias": False,
    "mlp_bias": False, "use_sliding_window": False, "sliding_window": None, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}

# Without positions, a bias of K adds the same to all scores of a query: nothing changes.
FAINT = [r"model\.layers\.N\.self_attn\.k_proj\.bias"]

CONFIGS = {
    # 1 stands for a layer that has rotary positions.
    "smollm3": SMOLLM3 | old_spelling(theta=2000000.0) | {"no_rope_layers": [1, 1, 1, 0], "no_rope_layer_interval": 4},
    "smollm3_interval": SMOLLM3 | new_spelling() | {
        "no_rope_layer_interval": 2, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 9,
        "num_key_value_heads": 1},
    # Four KV heads and a theta of 2000000 are the family's defaults.
    "smollm3_layer_types": {key: value for key, value in SMOLLM3.items() if key != "num_key_value_heads"} | {
        "num_attention_heads": 4, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "no_rope_layers": [1, 1, 0],
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
}
