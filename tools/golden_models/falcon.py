"""Falcon 7B, 40B, 11B and RW."""

# The eager attention of transformers' Falcon adds ALiBi twice, to the scores and in the mask.
ATTENTION = "sdpa"

FALCON = {
    "architectures": ["FalconForCausalLM"], "model_type": "falcon", "vocab_size": 150, "hidden_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 6, "layer_norm_epsilon": 1e-5, "alibi": False,
    "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "bias": False,
    "max_position_embeddings": 128, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
}
RW = FALCON | {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}

CONFIGS = {
    "falcon_7b": FALCON,
    "falcon_7b_odd": FALCON | {
        "hidden_size": 60, "num_attention_heads": 3, "ffn_hidden_size": 101, "num_hidden_layers": 3, "rope_theta": 500000.0,
        "layer_norm_epsilon": 0.02, "tie_word_embeddings": False},
    "falcon_40b": FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon_40b_bias": FALCON | {
        "new_decoder_architecture": True, "num_attention_heads": 4, "num_kv_heads": 4, "bias": True, "vocab_size": 257},
    "falcon_11b": FALCON | {
        "new_decoder_architecture": True, "num_attention_heads": 8, "num_kv_heads": 4, "num_ln_in_parallel_attn": 1},
    "falcon_rw": RW | {"num_attention_heads": 4},
    # Slopes that bf16 rounds.
    "falcon_rw_twelve_heads": RW | {"num_attention_heads": 12, "hidden_size": 96, "num_hidden_layers": 3},
    "falcon_parallel_alibi": FALCON | {"alibi": True, "activation": "gelu_new"},
    "falcon_sequential": FALCON | {"parallel_attn": False, "multi_query": False},
}
