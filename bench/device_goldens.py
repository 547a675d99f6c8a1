#!/usr/bin/env python3
"""How far the logits of the recorded tiny models (tests/data/models) are from transformers' in fp32, by type.

    MILLRACE=PROGRAM bench/device_goldens.py [DEVICE [NAME...]]

One JSON line per model: for each type the largest difference of the stored logits, relative to the prompt's largest
reference logit, over the tokens up to the first that differs. Nothing but Python is needed. That fp32 is exact is tested by
tests/models/test_model_goldens.py.
"""
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/models"))

import model_golden
import program
import tensor_file


def outputs(golden, dtype, device, scratch):
    """The new ids of each prompt, and the logits by name."""
    prompts, logits = scratch / "prompts.jsonl", scratch / "logits.safetensors"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in golden.inputs()))
    logits.unlink(missing_ok=True)
    arguments = [dtype if a == "fp32" else a for a in golden.arguments()]
    result = program.run(*arguments, "--device", device, "--no-cache", "--json", "--quiet", "--input-file", prompts,
                         "--logits-file", logits)
    if result.status != 0:
        sys.exit(str(result))
    ids = [json.loads(line)["outputs"][0]["output_ids"] for line in result.out.splitlines()]
    return ids, tensor_file.read_tensors(logits)


def difference(golden, ids, found):
    worst = 0
    for i, prompt in enumerate(golden.prompts):
        same = next((k for k, (a, b) in enumerate(zip(prompt["output_ids"], ids[i])) if a != b), len(ids[i]))
        for name, rows in (("prompt_logits", prompt["prompt_rows"]), ("logits", prompt["new_rows"])):
            for k, index in enumerate(rows):
                if name == "logits" and index > same:
                    continue
                pairs = zip(model_golden.row(found[f"{name}.{i}"], index), model_golden.row(golden.tensors[f"{name}.{i}"], k))
                worst = max(worst, max(abs(a - b) for a, b in pairs) / prompt["largest_logit"])
    return round(worst, 6)


def main():
    device = (sys.argv + ["cuda"])[1]
    names = sys.argv[2:] or model_golden.names()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            golden = model_golden.Golden(name)
            if "seed" not in golden.head:
                continue
            line = {"model": name}
            for dtype in ("fp32", "bf16", "fp16"):
                line[dtype] = difference(golden, *outputs(golden, dtype, device, pathlib.Path(folder)))
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
