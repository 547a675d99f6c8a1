"""GPT-BigCode: SantaCoder, StarCoder."""

BIGCODE = {
    "architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode", "vocab_size": 150, "n_embd": 48, "n_layer": 2,
    "n_head": 4, "n_positions": 128, "n_inner": None, "activation_function": "gelu_pytorch_tanh", "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True, "multi_query": True, "attention_softmax_in_fp32": True,
    "scale_attention_softmax_in_fp32": True, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "gpt_bigcode": BIGCODE,
    "gpt_bigcode_heads": BIGCODE | {"multi_query": False, "n_embd": 56, "n_head": 7, "n_inner": 99, "n_layer": 3},
    "gpt_bigcode_untied": BIGCODE | {
        "tie_word_embeddings": False, "scale_attn_weights": False, "n_embd": 72, "n_head": 6, "vocab_size": 257,
        "layer_norm_epsilon": 0.02, "activation_function": "gelu"},
}
