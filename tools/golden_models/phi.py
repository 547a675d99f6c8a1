"""Phi-1, 1.5 and 2; Phi-3 and Phi-4."""
from golden_models.common import new_spelling, old_spelling, ramp, without

PHI = {
    "architectures": ["PhiForCausalLM"], "model_type": "phi", "vocab_size": 150, "hidden_size": 48, "intermediate_size": 101,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": None, "hidden_act": "gelu_new",
    "max_position_embeddings": 128, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "qk_layernorm": False,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}
PHI3 = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 150, "hidden_size": 48, "intermediate_size": 77,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_act": "silu",
    "max_position_embeddings": 128, "original_max_position_embeddings": 128, "rms_norm_eps": 1e-5, "sliding_window": None,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}

CONFIGS = {
    "phi": PHI | old_spelling(),
    "phi_gqa": without(PHI, "partial_rotary_factor") | new_spelling(theta=5000.0) | {
        "hidden_size": 72, "num_attention_heads": 6, "num_key_value_heads": 2, "layer_norm_eps": 0.02},
    "phi_qk_norm": PHI | new_spelling(rope_type="linear", factor=2.0) | {
        "qk_layernorm": True, "hidden_size": 60, "num_attention_heads": 3, "partial_rotary_factor": 0.4, "vocab_size": 257},

    "phi3": PHI3 | old_spelling(),
    "phi3_window": PHI3 | old_spelling() | {
        "sliding_window": 11, "num_key_value_heads": None, "num_attention_heads": 4, "rms_norm_eps": 0.02, "num_hidden_layers": 3},
    "phi3_longrope": PHI3 | old_spelling(scaling={
        "type": "longrope", "short_factor": ramp(1.0, 1.5, 6), "long_factor": ramp(1.2, 9.0, 6)}) | {
        "original_max_position_embeddings": 24, "hidden_size": 72, "sliding_window": 200},
    # As Phi-4-mini.
    "phi3_partial": PHI3 | new_spelling(
        rope_type="longrope", short_factor=ramp(1.0, 1.2, 6), long_factor=ramp(1.0, 6.0, 6), partial_rotary_factor=0.75) | {
        "original_max_position_embeddings": 32, "hidden_size": 64, "num_attention_heads": 4, "tie_word_embeddings": True,
        "vocab_size": 257},
}
