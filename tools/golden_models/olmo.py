"""OLMo 1 to 3."""
from golden_models.common import new_spelling, old_spelling, without

OLMO = {
    "architectures": ["OlmoForCausalLM"], "model_type": "olmo", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 75, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 128, "tie_word_embeddings": False, "attention_bias": False,
    "clip_qkv": None, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 1,
}
OLMO2 = without(OLMO, "clip_qkv") | {
    "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "rms_norm_eps": 1e-6,
}
OLMO3 = OLMO2 | {
    "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "sliding_window": 8, "num_hidden_layers": 4,
}

CONFIGS = {
    "olmo": OLMO | new_spelling(),
    # Low enough that many of Q, K and V are cut.
    "olmo_clip": OLMO | old_spelling() | {
        "clip_qkv": 2.5, "num_attention_heads": 3, "num_key_value_heads": 3, "num_hidden_layers": 3},
    "olmo_tied": OLMO | new_spelling(theta=50000.0) | {
        "tie_word_embeddings": True, "attention_bias": True, "hidden_size": 60, "clip_qkv": 4.0},
    "olmo2": OLMO2 | new_spelling(theta=500000.0),
    "olmo2_mha": without(OLMO2, "num_key_value_heads", "rms_norm_eps") | old_spelling(theta=500000.0) | {
        "num_attention_heads": 4, "num_hidden_layers": 3},
    "olmo2_tied": OLMO2 | new_spelling() | {
        "tie_word_embeddings": True, "attention_bias": True, "rms_norm_eps": 0.02, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 160},
    # As published: one set of parameters, which scales the layers without a window.
    "olmo3": OLMO3 | old_spelling(theta=500000.0, scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0,
        "attention_factor": 1.2079441541679836}),
    "olmo3_layer_types": without(OLMO3, "num_key_value_heads") | {
        "num_hidden_layers": 3, "num_attention_heads": 3, "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "sliding_window": 12, "attention_bias": True, "dtype": "float32",
        "rope_parameters": {"full_attention": {"rope_theta": 300000.0, "rope_type": "linear", "factor": 4.0},
                            "sliding_attention": {"rope_theta": 2000.0, "rope_type": "default"}}},
    "olmo3_defaults": without(OLMO3, "rms_norm_eps") | {"tie_word_embeddings": True, "num_attention_heads": 4, "dtype": "float32"},
}
