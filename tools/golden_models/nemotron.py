"""Nemotron (Nemotron-3, Minitron): layer norms stored minus 1, squared ReLU, half of each head rotated."""
from golden_models.common import new_spelling, old_spelling

NEMOTRON = {
    "architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 75, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "hidden_act": "relu2", "max_position_embeddings": 128, "norm_eps": 1e-5, "tie_word_embeddings": False,
    "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "nemotron": NEMOTRON | old_spelling() | {"partial_rotary_factor": 0.5},
    # Half of each head is rotated where nothing is said.
    "nemotron_defaults": {key: value for key, value in NEMOTRON.items() if key not in (
        "head_dim", "norm_eps", "tie_word_embeddings")} | {"num_attention_heads": 4, "num_key_value_heads": 4},
    "nemotron_tied": NEMOTRON | new_spelling(partial_rotary_factor=0.75) | {
        "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "norm_eps": 0.02,
        "num_key_value_heads": 1, "num_hidden_layers": 3},
}
