"""GPT-NeoX, Pythia."""
from golden_models.common import without

NEOX = {
    "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 150, "hidden_size": 64,
    "intermediate_size": 101, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu",
    "max_position_embeddings": 128, "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "rotary_emb_base": 10000,
    "use_parallel_residual": True, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "gpt_neox": NEOX,
    "gpt_neox_sequential": NEOX | {
        "use_parallel_residual": False, "hidden_size": 60, "num_attention_heads": 5, "rotary_pct": 1.0,
        "rotary_emb_base": 20000, "hidden_act": "gelu_fast", "layer_norm_eps": 0.02, "num_hidden_layers": 3},
    "gpt_neox_no_bias": without(NEOX, "rotary_pct", "rotary_emb_base", "use_parallel_residual") | {
        "attention_bias": False, "tie_word_embeddings": True, "hidden_size": 72, "num_attention_heads": 3, "vocab_size": 257,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0, "partial_rotary_factor": 0.5}},
}
