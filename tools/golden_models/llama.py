"""Llama, Mistral, Ministral, Qwen 2 and Qwen 3."""
from golden_models.common import new_spelling, old_spelling, ramp, without

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 160, "hidden_size": 48,
    "intermediate_size": 101, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 144, "hidden_size": 64,
    "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2,
}
MINISTRAL = MISTRAL | {
    "architectures": ["MinistralForCausalLM"], "model_type": "ministral", "num_hidden_layers": 3, "rms_norm_eps": 1e-6,
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 152, "hidden_size": 48,
    "intermediate_size": 77, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 136, "hidden_size": 56,
    "intermediate_size": 95, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    # ---- Llama ----
    "llama_gqa": LLAMA | new_spelling(),
    "llama_biases_tied": LLAMA | old_spelling() | {
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 12, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": True},
    "llama_head_dim": LLAMA | new_spelling() | {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32},
    "llama_mqa": LLAMA | old_spelling(theta=500000.0) | {
        "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 10, "num_hidden_layers": 3,
        "rms_norm_eps": 1e-6, "intermediate_size": 67},
    # Only what has no default: KV heads, head size, eps, RoPE and tying are the family's defaults.
    "llama_defaults": without(LLAMA, "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings",
                              "attention_bias", "mlp_bias"),
    # Large enough that an engine which ignores the configured value is seen.
    "llama_eps": LLAMA | new_spelling() | {"rms_norm_eps": 0.05, "vocab_size": 320},
    "llama_linear": LLAMA | old_spelling(scaling={"type": "linear", "factor": 4.0}),
    "llama_dynamic": LLAMA | old_spelling(scaling={"type": "dynamic", "factor": 4.0}) | {"max_position_embeddings": 24},
    "llama_dynamic_new": LLAMA | new_spelling(rope_type="dynamic", factor=3.0) | {"max_position_embeddings": 32},
    "llama_llama3": LLAMA | old_spelling(theta=50000.0, scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}) | {"head_dim": 16},
    "llama_llama3_new": LLAMA | new_spelling(
        rope_type="llama3", factor=4.0, low_freq_factor=0.5, high_freq_factor=3.0,
        original_max_position_embeddings=24) | {"head_dim": 20, "tie_word_embeddings": True},
    "llama_yarn": LLAMA | new_spelling(rope_type="yarn", factor=4.0, original_max_position_embeddings=32) | {"head_dim": 16},
    "llama_yarn_mscale": LLAMA | new_spelling(
        rope_type="yarn", factor=5.0, original_max_position_embeddings=24, mscale=0.7, mscale_all_dim=1.2, truncate=False,
        beta_fast=8.0, beta_slow=0.5) | {"head_dim": 24, "num_attention_heads": 3, "num_key_value_heads": 3},
    "llama_longrope": LLAMA | new_spelling(
        rope_type="longrope", short_factor=ramp(1.0, 1.5, 8), long_factor=ramp(1.2, 9.0, 8),
        original_max_position_embeddings=24) | {"head_dim": 16},
    "llama_longrope_factor": LLAMA | old_spelling(scaling={
        "type": "longrope", "factor": 4.0, "attention_factor": 1.1, "short_factor": ramp(1.0, 1.2, 6),
        "long_factor": ramp(1.0, 6.0, 6), "original_max_position_embeddings": 32}) | {"head_dim": 12},
    # Its end token turns up in the greedy outputs, which then stop.
    "llama_end_token": LLAMA | new_spelling() | {"eos_token_id": "chosen by tools/golden.py"},

    # ---- Mistral ----
    "mistral_window": MISTRAL | old_spelling() | {"sliding_window": 8},
    "mistral_window_long": MISTRAL | new_spelling() | {"sliding_window": 33, "num_hidden_layers": 3, "head_dim": 12},
    "mistral_full": MISTRAL | new_spelling(theta=1000000.0) | {"sliding_window": None, "head_dim": 24},

    # ---- Ministral ----
    "ministral": MINISTRAL | new_spelling(theta=50000.0) | {
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "sliding_window": 9},
    "ministral_all": MINISTRAL | old_spelling() | {
        "sliding_window": 12, "num_key_value_heads": 1, "head_dim": 24, "tie_word_embeddings": True},

    # ---- Qwen2 ----
    "qwen2_tied": QWEN2 | old_spelling(theta=1000000.0) | {
        "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 8, "max_window_layers": 2},
    "qwen2_window": QWEN2 | old_spelling() | {
        "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1, "num_hidden_layers": 3},
    "qwen2_layer_types": QWEN2 | new_spelling() | {
        "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 28, "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "num_attention_heads": 3,
        "num_key_value_heads": 1},
    "qwen2_yarn": QWEN2 | old_spelling(scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}) | {
        "hidden_size": 96, "use_sliding_window": False},

    # ---- Qwen3 ----
    "qwen3": QWEN3 | new_spelling(theta=1000000.0) | {"use_sliding_window": False, "sliding_window": None},
    "qwen3_biases_tied": QWEN3 | old_spelling() | {
        "attention_bias": True, "tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 1,
        "head_dim": 12, "num_hidden_layers": 3, "rms_norm_eps": 0.02},
    "qwen3_window": QWEN3 | new_spelling() | {
        "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1, "head_dim": 16},
}
