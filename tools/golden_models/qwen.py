"""Qwen, first generation (QWenLMHeadModel). transformers does not have it: the reference follows its published description
(Qwen technical report, section 2.3 on long texts, and the model cards' configuration)."""
import math

import torch

from golden_models.common import without
from golden_models.reference import Decoder, RmsNorm, attend, frequencies, rotate

QWEN = {
    "architectures": ["QWenLMHeadModel"], "model_type": "qwen", "vocab_size": 150, "hidden_size": 48, "intermediate_size": 202,
    "num_hidden_layers": 2, "num_attention_heads": 4, "kv_channels": 12, "max_position_embeddings": 128, "seq_length": 128,
    "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": True, "no_bias": True,
    "use_dynamic_ntk": True, "use_logn_attn": True, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}

CONFIGS = {
    "qwen": QWEN,
    "qwen_bias": QWEN | {
        "no_bias": False, "hidden_size": 60, "num_attention_heads": 3, "kv_channels": 24, "rotary_pct": 0.5,
        "rotary_emb_base": 5000, "num_hidden_layers": 3, "layer_norm_epsilon": 0.02, "vocab_size": 257},
    "qwen_defaults": without(QWEN, "kv_channels", "rotary_emb_base", "rotary_pct", "no_bias", "use_dynamic_ntk", "use_logn_attn",
                             "scale_attn_weights", "layer_norm_epsilon") | {
        "hidden_size": 256, "num_attention_heads": 2, "intermediate_size": 90},
    # Prompts of one, two and four times the length of the training.
    "qwen_long": QWEN | {"seq_length": 16},
    "qwen_long_ntk": QWEN | {
        "seq_length": 20, "use_logn_attn": False, "rotary_pct": 0.5, "rotary_emb_base": 1000, "num_attention_heads": 3,
        "kv_channels": 16, "hidden_size": 60, "no_bias": False},
    "qwen_long_logn": QWEN | {"seq_length": 20, "use_dynamic_ntk": False, "num_hidden_layers": 3, "vocab_size": 257},
}


def ntk_alpha(length, trained):
    """What theta is multiplied by, before the exponent: 1, from the length of the training on 3, from twice that on 7."""
    return max(2 ** math.ceil(math.log2(length / trained) + 1) - 1, 1)


def logn(length, trained):
    """Factors of queries [length, 1, 1]."""
    return torch.tensor([math.log(max(n, trained), trained) for n in range(1, length + 1)])[:, None, None]


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.size = c["num_attention_heads"], c.get("kv_channels", 128)
        inner, bias = self.heads * self.size, not c.get("no_bias", True)
        self.c_attn = torch.nn.Linear(c["hidden_size"], 3 * inner)
        self.c_proj = torch.nn.Linear(inner, c["hidden_size"], bias=bias)
        self.rotary_dim = int(self.size * c.get("rotary_pct", 1.0))
        self.base = c.get("rotary_emb_base", 10000)
        self.trained = c.get("seq_length", 8192)
        self.ntk, self.logn = c.get("use_dynamic_ntk", True), c.get("use_logn_attn", True)

    def forward(self, x, prompt_length):
        q, k, v = (part.unflatten(-1, (self.heads, self.size)) for part in self.c_attn(x).chunk(3, -1))
        alpha = ntk_alpha(prompt_length, self.trained) if self.ntk else 1
        inv_freq = frequencies(self.rotary_dim, self.base * alpha ** (self.rotary_dim / (self.rotary_dim - 2)))
        q, k = rotate(q, inv_freq), rotate(k, inv_freq)
        if self.logn:
            q = q * logn(len(x), self.trained)
        out, weights = attend(q, k, v)
        return self.c_proj(out), weights


class Mlp(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        dim, half, bias = c["hidden_size"], c["intermediate_size"] // 2, not c.get("no_bias", True)
        self.w1, self.w2 = (torch.nn.Linear(dim, half, bias=bias) for _ in range(2))
        self.c_proj = torch.nn.Linear(half, dim, bias=bias)

    def forward(self, x):
        return self.c_proj(self.w1(x) * torch.nn.functional.silu(self.w2(x)))


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        eps = c.get("layer_norm_epsilon", 1e-6)
        self.ln_1, self.ln_2 = (RmsNorm(c["hidden_size"], eps) for _ in range(2))
        self.attn, self.mlp = Attention(c), Mlp(c)


class Qwen(Decoder):
    rope_rule = "ntk_steps"

    def __init__(self, c):
        super().__init__(c)
        self.transformer = torch.nn.Module()
        self.transformer.wte = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.transformer.h = torch.nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.transformer.ln_f = RmsNorm(c["hidden_size"], c.get("layer_norm_epsilon", 1e-6))
        self.lm_head = torch.nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)

    def hidden(self, ids):
        x, maps = self.transformer.wte(ids), []
        for block in self.transformer.h:
            out, weights = block.attn(block.ln_1(x), self.prompt_length(ids))
            x = x + out
            x = x + block.mlp(block.ln_2(x))
            maps.append(weights)
        return self.transformer.ln_f(x), maps

    def head(self, x):
        return self.lm_head(x)


def build(config):
    return Qwen(config)
