"""ChatGLM 2 and 3, and GLM-4 in their format (ChatGLMModel). transformers does not have them: the reference follows the
published description (GLM papers, and the model cards' configurations)."""
import torch

from golden_models.common import without
from golden_models.reference import Decoder, RmsNorm, attend, frequencies, rotate

CHATGLM = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "padded_vocab_size": 150, "hidden_size": 48,
    "ffn_hidden_size": 77, "num_layers": 2, "num_attention_heads": 6, "kv_channels": 8, "multi_query_attention": True,
    "multi_query_group_num": 2, "seq_length": 128, "layernorm_epsilon": 1e-5, "rmsnorm": True, "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False, "add_bias_linear": False, "add_qkv_bias": True, "original_rope": True,
    "apply_query_key_layer_scaling": True, "attention_softmax_in_fp32": True, "fp32_residual_connection": False,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}

CONFIGS = {
    "chatglm": CHATGLM,
    # As chatglm3-6b-32k and GLM-4: another base of the rotary positions.
    "chatglm_ratio": CHATGLM | {
        "rope_ratio": 50, "kv_channels": 24, "num_attention_heads": 3, "multi_query_group_num": 1, "add_qkv_bias": False,
        "layernorm_epsilon": 0.005, "num_layers": 3, "padded_vocab_size": 257},
    "chatglm_heads": without(CHATGLM, "multi_query_attention", "multi_query_group_num", "add_qkv_bias", "post_layer_norm") | {
        "rmsnorm": False, "add_bias_linear": True, "num_attention_heads": 4, "kv_channels": 16},
    "chatglm_residual": CHATGLM | {
        "apply_residual_connection_post_layernorm": True, "post_layer_norm": False, "kv_channels": 16},
}


def make_norm(c):
    return (RmsNorm if c["rmsnorm"] else torch.nn.LayerNorm)(c["hidden_size"], eps=c["layernorm_epsilon"])


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.size = c["num_attention_heads"], c["kv_channels"]
        self.multi_query = c.get("multi_query_attention", False)
        self.kv_heads = c["multi_query_group_num"] if self.multi_query else self.heads
        bias = c["add_bias_linear"]
        self.query_key_value = torch.nn.Linear(
            c["hidden_size"], (self.heads + 2 * self.kv_heads) * self.size, bias=bias or c.get("add_qkv_bias", False))
        self.dense = torch.nn.Linear(self.heads * self.size, c["hidden_size"], bias=bias)
        self.inv_freq = frequencies(self.size // 2, 10000 * c.get("rope_ratio", 1))

    def forward(self, x):
        qkv = self.query_key_value(x)
        if self.multi_query:  # all of Q, all of K, all of V
            q, k, v = (part.unflatten(-1, (-1, self.size)) for part in qkv.split(
                [n * self.size for n in (self.heads, self.kv_heads, self.kv_heads)], -1))
        else:  # Q, K and V of each head
            q, k, v = qkv.unflatten(-1, (self.heads, 3 * self.size)).chunk(3, -1)
        out, weights = attend(rotate(q, self.inv_freq, True), rotate(k, self.inv_freq, True), v)
        return self.dense(out), weights


class Mlp(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        dim, inner, bias = c["hidden_size"], c["ffn_hidden_size"], c["add_bias_linear"]
        self.dense_h_to_4h = torch.nn.Linear(dim, 2 * inner, bias=bias)
        self.dense_4h_to_h = torch.nn.Linear(inner, dim, bias=bias)

    def forward(self, x):
        gate, up = self.dense_h_to_4h(x).chunk(2, -1)
        return self.dense_4h_to_h(torch.nn.functional.silu(gate) * up)


class Layer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = make_norm(c), make_norm(c)
        self.self_attention, self.mlp = Attention(c), Mlp(c)
        self.normed_residual = c["apply_residual_connection_post_layernorm"]

    def forward(self, x):
        h = self.input_layernorm(x)
        out, weights = self.self_attention(h)
        x = (h if self.normed_residual else x) + out
        h = self.post_attention_layernorm(x)
        return (h if self.normed_residual else x) + self.mlp(h), weights


class ChatGlm(Decoder):
    def __init__(self, c):
        super().__init__(c, vocab_size=c["padded_vocab_size"])
        vocab, dim = c["padded_vocab_size"], c["hidden_size"]
        self.transformer = torch.nn.Module()
        self.transformer.embedding = torch.nn.Module()
        self.transformer.embedding.word_embeddings = torch.nn.Embedding(vocab, dim)
        self.transformer.encoder = torch.nn.Module()
        self.transformer.encoder.layers = torch.nn.ModuleList(Layer(c) for _ in range(c["num_layers"]))
        if c.get("post_layer_norm", True):
            self.transformer.encoder.final_layernorm = make_norm(c)
        self.transformer.output_layer = torch.nn.Linear(dim, vocab, bias=False)

    def hidden(self, ids):
        x, maps = self.transformer.embedding.word_embeddings(ids), []
        for layer in self.transformer.encoder.layers:
            x, weights = layer(x)
            maps.append(weights)
        norm = getattr(self.transformer.encoder, "final_layernorm", torch.nn.Identity())
        return norm(x), maps

    def head(self, x):
        return self.transformer.output_layer(x)


def build(config):
    return ChatGlm(config)
