"""GLM-4 as transformers names it: `glm` (GLM-4-9B) and `glm4` (GLM-4-0414)."""
from golden_models.common import new_spelling, old_spelling, without

GLM = {
    "architectures": ["GlmForCausalLM"], "model_type": "glm", "vocab_size": 150, "hidden_size": 48, "intermediate_size": 77,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu",
    "max_position_embeddings": 128, "rms_norm_eps": 1.5625e-07, "partial_rotary_factor": 0.5, "attention_bias": True,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}
GLM4 = GLM | {"architectures": ["Glm4ForCausalLM"], "model_type": "glm4"}

CONFIGS = {
    "glm": GLM | old_spelling(),
    "glm_defaults": without(GLM, "partial_rotary_factor", "num_key_value_heads", "head_dim", "attention_bias") | new_spelling(
        theta=5000.0) | {"num_attention_heads": 4},
    "glm_tied": GLM | old_spelling() | {
        "tie_word_embeddings": True, "attention_bias": False, "partial_rotary_factor": 1.0, "num_attention_heads": 3,
        "num_key_value_heads": 3, "head_dim": 20, "rms_norm_eps": 0.02, "num_hidden_layers": 3},
    "glm4": GLM4 | old_spelling(),
    "glm4_no_bias": GLM4 | new_spelling() | {
        "attention_bias": False, "head_dim": 24, "partial_rotary_factor": 0.25, "num_attention_heads": 3,
        "num_key_value_heads": 1, "rms_norm_eps": 0.02, "num_hidden_layers": 3, "vocab_size": 257},
}
