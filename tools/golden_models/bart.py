"""BART, mBART (norms in front) and Marian (sines for positions)."""

BART = {
    "architectures": ["BartForConditionalGeneration"], "model_type": "bart", "is_encoder_decoder": True, "vocab_size": 150,
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 99, "decoder_ffn_dim": 77, "max_position_embeddings": 128, "activation_function": "gelu",
    "scale_embedding": False, "tie_word_embeddings": True, "decoder_start_token_id": 2, "bos_token_id": 0, "pad_token_id": 1,
    "eos_token_id": 2, "forced_eos_token_id": None,
}
MBART = BART | {"architectures": ["MBartForConditionalGeneration"], "model_type": "mbart", "scale_embedding": True}
MARIAN = BART | {
    "architectures": ["MarianMTModel"], "model_type": "marian", "activation_function": "swish", "scale_embedding": True,
    "decoder_start_token_id": 149, "pad_token_id": 149, "eos_token_id": 0, "share_encoder_decoder_embeddings": True,
}

CONFIGS = {
    "bart": BART,
    "bart_scaled": BART | {"scale_embedding": True, "d_model": 54, "encoder_attention_heads": 3, "decoder_attention_heads": 2,
                           "decoder_layers": 3, "activation_function": "relu"},
    "mbart": MBART,
    "marian": MARIAN,
    "marian_odd": MARIAN | {"d_model": 45, "encoder_attention_heads": 3, "decoder_attention_heads": 5, "encoder_layers": 3,
                            "activation_function": "gelu"},
}
# What is added to every key alike drops out of the softmax.
FAINT = [r".*\.k_proj\.bias", r".*embed_positions\.weight"]
