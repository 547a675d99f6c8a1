"""DeepSeek V2 and V3."""
from golden_models.common import new_spelling, old_spelling

SHARED = {
    "vocab_size": 140, "hidden_size": 48, "intermediate_size": 61, "num_attention_heads": 4, "num_key_value_heads": 4,
    "hidden_act": "silu", "max_position_embeddings": 160, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_bias": False, "num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_intermediate_size": 19,
    "n_shared_experts": 2, "num_experts_per_tok": 2, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "bos_token_id": 1, "eos_token_id": 2,
}
DEEPSEEK_V2 = SHARED | {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": None, "n_routed_experts": 6,
    "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False,
    "routed_scaling_factor": 1.0, "mlp_bias": False,
}
DEEPSEEK_V3 = SHARED | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "q_lora_rank": 20, "n_routed_experts": 8,
    "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 0,
}


def yarn(mscale, mscale_all_dim):
    return {"type": "yarn", "factor": 5.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1,
            "mscale": mscale, "mscale_all_dim": mscale_all_dim}


CONFIGS = {
    "deepseek_v2": DEEPSEEK_V2 | old_spelling(scaling=yarn(0.707, 0.707)),
    "deepseek_v2_groups": DEEPSEEK_V2 | new_spelling(theta=50000.0) | {
        "q_lora_rank": 22, "n_routed_experts": 12, "n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy",
        "num_experts_per_tok": 3, "routed_scaling_factor": 3.0, "attention_bias": True, "mlp_bias": True,
        "n_shared_experts": 1, "first_k_dense_replace": 2, "rms_norm_eps": 0.01, "num_attention_heads": 3,
        "num_key_value_heads": 3, "qk_nope_head_dim": 14, "v_head_dim": 21, "kv_lora_rank": 38, "qk_rope_head_dim": 10},
    "deepseek_v3": DEEPSEEK_V3 | old_spelling(scaling=yarn(1.0, 1.2)),
    "deepseek_v3_flat": DEEPSEEK_V3 | new_spelling() | {
        "q_lora_rank": None, "n_group": 1, "norm_topk_prob": False, "rope_interleave": False, "tie_word_embeddings": True,
        "num_experts_per_tok": 3, "attention_bias": True, "first_k_dense_replace": 0, "num_hidden_layers": 2,
        "routed_scaling_factor": 1.0},
}
