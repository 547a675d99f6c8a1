#!/usr/bin/env python3
"""How far transformers' own 16-bit logits of the recorded tiny models are from its fp32 ones: the peer of device_goldens.py.

    bench/device_transformers.py [DEVICE [NAME...]]

The same lines, for those models that transformers has, by the same measure: the largest difference of the stored logits, relative to the prompt's largest reference
logit, over the tokens up to the first that differs. Needs torch, transformers and safetensors.
"""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests/models")]

import torch
import transformers

import golden as recorder
import golden_encdec
import model_golden


def inputs_of(prompt, key, dtype):
    values = torch.tensor([prompt[key]])
    return values.to(dtype) if key == "input_features" else values


@torch.no_grad()
def logits_of(name, model, frequencies, prompt, dtype):
    """(logits of the prompt, logits of the recorded new tokens), each [T, V], all tokens known in advance."""
    new = prompt["output_ids"][:-1]
    if "decoder_input_ids" in prompt:
        key = "input_features" if "input_features" in prompt else "input_ids"
        decoder = torch.tensor([prompt["decoder_input_ids"] + new])
        rows = model(**{key: inputs_of(prompt, key, dtype)}, decoder_input_ids=decoder, use_cache=False).logits[0]
        length = len(prompt["decoder_input_ids"])
        return rows[:length], rows[length - 1:]
    ids = prompt["input_ids"]
    if golden_encdec.is_encoder(recorder.CONFIGS[name]):
        rows = golden_encdec.forward_encoder(model, ids)
        return rows, rows
    frequencies.renew()
    prompt_logits = recorder.forward(model, ids)
    frequencies.hold()
    return prompt_logits, recorder.forward(model, ids + new)[len(ids) - 1:]


def difference(golden, model, dtype):
    frequencies = recorder.frequencies_of(model)
    worst = 0
    for i, prompt in enumerate(golden.prompts):
        prompt_logits, logits = logits_of(golden.name, model, frequencies, prompt, dtype)
        chosen = logits.argmax(-1).tolist()
        same = next((k for k, (a, b) in enumerate(zip(prompt["output_ids"], chosen)) if a != b), len(chosen))
        for name, found, rows in (("prompt_logits", prompt_logits, prompt["prompt_rows"]), ("logits", logits, prompt["new_rows"])):
            for k, index in enumerate(rows):
                if name == "logits" and index > same:
                    continue
                expected = torch.tensor(model_golden.row(golden.tensors[f"{name}.{i}"], k))
                worst = max(worst, float((found[index].float() - expected).abs().max()) / prompt["largest_logit"])
    return round(worst, 6)


def main():
    device = (sys.argv + ["cuda"])[1]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[2:] or model_golden.names():
        golden = model_golden.Golden(name)
        if "seed" not in golden.head or name in recorder.REFERENCES:  # the latter: ours, in fp32
            continue
        line = {"model": name}
        for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
            build = golden_encdec.build if golden_encdec.handles(name) else lambda folder, _, kind: recorder.build_model(folder, kind)
            model = build(golden.folder, recorder.CONFIGS[name], dtype).to(device)
            with torch.device(device):
                line[label] = difference(golden, model, dtype)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
