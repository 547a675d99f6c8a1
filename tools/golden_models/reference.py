"""What the references share that are written here, for architectures that transformers does not have: plain modules in
fp32, called like those of transformers."""
import types

import torch


class Decoder(torch.nn.Module):
    """A module with `hidden(ids [T]) -> ([T, dim], [attention weights [H, T, T] of each layer])` and `head`."""

    def __init__(self, config, **renamed):
        super().__init__()
        self.config = types.SimpleNamespace(**{"tie_word_embeddings": False, **config, **renamed})
        self.held_length, self.last_length = None, 0

    def hold_length(self):
        """Rules that depend on the length of the prompt take the last ids for it from now on."""
        self.held_length = self.last_length

    def prompt_length(self, ids):
        return self.held_length or len(ids)

    def forward(self, input_ids, use_cache=False, output_attentions=False):
        self.last_length = input_ids.shape[1]
        rows = [self.hidden(ids) for ids in input_ids]
        return types.SimpleNamespace(logits=torch.stack([self.head(hidden) for hidden, _ in rows]),
                                     attentions=[torch.stack(maps) for maps in zip(*(maps for _, maps in rows))])

    @torch.no_grad()
    def generate(self, ids, max_new_tokens, eos_token_id, **_):
        for _ in range(max_new_tokens):
            ids = torch.cat((ids, self(ids).logits[:, -1:].argmax(-1)), 1)
            if int(ids[0, -1]) in (eos_token_id or []):
                break
        return ids


class RmsNorm(torch.nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def frequencies(rotary_dim, theta):
    """theta^(-2i/R) [R/2]."""
    return 1.0 / theta ** (torch.arange(0, rotary_dim, 2).float() / rotary_dim)


def rotate(x, inv_freq, interleaved=False):
    """RoPE of x [T, heads, D] at positions 0..T-1: on its first 2 * len(inv_freq) dimensions, whose pairs are neighbours or
    lie half the rotated part apart."""
    angles = torch.arange(len(x)).float()[:, None] * inv_freq  # [T, R/2]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    turned, rest = x.split((2 * len(inv_freq), x.shape[-1] - 2 * len(inv_freq)), -1)
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (a * cos - b * sin, b * cos + a * sin)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((turned, rest), -1)


def attend(q, k, v):
    """Causal attention: q [T, H, D], k and v [T, G, D] -> ([T, H * D], weights [H, T, T])."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = torch.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:]).triu(1).bool()
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    return torch.einsum("hts,shd->thd", weights, v).flatten(1), weights
