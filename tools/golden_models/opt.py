"""OPT."""
from golden_models.common import without

OPT = {
    "architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": 150, "hidden_size": 48, "ffn_dim": 101,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128, "activation_function": "relu",
    "do_layer_norm_before": True, "word_embed_proj_dim": 48, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
}

CONFIGS = {
    "opt": OPT,
    # As opt-350m.
    "opt_post_norm": OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 10, "hidden_size": 32,
                            "num_attention_heads": 2},
    # As Galactica.
    "opt_plain": without(OPT, "word_embed_proj_dim") | {
        "enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu", "hidden_size": 60,
        "num_attention_heads": 5, "tie_word_embeddings": False, "vocab_size": 257},
    "opt_no_final_norm": OPT | {"_remove_final_layer_norm": True, "word_embed_proj_dim": 40, "hidden_size": 64},
}

# Without rotary positions it adds the same to all scores of a query.
FAINT = [r"model\.decoder\.layers\.N\.self_attn\.k_proj\.bias"]
