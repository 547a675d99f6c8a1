"""BLOOM: ALiBi, Q, K and V in one product by head."""
from golden_models.common import without

BLOOM = {
    "architectures": ["BloomForCausalLM"], "model_type": "bloom", "vocab_size": 150, "hidden_size": 48, "n_layer": 2,
    "n_head": 4, "layer_norm_epsilon": 1e-5, "apply_residual_connection_post_layernorm": False, "pretraining_tp": 1,
    "slow_but_exact": False, "bos_token_id": 1, "eos_token_id": 2,
}

# Tied heads mostly echo the last token, since embeddings are normalised: little of them goes into the next tokens only
# where the width is small.
CONFIGS = {
    "bloom": BLOOM | {"hidden_size": 24, "n_head": 6, "n_layer": 4},
    # The other spelling of the sizes; heads of 20.
    "bloom_untied": without(BLOOM, "n_head", "hidden_size") | {
        "num_attention_heads": 4, "n_embed": 80, "layer_norm_epsilon": 0.02, "vocab_size": 257, "tie_word_embeddings": False},
    "bloom_norm_residual": BLOOM | {
        "apply_residual_connection_post_layernorm": True, "n_head": 7, "hidden_size": 49, "n_layer": 3,
        "tie_word_embeddings": False},
}
