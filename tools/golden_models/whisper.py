"""Whisper on spectra of a few bands and frames."""

WHISPER = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "is_encoder_decoder": True, "vocab_size": 150,
    "num_mel_bins": 8, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 99, "decoder_ffn_dim": 77, "max_source_positions": 20,
    "max_target_positions": 64, "activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True,
    "decoder_start_token_id": 5, "bos_token_id": 2, "pad_token_id": 2, "eos_token_id": 2,
}

CONFIGS = {
    "whisper": WHISPER,
    "whisper_odd": WHISPER | {"num_mel_bins": 5, "d_model": 54, "encoder_attention_heads": 3, "decoder_attention_heads": 3,
                              "max_source_positions": 33, "decoder_layers": 3, "tie_word_embeddings": False},
}
# Positions of targets that no prompt reaches.
FAINT = [r".*decoder\.embed_positions\.weight"]
