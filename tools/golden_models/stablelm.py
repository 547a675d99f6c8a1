"""StableLM."""
from golden_models.common import new_spelling, old_spelling, without

STABLELM = {
    "architectures": ["StableLmForCausalLM"], "model_type": "stablelm", "vocab_size": 150, "hidden_size": 64,
    "intermediate_size": 101, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_act": "silu",
    "max_position_embeddings": 128, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "use_qkv_bias": False,
    "qk_layernorm": False, "use_parallel_residual": False, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "stablelm": STABLELM | old_spelling(),
    "stablelm_bias": without(STABLELM, "partial_rotary_factor") | old_spelling(theta=5000.0) | {
        "use_qkv_bias": True, "num_attention_heads": 8, "num_key_value_heads": 2, "layer_norm_eps": 0.02,
        "tie_word_embeddings": True},
    # As StableLM 2 12B.
    "stablelm_parallel": STABLELM | new_spelling() | {
        "use_parallel_residual": True, "qk_layernorm": True, "hidden_size": 72, "num_attention_heads": 6,
        "num_key_value_heads": 3, "partial_rotary_factor": 0.5, "num_hidden_layers": 3, "vocab_size": 257},
}
