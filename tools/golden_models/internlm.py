"""InternLM 1 and 2. transformers has neither: the references follow the published descriptions (InternLM 2 technical report,
and the model cards' configurations)."""
import torch

from golden_models.common import without
from golden_models.reference import Decoder, RmsNorm, attend, frequencies, rotate

INTERNLM = {
    "architectures": ["InternLMForCausalLM"], "model_type": "internlm", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 101, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "silu", "bias": True,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}
INTERNLM2 = without(INTERNLM, "bias") | {
    "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "num_attention_heads": 6, "num_key_value_heads": 2,
    "bias": False, "rope_theta": 10000, "rope_scaling": None,
}

CONFIGS = {
    "internlm": without(INTERNLM, "bias"),
    "internlm_no_bias": INTERNLM | {
        "bias": False, "hidden_size": 60, "num_attention_heads": 3, "rms_norm_eps": 0.02, "num_hidden_layers": 3,
        "rotary": {"base": 5000, "type": "dynamic"}},
    "internlm2": INTERNLM2,
    "internlm2_bias": INTERNLM2 | {
        "bias": True, "num_attention_heads": 3, "num_key_value_heads": 1, "rms_norm_eps": 0.02, "num_hidden_layers": 3,
        "rope_theta": 5000.0, "vocab_size": 257},
    "internlm2_linear": INTERNLM2 | {
        "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True, "hidden_size": 72,
        "rope_scaling": {"type": "linear", "factor": 4.0}},
}


class Layer(torch.nn.Module):
    """One decoder layer; `names`: norm of attention, attention, norm of the feed-forward, feed-forward."""

    def __init__(self, c, names, attention, mlp):
        super().__init__()
        self.names = names
        for name in names[0], names[2]:
            setattr(self, name, RmsNorm(c["hidden_size"], c["rms_norm_eps"]))
        setattr(self, names[1], attention)
        setattr(self, names[3], mlp)

    def forward(self, x):
        norm, attention, norm_2, mlp = (getattr(self, name) for name in self.names)
        out, weights = attention(norm(x))
        x = x + out
        return x + mlp(norm_2(x)), weights


class Attention(torch.nn.Module):
    def __init__(self, c, bias):
        super().__init__()
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads", self.heads)
        self.size = c["hidden_size"] // self.heads
        base = c.get("rotary", {}).get("base", c.get("rope_theta", 10000))
        self.inv_freq = frequencies(self.size, base) / (c.get("rope_scaling") or {"factor": 1.0})["factor"]
        self.make_layers(c["hidden_size"], bias)

    def forward(self, x):
        q, k, v = self.project(x)
        out, weights = attend(rotate(q, self.inv_freq), rotate(k, self.inv_freq), v)
        return self.out(out), weights


class Attention1(Attention):
    def make_layers(self, dim, bias):
        for name in "q_proj", "k_proj", "v_proj", "o_proj":
            setattr(self, name, torch.nn.Linear(dim, dim, bias=bias))

    def project(self, x):
        return (p(x).unflatten(-1, (self.heads, self.size)) for p in (self.q_proj, self.k_proj, self.v_proj))

    def out(self, x):
        return self.o_proj(x)


class Attention2(Attention):
    """Rows of wqkv: for each head of K and V its query heads, its K, its V."""

    def make_layers(self, dim, bias):
        self.wqkv = torch.nn.Linear(dim, (self.heads + 2 * self.kv_heads) * self.size, bias=bias)
        self.wo = torch.nn.Linear(dim, dim, bias=bias)

    def project(self, x):
        groups = self.wqkv(x).unflatten(-1, (self.kv_heads, -1, self.size))  # [T, G, H/G + 2, D]
        return groups[:, :, :-2].flatten(1, 2), groups[:, :, -2], groups[:, :, -1]

    def out(self, x):
        return self.wo(x)


class Mlp(torch.nn.Module):
    def __init__(self, c, gate, up, down):
        super().__init__()
        self.names, dim, inner = (gate, up, down), c["hidden_size"], c["intermediate_size"]
        for name in gate, up:
            setattr(self, name, torch.nn.Linear(dim, inner, bias=False))
        setattr(self, down, torch.nn.Linear(inner, dim, bias=False))

    def forward(self, x):
        gate, up, down = (getattr(self, name) for name in self.names)
        return down(torch.nn.functional.silu(gate(x)) * up(x))


class InternLm(Decoder):
    def __init__(self, c, embedding, head, make_layer):
        super().__init__(c)
        self.names = embedding, head
        self.model = torch.nn.Module()
        setattr(self.model, embedding, torch.nn.Embedding(c["vocab_size"], c["hidden_size"]))
        self.model.layers = torch.nn.ModuleList(make_layer() for _ in range(c["num_hidden_layers"]))
        self.model.norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        if not c["tie_word_embeddings"]:
            setattr(self, head, torch.nn.Linear(c["hidden_size"], c["vocab_size"], bias=False))

    def hidden(self, ids):
        x, maps = getattr(self.model, self.names[0])(ids), []
        for layer in self.model.layers:
            x, weights = layer(x)
            maps.append(weights)
        return self.model.norm(x), maps

    def head(self, x):
        table = getattr(self.model, self.names[0]) if self.config.tie_word_embeddings else getattr(self, self.names[1])
        return x @ table.weight.T


def build(c):
    if c["model_type"] == "internlm":
        names = "input_layernorm", "self_attn", "post_attention_layernorm", "mlp"
        return InternLm(c, "embed_tokens", "lm_head", lambda: Layer(
            c, names, Attention1(c, c.get("bias", True)), Mlp(c, "gate_proj", "up_proj", "down_proj")))
    names = "attention_norm", "attention", "ffn_norm", "feed_forward"
    return InternLm(c, "tok_embeddings", "output", lambda: Layer(
        c, names, Attention2(c, c.get("bias", True)), Mlp(c, "w1", "w3", "w2")))
