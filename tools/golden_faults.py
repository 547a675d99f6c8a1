"""Planted faults: ways in which an engine could be wrong, played in transformers' own code.

tools/golden.py measures how far each moves the logits and records it beside the goldens; a fault that the tolerance of
the tests would not see is an error there. Each fault is `plant(model, config, patches)`: it changes the model (a private
copy) or patches a name of its modeling module through `patches`, and returns False where the fault means nothing.
"""
import contextlib
import copy
import re
import sys

import torch



class Patches(contextlib.ExitStack):
    """Names of the modeling module, put back at the end."""

    def __init__(self, model):
        super().__init__()
        self.module = sys.modules[type(model).__module__]

    def set(self, name, value):
        self.callback(setattr, self.module, name, getattr(self.module, name))
        setattr(self.module, name, value)


def rotary(model):
    return getattr(model.model, "rotary_emb", None) if hasattr(model, "model") else None


def replace_rotary(model, config, **changes):
    """The rotary embedding of a changed config in place of the model's."""
    changed = copy.deepcopy(config)
    for key, value in changes.items():
        setattr(changed, key, value)
    model.model.rotary_emb = type(model.model.rotary_emb)(config=changed)


# ---- positions ------------------------------------------------------------------------------------------------------


def theta_wrong(model, config, _):
    if not rotary(model):
        return False
    replace_rotary(model, config, rope_parameters=config.rope_parameters | {
        "rope_theta": config.rope_parameters["rope_theta"] * 2})
    return True


def scaling_rule_ignored(model, config, _):
    if not rotary(model) or config.rope_parameters["rope_type"] == "default":
        return False
    replace_rotary(model, config, rope_parameters={"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]})
    return True


def attention_factor_ignored(model, _, __):
    if not rotary(model) or rotary(model).attention_scaling == 1.0:
        return False
    rotary(model).attention_scaling = 1.0
    return True


def length_rule_ignored(model, config, _):
    """Frequencies of a short prompt whatever the prompt's length."""
    if not rotary(model) or config.rope_parameters["rope_type"] not in ("dynamic", "longrope"):
        return False
    rotary(model).rope_type = "default"
    return True


def rope_interleaved(model, _, patches):
    """Pairs (2i, 2i+1) where the model pairs (i, i + half)."""
    if not rotary(model):
        return False

    def apply(q, k, cos, sin, unsqueeze_dim=1):
        half = cos.shape[-1] // 2
        c, s = (t[..., :half].unsqueeze(unsqueeze_dim).repeat_interleave(2, -1) for t in (cos, sin))

        def turn(x):
            even, odd = x[..., 0::2], x[..., 1::2]
            return x * c + torch.stack((-odd, even), -1).flatten(-2) * s

        return turn(q), turn(k)

    patches.set("apply_rotary_pos_emb", apply)
    return True


def rope_half_rotated(model, _, patches):
    """The first half of each head rotated, the rest left alone."""
    if not rotary(model):
        return False
    whole = patches.module.apply_rotary_pos_emb

    def apply(q, k, cos, sin, unsqueeze_dim=1):
        quarter = cos.shape[-1] // 4
        cos, sin = cos.clone(), sin.clone()
        for first in (quarter, 3 * quarter):
            cos[..., first:first + quarter], sin[..., first:first + quarter] = 1.0, 0.0
        return whole(q, k, cos, sin, unsqueeze_dim)

    patches.set("apply_rotary_pos_emb", apply)
    return True


def learned_position_off_by_one(model, _, __):
    if rotary(model):
        return False
    table = model.transformer.wpe.weight.data
    table.copy_(torch.roll(table, -1, 0))
    return True


# ---- attention ------------------------------------------------------------------------------------------------------


def patch_attention(patches, change):
    """Runs `change(module, q, k, mask, scaling) -> (k order, mask, scaling)` before each attention."""
    inner = patches.module.eager_attention_forward

    def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **rest):
        heads, mask, scaling = change(module, query, key, attention_mask, scaling)
        if heads is not None:
            key, value = heads(key), heads(value)
            groups, module.num_key_value_groups = module.num_key_value_groups, 1
            try:
                return inner(module, query, key, value, mask, scaling=scaling, dropout=dropout, **rest)
            finally:
                module.num_key_value_groups = groups
        return inner(module, query, key, value, mask, scaling=scaling, dropout=dropout, **rest)

    patches.set("eager_attention_forward", attention)
    return True


def band_mask(query, key, first, last):
    """Additive mask: the query at i sees i + first < j <= i + last, and always something."""
    i = torch.arange(query.shape[-2])[:, None] + key.shape[-2] - query.shape[-2]
    j = torch.arange(key.shape[-2])[None, :]
    visible = (j > i + first) & (j <= i + last)
    visible[:, 0] |= ~visible.any(-1)
    return torch.where(visible, 0.0, torch.finfo(query.dtype).min)[None, None]


def window_of(module):
    return getattr(module, "sliding_window", None) or (
        module.config.sliding_window if module.config.model_type == "mistral" else None)


def mask_shifted(by):
    def plant(_, __, patches):
        def change(module, query, key, _, scaling):
            return None, band_mask(query, key, -(window_of(module) or 10**6), by), scaling

        return patch_attention(patches, change)

    return plant


def window_changed(by):
    """Only the window moves; None: no window at all."""

    def plant(model, config, patches):
        layers = model.model.layers if hasattr(model, "model") else []
        if not any(window_of(layer.self_attn) for layer in layers):
            return False

        def change(module, query, key, mask, scaling):
            window = window_of(module)
            if window:
                mask = band_mask(query, key, -(10**6 if by is None else window + by), 0)
            return None, mask, scaling

        return patch_attention(patches, change)

    return plant


def window_on_every_layer(model, config, patches):
    types = getattr(config, "layer_types", None) or []
    if "sliding_attention" not in types or "full_attention" not in types:
        return False

    def change(_, query, key, __, scaling):
        return None, band_mask(query, key, -config.sliding_window, 0), scaling

    return patch_attention(patches, change)


def scale_wrong(model, config, patches):
    """1/sqrt(hidden / heads) where that differs from the head size, else 1/sqrt(2 D)."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wrong = config.hidden_size / config.num_attention_heads
    factor = (head_dim / wrong)**0.5 if wrong != head_dim else 0.5**0.5

    def change(_, __, ___, mask, scaling):
        return None, mask, scaling * factor

    return patch_attention(patches, change)


def kv_heads_interleaved(model, config, patches):
    """Query head h with KV head h % G instead of h / (H / G)."""
    kv_heads = getattr(config, "num_key_value_heads", None)
    if kv_heads in (None, 1, config.num_attention_heads):
        return False

    def change(module, _, __, mask, scaling):
        return (lambda t: t.repeat(1, module.num_key_value_groups, 1, 1)), mask, scaling

    return patch_attention(patches, change)


def layer_scale_ignored(model, config, _):
    if not getattr(config, "scale_attn_by_inverse_layer_idx", False):
        return False
    for block in model.transformer.h:
        block.attn.scaling = block.attn.head_dim**-0.5
    return True


# ---- norms, biases, activations ------------------------------------------------------------------------------------


def norm_of_heads_missing(which):
    def plant(model, _, __):
        if not any(name.endswith(f"{which}.weight") for name in model.state_dict()):
            return False
        for layer in model.model.layers:
            setattr(layer.self_attn, which, torch.nn.Identity())
        return True

    return plant


def eps_ignored(model, _, __):
    """The families' default in place of the configured value; told apart only where that is large."""
    changed = False
    for module in model.modules():
        for name in ("variance_epsilon", "eps"):
            if getattr(module, name, 0) and getattr(module, name) > 1e-3:
                setattr(module, name, 1e-5)
                changed = True
    return changed


def bias_missing(*leaves):
    def plant(model, _, __):
        changed = False
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and name.split(".")[-2] in leaves:
                parameter.data.zero_()
                changed = True
        return changed

    return plant


def gate_and_up_swapped(model, _, __):
    if not hasattr(model, "model"):
        return False
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj
    return True


def gelu_exact(model, _, __):
    if hasattr(model, "model"):
        return False
    for block in model.transformer.h:
        block.mlp.act = torch.nn.GELU()
    return True


def head_not_tied(model, config, _):
    """The head's own generated weights where the embedding's hold."""
    if not config.tie_word_embeddings:
        return False
    model.lm_head.weight = torch.nn.Parameter(torch.roll(model.lm_head.weight.data, 1, 0))
    return True


@torch.no_grad()
def measure_tensors(model, forward, prompts, faint):
    """Every tensor counts: how far the logits move, at least, when the values of one tensor move by one place.

    By kind of tensor, the layer's number left out. `faint`: regular expressions of kinds that cannot be seen.
    """
    found = {}
    for name, parameter in model.named_parameters():
        kind = re.sub(r"\.\d+\.", ".N.", name)
        if any(re.fullmatch(pattern, kind) for pattern in faint):
            continue
        held = parameter.data.clone()
        parameter.data.copy_(held.flatten().roll(1).view_as(held))
        moved = max(float((forward(model, ids) - logits).abs().max() / logits.abs().max()) for ids, logits in prompts)
        parameter.data.copy_(held)
        key = f"moved {kind}"
        found[key] = round(min(moved, found.get(key, moved)), 6)
    return found


def weights_in_bf16(model, _, __):
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(torch.float32)
    return True


FAULTS = {
    "theta_wrong": theta_wrong,
    "scaling_rule_ignored": scaling_rule_ignored,
    "attention_factor_ignored": attention_factor_ignored,
    "length_rule_ignored": length_rule_ignored,
    "rope_interleaved": rope_interleaved,
    "rope_half_rotated": rope_half_rotated,
    "learned_position_off_by_one": learned_position_off_by_one,
    "mask_sees_next": mask_shifted(1),
    "mask_misses_own": mask_shifted(-1),
    "window_one_wider": window_changed(1),
    "window_one_narrower": window_changed(-1),
    "window_ignored": window_changed(None),
    "window_on_every_layer": window_on_every_layer,
    "scale_wrong": scale_wrong,
    "kv_heads_interleaved": kv_heads_interleaved,
    "layer_scale_ignored": layer_scale_ignored,
    "q_norm_missing": norm_of_heads_missing("q_norm"),
    "k_norm_missing": norm_of_heads_missing("k_norm"),
    "eps_ignored": eps_ignored,
    "qkv_bias_missing": bias_missing("q_proj", "k_proj", "v_proj", "c_attn"),
    "k_bias_missing": bias_missing("k_proj"),
    "o_bias_missing": bias_missing("o_proj", "c_proj"),
    "mlp_bias_missing": bias_missing("gate_proj", "up_proj", "down_proj", "c_fc"),
    "norm_bias_missing": bias_missing("ln_1", "ln_2", "ln_f"),
    "gate_and_up_swapped": gate_and_up_swapped,
    "gelu_exact": gelu_exact,
    "head_not_tied": head_not_tied,
    "weights_in_bf16": weights_in_bf16,
}
# The two forms of GELU differ by 5e-4 at most: less than ten times the tolerance once it reaches the logits.
FAINT = {"gelu_exact"}


def plant(name, model):
    """(faulty copy of the model, open patches), or None where the fault means nothing for it."""
    faulty = copy.deepcopy(model)
    patches = Patches(faulty)
    if FAULTS[name](faulty, faulty.config, patches):
        return faulty, patches
    patches.close()
    return None
