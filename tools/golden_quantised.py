"""What models compute whose KV cache holds int8 or fp8: golden_int8 and golden_fp8 beside golden (called by tools/golden.py).

transformers' own attention runs over a cache that gives back what it would read from 8 bits: int8 times the scale of the
token and head, or e4m3 as torch rounds it. Everything else is fp32.
"""
import torch
import transformers
from safetensors.numpy import save_file

# Tolerances of logits: K and V whose last bits differ may be rounded to the next number, which moves int8 by 9e-4.
KINDS = {"int8": 2e-3, "fp8": 1e-2}
LEAD_MIN = 1e-3  # of the largest logit
MODELS = ["bloom", "gpt2", "llama_gqa", "mistral_window"]
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max


def stored(x, kind):
    """[..., head size] as it comes back from the cache."""
    if kind == "fp8":
        return x.clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn).float()
    scale = x.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, torch.round(x / scale), 0) * scale


class Cache(transformers.DynamicCache):
    def __init__(self, kind, noise=0.0):
        super().__init__()
        self.kind, self.noise = kind, noise
        self.random = torch.Generator().manual_seed(1)

    def update(self, keys, values, *rest, **more):
        def store(x):
            return stored(x * (1 + self.noise * (2 * torch.rand(x.shape, generator=self.random) - 1)), self.kind)
        return super().update(store(keys), store(values), *rest, **more)


def logits_of(model, ids, kind, noise=0.0):
    """[T, V]"""
    return model(input_ids=torch.tensor([ids]), past_key_values=Cache(kind, noise), use_cache=True).logits[0]


def greedy(model, ids, kind, new_tokens, end_tokens):
    """(logits of all rows, new ids)"""
    new = []
    while len(new) < new_tokens and (not new or new[-1] not in end_tokens):
        rows = logits_of(model, ids + new, kind)
        new.append(int(rows[-1].argmax()))
    return rows, new


@torch.no_grad()
def record(model, folder, golden, write_json, versions):
    """Of the prompts of golden.json those whose tokens are told apart well with this cache too."""
    for kind, tolerance in KINDS.items():
        prompts, tensors, moved, noisy = [], {}, 0.0, 0.0
        ends = [] if golden["ignore_eos"] else [model.config.eos_token_id]
        for prompt in golden["prompts"]:
            ids = prompt["input_ids"]
            rows, new = greedy(model, ids, kind, 32, ends)
            largest, best = float(rows.abs().max()), rows[len(ids) - 1:].topk(2, -1).values
            leads = (best[:, 0] - best[:, 1]).tolist()
            if min(leads) <= LEAD_MIN * largest:
                continue
            index, new_rows = len(prompts), [row for row in (1, 8, 31) if row < len(new)]
            tensors[f"prompt_logits.{index}"] = rows[prompt["prompt_rows"]].numpy()
            tensors[f"logits.{index}"] = rows[[len(ids) - 1 + row for row in new_rows]].numpy()
            prompts.append({"input_ids": ids, "output_ids": new, "prompt_rows": prompt["prompt_rows"], "new_rows": new_rows,
                            "largest_logit": round(largest, 5), "leads": [round(x, 4) for x in leads]})
            plain = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            moved = max(moved, float((rows[:len(ids)] - plain).abs().max()) / largest)
            again = logits_of(model, ids, kind, 1e-6)
            noisy = max(noisy, float((rows[:len(ids)] - again).abs().max()) / largest)
        if len(prompts) < 3 or moved < 3 * tolerance:
            raise SystemExit(f"golden: {folder.name}: {len(prompts)} prompts; {kind} moves the logits by {moved:.4f}")
        head = {"made_by": "tools/golden_quantised.py", **versions, "seed": golden["seed"], "tolerance": tolerance,
                "ignore_eos": golden["ignore_eos"], "moved": round(moved, 5), "moved_by_noise": round(noisy, 6)}
        write_json(folder / f"golden_{kind}.json", head, "prompts", prompts)
        save_file(tensors, folder / f"golden_{kind}.safetensors")
        print(f"{folder.name:24} {kind}: {len(prompts)} prompts, moved {moved:.4f}, by noise of 1e-6 {noisy:.6f}", flush=True)
