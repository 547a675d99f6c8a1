"""Baichuan 1 and 2, 7B and 13B. transformers has neither: the reference follows the published description (Baichuan 2
technical report, section 2, and the configurations of the model cards)."""
import torch

from golden_models.common import without
from golden_models.reference import Decoder, RmsNorm, frequencies, rotate

BAICHUAN = {
    "architectures": ["BaiChuanForCausalLM"], "model_type": "baichuan", "vocab_size": 150, "hidden_size": 48,
    "intermediate_size": 101, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}
BAICHUAN_13B = without(BAICHUAN, "max_position_embeddings") | {
    "architectures": ["BaichuanForCausalLM"], "model_max_length": 128}

CONFIGS = {
    "baichuan_7b": BAICHUAN,
    "baichuan_7b_odd": BAICHUAN | {
        "hidden_size": 60, "num_attention_heads": 3, "num_hidden_layers": 3, "rms_norm_eps": 0.02, "vocab_size": 257},
    "baichuan_13b": BAICHUAN_13B,
    # 13B has 40 heads: no power of two.
    "baichuan_13b_ten_heads": BAICHUAN_13B | {
        "hidden_size": 120, "num_attention_heads": 10, "intermediate_size": 77, "num_hidden_layers": 3},
    "baichuan2_7b": BAICHUAN | {"architectures": ["BaichuanForCausalLM"], "model_max_length": 128, "z_loss_weight": 0},
    "baichuan2_13b": BAICHUAN_13B | {"z_loss_weight": 0, "vocab_size": 201, "num_attention_heads": 6},
}


def slopes(heads):
    """ALiBi's, one per head: a geometric sequence for a power of two, else that of the power below and every other one of
    the power above."""
    below = 1 << heads.bit_length() - 1
    first = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    return torch.tensor((first + [2 ** (-4 * (i + 1) / below) for i in range(0, 2 * below, 2)])[:heads])


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, dim = c["num_attention_heads"], c["hidden_size"]
        self.size, self.alibi = dim // self.heads, "max_position_embeddings" not in c
        self.W_pack = torch.nn.Linear(dim, 3 * dim, bias=False)
        self.o_proj = torch.nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        q, k, v = self.W_pack(x).unflatten(-1, (3, self.heads, self.size)).unbind(1)  # [T, H, D]
        if not self.alibi:
            q, k = (rotate(t, frequencies(self.size, 10000.0)) for t in (q, k))
        scores = torch.einsum("thd,shd->hts", q, k) / self.size ** 0.5
        if self.alibi:
            at = torch.arange(len(x))
            scores = scores + slopes(self.heads)[:, None, None] * (at[None, :] - at[:, None])
        later = torch.ones(scores.shape[-2:]).triu(1).bool()
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        return self.o_proj(torch.einsum("hts,shd->thd", weights, v).flatten(1)), weights


class Mlp(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        for name in "gate_proj", "up_proj":
            setattr(self, name, torch.nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False))
        self.down_proj = torch.nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        for name in "input_layernorm", "post_attention_layernorm":
            setattr(self, name, RmsNorm(c["hidden_size"], c["rms_norm_eps"]))
        self.self_attn, self.mlp = Attention(c), Mlp(c)

    def forward(self, x):
        out, weights = self.self_attn(self.input_layernorm(x))
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), weights


class Baichuan(Decoder):
    def __init__(self, c):
        super().__init__(c)
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = torch.nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.model.norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = torch.nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)

    def hidden(self, ids):
        x, maps = self.model.embed_tokens(ids), []
        for layer in self.model.layers:
            x, weights = layer(x)
            maps.append(weights)
        return self.model.norm(x), maps

    def head(self, x):
        if not hasattr(self.config, "z_loss_weight"):
            return self.lm_head(x)
        return x @ torch.nn.functional.normalize(self.lm_head.weight).T


build = Baichuan
