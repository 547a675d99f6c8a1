"""StarCoder 2."""
from golden_models.common import new_spelling, old_spelling

STARCODER2 = {
    "architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 101, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 128, "norm_epsilon": 1e-5, "use_bias": True,
    "sliding_window": None, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "starcoder2": STARCODER2 | old_spelling(theta=100000.0),
    "starcoder2_window": STARCODER2 | new_spelling() | {
        "sliding_window": 12, "use_bias": False, "norm_epsilon": 0.02, "num_hidden_layers": 3},
    "starcoder2_untied": STARCODER2 | new_spelling(rope_type="linear", factor=2.0) | {
        "tie_word_embeddings": False, "hidden_size": 66, "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": 257},
}
