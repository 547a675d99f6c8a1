"""Prompt tuning as transformers does it with inputs_embeds: tests/data/models/prompt_tables.json (called by tools/golden.py)."""
import numpy as np
import torch

MODELS = ["llama_gqa", "gpt2"]
ROWS = 5
NEW_TOKENS = 12
PATTERNS = [[0, 1, 2, 3, 4, -1, -1], [-1, 4, 0, -1, 4, -1, -1, -1, 2], [3]]  # rows of the table; -1: a token of the vocabulary


@torch.no_grad()
def greedy(model, embeddings, table, ids):
    """New ids, and how far the best logit was ahead at least, relative to the largest."""
    vocab = model.config.vocab_size
    rows = [table[i - vocab] if i >= vocab else embeddings.weight[i] for i in ids]
    new, lead = [], 1.0
    while len(new) < NEW_TOKENS:
        logits = model(inputs_embeds=torch.stack(rows)[None], use_cache=False).logits[0, -1]
        best = logits.topk(2).values
        lead = min(lead, float((best[0] - best[1]) / logits.abs().max()))
        new.append(int(logits.argmax()))
        rows.append(embeddings.weight[new[-1]])
    return new, lead


def record(build_model, folder, head, write_json, lead_min):
    items = []
    for name in MODELS:
        model = build_model(folder / name)
        embeddings, vocab = model.get_input_embeddings(), model.config.vocab_size
        for number, pattern in enumerate(PATTERNS):
            for attempt in range(100):
                rng = np.random.default_rng([number, attempt, *name.encode()])
                scale = float(embeddings.weight.detach().std())
                table = np.round(rng.normal(0, scale, (ROWS, embeddings.weight.shape[1])), 4).astype(np.float32)
                ids = [vocab + row if row >= 0 else int(rng.integers(3, vocab)) for row in pattern]
                new, lead = greedy(model, embeddings, torch.from_numpy(table), ids)
                if lead > lead_min:
                    break
            else:
                raise SystemExit(f"golden: {name}: no prompt with virtual tokens and a clear winner at every step")
            items.append({"model": name, "input_ids": ids, "output_ids": new,
                          "prompt_table": [[round(float(x), 4) for x in row] for row in table]})
    write_json(folder / "prompt_tables.json", {"made_by": "tools/golden_prompt_tables.py", **head}, "prompts", items)
    print(f"{'prompt_tables':24} {len(items)} prompts", flush=True)
