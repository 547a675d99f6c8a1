"""Granite: Llama with four multipliers."""
from golden_models.common import new_spelling, old_spelling

GRANITE = {
    "architectures": ["GraniteForCausalLM"], "model_type": "granite", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 75, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    "attention_bias": False, "mlp_bias": False, "embedding_multiplier": 1.5, "logits_scaling": 0.75,
    "residual_multiplier": 1.3, "attention_multiplier": 0.4, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "granite": GRANITE | new_spelling(),
    "granite_untied": GRANITE | old_spelling(theta=50000.0) | {
        "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True, "num_attention_heads": 4,
        "num_key_value_heads": 4, "embedding_multiplier": 3.5, "logits_scaling": 1.25, "residual_multiplier": 1.5,
        "attention_multiplier": 0.2},
    # Every multiplier is the family's default, 1.
    "granite_defaults": {key: value for key, value in GRANITE.items() if "multiplier" not in key and key not in (
        "logits_scaling", "num_key_value_heads", "tie_word_embeddings", "rms_norm_eps")} | new_spelling() | {
            "num_attention_heads": 12},
}
