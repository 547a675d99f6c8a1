"""Models of transformers with the generated weights of docs/dummy_weights.md, made where they are wanted: billions of elements in
seconds on a GPU.

`build` makes a model without weights. `fill` puts them into the parameters of a transformers model, under the names and in the shapes of a checkpoint; the bits are
those of tools/dummy_weights.py (`check`), rounded to nearest even.
"""
import json
import pathlib
import re
import sys

import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import dummy_weights

CHUNK = 1 << 25  # elements; bounds the temporaries to some 0.5 GB


def signed(value):
    """The 64-bit number with the bits of an unsigned one: integers of PyTorch wrap as those do."""
    return value - 2**64 if value >= 2**63 else value


def mixed(x):
    """SplitMix64's finaliser of an int64 tensor. Shifts of PyTorch keep the sign, so the bits that enter are cut off."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & (2**33 - 1))


def tensor(seed, name, shape, dtype, device):
    """The whole tensor, each element made in fp32 and rounded once."""
    center, amplitude = dummy_weights.distribution(name, shape)
    hashed_seed = int(dummy_weights.mix(dummy_weights.np.array([seed], dtype="uint64"))[0])
    key = mixed(torch.tensor(signed(dummy_weights.fnv1a(name) ^ hashed_seed))).item()
    step = torch.tensor(amplitude * 2.0**-23, dtype=torch.float64).to(torch.float32).to(device)
    out = torch.empty(shape, dtype=dtype, device=device)
    flat = out.view(-1)
    for begin in range(0, flat.numel(), CHUNK):
        index = torch.arange(begin, min(begin + CHUNK, flat.numel()), dtype=torch.int64, device=device)
        hashed = mixed(key + index * signed(int(dummy_weights.GOLDEN_RATIO)))
        uniform = ((hashed >> 40) & (2**24 - 1)) - 2**23
        flat[begin : begin + len(index)] = uniform.to(torch.float32) * step + center
    return out


def check(device):
    """Raises unless this device makes the numbers that numpy makes."""
    for seed, name, shape in dummy_weights.GOLDEN_TENSORS:
        wanted = torch.from_numpy(dummy_weights.dummy_tensor(seed, name, shape))
        found = tensor(seed, name, shape, torch.float32, device).cpu()
        if not torch.equal(found, wanted):
            raise SystemExit(f"{name} of seed {seed} differs from tools/dummy_weights.py on {device}")


def parts(name, shape):
    """What of a checkpoint makes up a parameter of transformers: (name, shape) in order. One and the same, but for Mixtral's
    experts, which files keep apart: gate_up_proj is [w1; w3] of each, down_proj is w2."""
    stacked = re.fullmatch(r"(.*)\.mlp\.experts\.(gate_up_proj|down_proj)", name)
    if not stacked:
        return [(name.replace(".mlp.gate.", ".block_sparse_moe.gate."), tuple(shape))]
    experts, rows, columns = shape
    layers = ("w1", "w3") if stacked[2] == "gate_up_proj" else ("w2",)
    return [(f"{stacked[1]}.block_sparse_moe.experts.{e}.{layer}.weight", (rows // len(layers), columns))
            for e in range(experts) for layer in layers]


def parameter(name, shape, stored, dtype, device):
    """A parameter rounded to the type `stored` of the checkpoint, then kept as `dtype`."""
    pieces = [tensor(0, n, s, stored, device).to(dtype) for n, s in parts(name, shape)]
    value = pieces[0] if len(pieces) == 1 else torch.cat(pieces).view(shape)
    return torch.nn.Parameter(value, requires_grad=False)


def replace(module, prefix, make):
    """Gives every parameter below `module` the value make(name, parameter); tied ones are made once."""
    made = {}
    for owner_name, owner in module.named_modules(prefix=prefix):
        for leaf, old in list(owner._parameters.items()):
            if old is None:
                continue
            if id(old) not in made:
                made[id(old)] = (old, make(f"{owner_name}.{leaf}" if owner_name else leaf, old))
            owner._parameters[leaf] = made[id(old)][1]


def fill(module, prefix, stored, dtype, device):
    replace(module, prefix, lambda name, old: parameter(name, old.shape, stored, dtype, device))


def drop(module):
    """Forgets the values below `module`, and their memory."""
    replace(module, "", lambda _, old: torch.nn.Parameter(old.detach().to("meta"), requires_grad=False))


def build(folder, dtype, device):
    """A model without weights; what is computed from the configuration alone (frequencies) is there."""
    config = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])

    def make(changes):
        # Experts one after the other: the grouped product takes certain sizes and types only.
        parsed = transformers.AutoConfig.for_model(**{**config, **changes}, experts_implementation="eager")
        # SDPA knows no soft cap.
        attention = "eager" if config.get("attn_logit_softcapping") else "sdpa"
        return kind._from_config(parsed, attn_implementation=attention, dtype=dtype)

    with torch.device("meta"):
        model = make({})
    # Frequencies follow neither from the number of layers nor from these sizes.
    donor = make({"num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8, "pad_token_id": None})
    for name, buffer in donor.named_buffers():
        owner, leaf = name.rpartition(".")[::2]
        model.get_submodule(owner)._buffers[leaf] = buffer.to(device)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if left:
        raise SystemExit(f"{folder}: buffers {left} were not made")
    return model.eval()
