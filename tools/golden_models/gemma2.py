"""Gemma 2 and Gemma 3 (text)."""
from golden_models.common import new_spelling, old_spelling

GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "vocab_size": 160, "hidden_size": 48,
    "intermediate_size": 77, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "attention_bias": False,
    "query_pre_attn_scalar": 16, "sliding_window": 8, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}
GEMMA3 = GEMMA2 | {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
}

CONFIGS = {
    "gemma2": GEMMA2 | old_spelling() | {
        "attn_logit_softcapping": 20.0, "final_logit_softcapping": 15.0, "num_hidden_layers": 5},
    "gemma2_usual_caps": GEMMA2 | new_spelling() | {
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 24, "query_pre_attn_scalar": 30, "num_hidden_layers": 4},
    "gemma2_no_caps": GEMMA2 | new_spelling(theta=500000.0) | {
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "num_attention_heads": 3, "num_key_value_heads": 3,
        "attention_bias": True, "rms_norm_eps": 0.02, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    "gemma3": GEMMA3 | {
        "num_hidden_layers": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 5000.0, "rope_scaling": None,
        "torch_dtype": "float32"},
    "gemma3_scaled": GEMMA3 | {
        "num_hidden_layers": 4, "sliding_window_pattern": 3, "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 12,
        "hidden_size": 60, "rope_theta": 50000.0, "rope_local_base_freq": 10000.0, "torch_dtype": "float32",
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "query_pre_attn_scalar": 20},
    "gemma3_new_spelling": GEMMA3 | {
        "num_hidden_layers": 5, "dtype": "float32", "rms_norm_eps": 0.02, "final_logit_softcapping": 20.0,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_theta": 300000.0, "rope_type": "default"},
                            "sliding_attention": {"rope_theta": 2000.0, "rope_type": "default"}}},
}
