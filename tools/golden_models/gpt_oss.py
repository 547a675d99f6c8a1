"""gpt-oss."""
from golden_models.common import new_spelling, old_spelling

GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"], "attention_bias": True,
    "num_local_experts": 5, "num_experts_per_tok": 2, "swiglu_limit": 7.0, "bos_token_id": 1, "eos_token_id": 2,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 32}

CONFIGS = {
    "gpt_oss": GPT_OSS | old_spelling(theta=150000.0, scaling=YARN),
    # No layer_types: the first layer slides, and every second after it.
    "gpt_oss_layers": {key: value for key, value in GPT_OSS.items() if key != "layer_types"} | new_spelling(
        theta=10000.0, **YARN) | {
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 17,
        "num_local_experts": 8, "num_experts_per_tok": 3, "swiglu_limit": 0.8, "swiglu_alpha": 1.1,
        "tie_word_embeddings": True},
    "gpt_oss_no_bias": GPT_OSS | new_spelling() | {
        "attention_bias": False, "head_dim": 10, "num_key_value_heads": 3, "intermediate_size": 31,
        "num_local_experts": 4, "num_experts_per_tok": 4},
}
