"""Generated weights with numpy: the same bits as src/base/dummy_weights.cc (see docs/dummy_weights.md).

  dummy_weights.py golden > tests/data/dummy_weights/golden.txt      the values that the C++ test compares
  dummy_weights.py checkpoint CONFIG_FOLDER OUTPUT_FOLDER [--seed N] a whole checkpoint for transformers

`checkpoint` needs torch, transformers and safetensors; the rest needs numpy alone.
"""

import argparse
import sys

import numpy as np

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
QUERY_KEY_LEAVES = {
    "q_proj", "k_proj", "qkv_proj", "c_attn", "q_attn", "query_key_value", "wqkv", "Wqkv", "W_pack", "query",
    "key", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"}
UNSCALED_QUERY_KEY_LEAVES = {"q", "k"}
TABLE_LEAVES = {
    "embed_tokens", "tok_embeddings", "wte", "wpe", "word_embeddings", "position_embeddings", "token_type_embeddings",
    "shared", "embed_in", "embed_positions", "lm_head", "embed_out", "output_layer", "output"}
HEAD_NORMS = {"q_norm", "k_norm", "q_layernorm", "k_layernorm"}
WIDENING_LEAVES = {"c_attn", "c_fc", "q_attn"}


def mix(x):
    """SplitMix64's finaliser, on an array of uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode("utf-8"):
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def fan_in(name, leaf, shape):
    if len(shape) == 2 and leaf in WIDENING_LEAVES:
        return min(shape)
    if len(shape) == 2 and leaf == "c_proj":
        return shape[0]
    if len(shape) == 3 and "experts" in name:
        return shape[2]
    return int(np.prod(shape[1:], dtype=np.int64))


def distribution(name, shape):
    """(center, amplitude) by name and shape alone."""
    parts = name.split(".")
    last = parts[-1]
    leaf = parts[-2] if last == "weight" and len(parts) > 1 else last
    if last == "bias" or last.endswith("_bias"):
        return 0.0, 0.5
    if leaf == "relative_attention_bias":
        return 0.0, 2.0
    if last == "weight" and HEAD_NORMS.intersection(parts):
        return 1.7, 0.4
    if len(shape) < 2:
        return (1.0, 0.25) if last == "weight" else (0.0, 0.5)
    gain = 1.0
    if leaf in QUERY_KEY_LEAVES:
        gain = 1.7
    if leaf in UNSCALED_QUERY_KEY_LEAVES:
        gain = 0.6
    if leaf in TABLE_LEAVES:
        gain = 2.0
    return 0.0, gain * float(np.sqrt(np.float64(3.0) / np.float64(fan_in(name, leaf, shape))))


def elements(seed, name, shape, begin, end):
    """Elements [begin, end) of the flattened tensor, fp32."""
    center, amplitude = distribution(name, shape)
    with np.errstate(over="ignore"):
        seed_hash = mix(np.array([seed], dtype=np.uint64))[0]
        key = mix(np.array([fnv1a(name)], dtype=np.uint64) ^ seed_hash)
        index = np.arange(begin, end, dtype=np.uint64)
        uniform = (mix(key + index * GOLDEN_RATIO) >> np.uint64(40)).astype(np.int32) - 2**23
    step = np.float32(amplitude * 2.0**-23)
    return np.float32(center) + uniform.astype(np.float32) * step


def dummy_tensor(seed, name, shape):
    """The whole tensor, fp32, in its shape."""
    count = int(np.prod(shape, dtype=np.int64))
    chunk = 1 << 22  # bounds the temporaries
    flat = np.empty(count, dtype=np.float32)
    for begin in range(0, count, chunk):
        end = min(begin + chunk, count)
        flat[begin:end] = elements(seed, name, shape, begin, end)
    return flat.reshape(shape)


def write_checkpoint(model, folder, seed=0):
    """Saves a transformers model under `folder` with generated weights, under the names that save_pretrained writes
    (tied weights once), in the model's own dtype (rounded to nearest even)."""
    import glob
    import os
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    model.save_pretrained(folder)
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                values = torch.from_numpy(dummy_tensor(seed, name, tuple(tensor.shape)))
                tensors[name] = values.to(tensor.dtype)
        save_file(tensors, path, metadata)


GOLDEN_TENSORS = [
    (0, "model.embed_tokens.weight", (256, 64)),
    (1, "model.embed_tokens.weight", (256, 64)),
    (2**64 - 1, "lm_head.weight", (1000, 48)),
    (7, "model.layers.0.self_attn.q_proj.weight", (96, 64)),
    (7, "model.layers.10.self_attn.k_proj.bias", (32,)),
    (7, "model.layers.0.self_attn.q_norm.weight", (16,)),
    (7, "model.layers.0.self_attn.k_norm.weight", (3, 8)),
    (7, "model.layers.0.self_attn.k_layernorm.norms.1.weight", (16,)),
    (7, "model.norm.weight", (64,)),
    (7, "model.layers.0.attention.wqkv.weight", (96, 64)),
    (7, "model.tok_embeddings.weight", (256, 64)),
    (7, "output.weight", (256, 64)),
    (7, "model.layers.0.self_attn.W_pack.weight", (144, 48)),
    (7, "transformer.blocks.0.attn.Wqkv.weight", (144, 48)),
    (3, "transformer.h.0.attn.c_attn.weight", (48, 144)),
    (3, "transformer.h.0.attn.c_attn.weight", (144, 48)),
    (3, "transformer.h.0.mlp.c_fc.weight", (192, 48)),
    (3, "transformer.h.0.mlp.c_proj.weight", (192, 48)),
    (3, "transformer.h.0.mlp.c_proj.bias", (48,)),
    (3, "transformer.wpe.weight", (128, 48)),
    (5, "encoder.block.0.layer.0.SelfAttention.q.weight", (64, 32)),
    (5, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 4)),
    (5, "model.layers.1.mlp.experts.gate_up_proj", (4, 96, 32)),
    (5, "model.layers.1.mlp.experts.gate_up_proj_bias", (4, 96)),
    (5, "model.encoder.conv1.weight", (32, 80, 3)),
    (5, "model.layers.1.self_attn.sinks", (8,)),
    (5, "scale", ()),
]


def print_golden():
    print("# seed name shape : fp32 bits of the first 4 and the last 4 elements, made by tools/dummy_weights.py golden")
    for seed, name, shape in GOLDEN_TENSORS:
        flat = dummy_tensor(seed, name, shape).reshape(-1)
        bits = np.concatenate([flat[:4], flat[-4:]]).view(np.uint32)
        dims = "x".join(str(size) for size in shape) or "scalar"
        print(seed, name, dims, ":", " ".join(f"{b:08x}" for b in bits))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("golden")
    checkpoint = commands.add_parser("checkpoint")
    checkpoint.add_argument("config_folder")
    checkpoint.add_argument("output_folder")
    checkpoint.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "golden":
        print_golden()
        return 0
    import transformers
    config = transformers.AutoConfig.from_pretrained(options.config_folder)
    model_class = getattr(transformers, config.architectures[0])
    write_checkpoint(model_class(config), options.output_folder, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
