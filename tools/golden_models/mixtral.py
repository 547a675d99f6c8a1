"""Mixtral."""
from golden_models.common import new_spelling, old_spelling

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 144, "hidden_size": 48,
    "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "sliding_window": None, "num_local_experts": 4, "num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "mixtral": MIXTRAL | old_spelling(theta=1000000.0),
    "mixtral_window": MIXTRAL | new_spelling() | {
        "sliding_window": 12, "head_dim": 12, "num_local_experts": 7, "num_experts_per_tok": 3, "num_hidden_layers": 3,
        "tie_word_embeddings": True, "num_key_value_heads": 1},
    # One expert a token: its weight is always 1.
    "mixtral_one_expert": MIXTRAL | new_spelling(theta=50000.0) | {
        "num_local_experts": 3, "num_experts_per_tok": 1, "num_key_value_heads": 6, "intermediate_size": 50,
        "rms_norm_eps": 0.03},
}
