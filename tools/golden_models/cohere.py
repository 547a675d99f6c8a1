"""Cohere (Command-R) and Cohere 2 (Command-R7B): attention and feed-forward side by side."""
from golden_models.common import new_spelling, old_spelling

COHERE = {
    "architectures": ["CohereForCausalLM"], "model_type": "cohere", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 75, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 128, "layer_norm_eps": 1e-5, "logit_scale": 0.75,
    "attention_bias": False, "use_qk_norm": False, "bos_token_id": 1, "eos_token_id": 2,
}
COHERE2 = {key: value for key, value in COHERE.items() if key != "use_qk_norm"} | {
    "architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", "num_hidden_layers": 4, "sliding_window": 8,
}

# Without positions, a bias of K adds the same to all scores of a query: nothing changes.
FAINT = [r"model\.layers\.N\.self_attn\.k_proj\.bias"]

CONFIGS = {
    "cohere": COHERE | new_spelling(theta=8000000.0),
    "cohere_qk_norm": COHERE | old_spelling(theta=75000.0) | {
        "use_qk_norm": True, "hidden_size": 60, "layer_norm_eps": 0.02, "num_hidden_layers": 3, "logit_scale": 1.25},
    # Theta is the family's default, 500000.
    "cohere_untied": COHERE | {
        "tie_word_embeddings": False, "attention_bias": True, "num_attention_heads": 4, "num_key_value_heads": 4,
        "num_hidden_layers": 2, "use_qk_norm": True, "logit_scale": 1.0},
    # Windows in three layers of four, which alone have rotary positions.
    "cohere2": COHERE2 | new_spelling(theta=50000.0),
    "cohere2_pattern": COHERE2 | old_spelling(theta=50000.0) | {
        "sliding_window_pattern": 2, "sliding_window": 12, "num_attention_heads": 4, "num_key_value_heads": 1},
    "cohere2_layer_types": COHERE2 | new_spelling() | {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "num_hidden_layers": 3,
        "attention_bias": True, "tie_word_embeddings": False, "sliding_window": 17},
}
