"""GPT-J and CodeGen."""
from golden_models.common import without

GPTJ = {
    "architectures": ["GPTJForCausalLM"], "model_type": "gptj", "vocab_size": 150, "n_embd": 48, "n_layer": 2, "n_head": 4,
    "n_positions": 128, "rotary_dim": 8, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}
CODEGEN = GPTJ | {"architectures": ["CodeGenForCausalLM"], "model_type": "codegen", "n_ctx": 128}

CONFIGS = {
    "gptj": GPTJ,
    "gptj_inner": GPTJ | {"n_inner": 99, "n_embd": 60, "n_head": 3, "rotary_dim": 20, "layer_norm_epsilon": 0.02, "n_layer": 3,
                          "activation_function": "gelu"},
    "gptj_tied": GPTJ | {"n_embd": 72, "n_head": 2, "rotary_dim": 10, "tie_word_embeddings": True, "vocab_size": 257},
    # Heads lie in four blocks of Q, V, K.
    "codegen": CODEGEN,
    "codegen_heads": without(CODEGEN, "n_inner", "n_ctx") | {"n_embd": 80, "n_head": 8, "rotary_dim": 6, "n_layer": 3},
}
