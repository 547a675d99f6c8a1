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
}
