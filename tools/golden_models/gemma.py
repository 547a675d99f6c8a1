"""Gemma (the first)."""
from golden_models.common import new_spelling, old_spelling, without

GEMMA = {
    "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 75, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16,
    "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "attention_bias": False,
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
}

CONFIGS = {
    "gemma": GEMMA | new_spelling(),
    # "gelu" is what the first checkpoints say and not what they were trained with.
    "gemma_legacy": without(GEMMA, "head_dim", "num_key_value_heads") | old_spelling() | {
        "hidden_act": "gelu", "hidden_activation": None, "num_attention_heads": 2, "num_key_value_heads": 2,
        "num_hidden_layers": 3, "rms_norm_eps": 0.02},
    "gemma_untied": GEMMA | new_spelling(theta=50000.0) | {
        "tie_word_embeddings": False, "attention_bias": True, "num_attention_heads": 6, "num_key_value_heads": 3,
        "head_dim": 20, "hidden_act": "gelu_new"},
}
