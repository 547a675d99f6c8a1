"""Qwen2-MoE and Qwen3-MoE."""
from golden_models.common import new_spelling, old_spelling

QWEN2_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "vocab_size": 152, "hidden_size": 48,
    "intermediate_size": 77, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "use_sliding_window": False, "sliding_window": 8, "max_window_layers": 28, "decoder_sparse_step": 1,
    "moe_intermediate_size": 21, "shared_expert_intermediate_size": 45, "num_experts": 6, "num_experts_per_tok": 2,
    "norm_topk_prob": False, "bos_token_id": 1, "eos_token_id": 2,
}
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 136, "hidden_size": 56,
    "intermediate_size": 95, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 20,
    "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "use_sliding_window": False, "sliding_window": None, "decoder_sparse_step": 1,
    "moe_intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True, "mlp_only_layers": [],
    "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "qwen2_moe": QWEN2_MOE | old_spelling(theta=1000000.0),
    # Layers 0 and 2 are dense by the step, layer 3 by name.
    "qwen2_moe_sparse_step": QWEN2_MOE | new_spelling() | {
        "decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 4, "norm_topk_prob": True,
        "qkv_bias": False, "tie_word_embeddings": True, "num_experts_per_tok": 3},
    # Layers 0 and 2 slide.
    "qwen2_moe_window": QWEN2_MOE | new_spelling() | {
        "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3, "num_hidden_layers": 4,
        "num_attention_heads": 3, "num_key_value_heads": 1},

    "qwen3_moe": QWEN3_MOE | new_spelling(theta=1000000.0),
    "qwen3_moe_biases_tied": QWEN3_MOE | old_spelling() | {
        "attention_bias": True, "tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 1,
        "head_dim": 12, "num_hidden_layers": 3, "rms_norm_eps": 0.02, "mlp_only_layers": [1], "norm_topk_prob": False,
        "use_sliding_window": True, "sliding_window": 14},
}
