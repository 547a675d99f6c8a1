"""T5: both forms of feed-forward, the head tied or not, scaled or not."""

T5 = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True, "vocab_size": 150,
    "d_model": 48, "d_kv": 64, "d_ff": 99, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu", "tie_word_embeddings": True, "decoder_start_token_id": 0, "pad_token_id": 0,
    "eos_token_id": 1,
}

CONFIGS = {
    "t5_relu": T5,
    "t5_gated": T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_model": 51, "d_kv": 56, "num_heads": 3,
                      "num_layers": 3, "layer_norm_epsilon": 0.02},
    "t5_tied_unscaled": T5 | {"feed_forward_proj": "gated-gelu", "scale_decoder_outputs": False, "num_layers": 3,
                              "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
}
# Buckets of distances that no prompt has are not read; those that are read are checked as one.
FAINT = []
