"""Goldens of models with an encoder: encoder-decoder ones, and encoders alone. tools/golden.py calls `record(name)` for
the configurations that `handles()` knows.

As for decoders: generated weights, fp32, CPU, eager attention; random inputs of 1 to 60 tokens, drawn until the new
tokens (of an encoder: the best token at each position) are told apart well; every tensor must move the logits.
"""
import json

import numpy as np
import torch
from safetensors.numpy import save_file

import golden
from dummy_weights import dummy_tensor
from golden_faults import measure_tensors
from golden_inputs import draw_source, inputs_of, key_of
from golden_models import CONFIGS, FAINT_TENSORS

# Tokens of decoder_input_ids, by prompt. Random ones, because tied heads like to repeat what they are given.
DECODER_PROMPTS = [1, 4, 9, 1, 13, 6]
PEAK_MIN = 0.2  # of 60 keys, where even weights would be 0.017


def is_encoder(config):
    return config["architectures"][0].endswith("ForMaskedLM")


def handles(name):
    return CONFIGS[name].get("is_encoder_decoder", False) or is_encoder(CONFIGS[name])


def build(folder, config, dtype=torch.float32):
    model = golden.build_model(folder, dtype)
    if config["model_type"] == "t5" and not config.get("tie_word_embeddings", True):
        # transformers 5 unties only where it reads a checkpoint with a head of its own.
        head = dummy_tensor(golden.SEED, "lm_head.weight", tuple(model.lm_head.weight.shape))
        model.lm_head.weight = torch.nn.Parameter(torch.from_numpy(head).to(dtype))
    return model


# ---- encoder-decoder models -----------------------------------------------------------------------------------------


@torch.no_grad()
def forward(model, prompt):
    """Logits [decoder tokens, V] of (input, decoder ids)."""
    source, decoder = prompt
    return model(**inputs_of(source), decoder_input_ids=torch.tensor([decoder]), use_cache=False).logits[0]


def greedy(model, source, decoder, new_tokens, end_tokens):
    """(logits of the decoder's prompt, new ids, their logits)."""
    prompt_logits = forward(model, (source, decoder))
    new, row = [], prompt_logits[-1]
    while len(new) < new_tokens:
        new.append(int(row.argmax()))
        if new[-1] in end_tokens or len(new) == new_tokens:
            break
        row = forward(model, (source, decoder + new))[-1]
    return prompt_logits, new, forward(model, (source, decoder + new[:-1]))[len(decoder) - 1:]


def draw_prompt(model, length, decoder_length, end_tokens, name):
    start = model.config.decoder_start_token_id
    for attempt in range(300):
        rng = np.random.default_rng([golden.SEED, length, attempt, *name.encode()])
        source = draw_source(model.config, rng, length)
        decoder = [start, *(int(t) for t in rng.integers(3, model.config.vocab_size, decoder_length - 1))]
        prompt_logits, new, logits = greedy(model, source, decoder, golden.NEW_TOKENS, end_tokens)
        lead = golden.leads(logits)
        if min(lead) > 1.001 * golden.LEAD_MIN * golden.largest(prompt_logits, logits):
            return source, decoder, prompt_logits, new, logits, lead
    raise SystemExit(f"golden: {name}: no prompt of {length} tokens with a clear winner at every step")


def check_generate(model, source, decoder, new, end_tokens, name):
    if model.config.model_type == "whisper":
        return  # its generate() makes decoder prompts of its own
    out = model.generate(**inputs_of(source), decoder_input_ids=torch.tensor([decoder]), do_sample=False, num_beams=1,
                         max_new_tokens=golden.NEW_TOKENS, eos_token_id=end_tokens or None, pad_token_id=0,
                         forced_eos_token_id=None, forced_bos_token_id=None)
    golden.check(out[0, len(decoder):].tolist() == new, f"{name}: generate() gives other tokens")


@torch.no_grad()
def attention_peak(model, prompt):
    """Of the last token's strongest weights, over self-attention and cross attention, means."""
    source, decoder = prompt
    out = model(**inputs_of(source), decoder_input_ids=torch.tensor([decoder]), output_attentions=True, use_cache=False)
    maps = [*out.encoder_attentions, *out.cross_attentions]
    return float(torch.stack([m[0, :, -1].max(-1).values.mean() for m in maps]).mean())


def record_encoder_decoder(name, folder, config, model):
    end_tokens, prompts, tensors, references = [], [], {}, []
    for index, (length, decoder_length) in enumerate(zip(golden.LENGTHS, DECODER_PROMPTS)):
        source, decoder, prompt_logits, new, logits, lead = draw_prompt(model, length, decoder_length, end_tokens, name)
        check_generate(model, source, decoder, new, end_tokens, name)
        new_rows = [row for row in golden.NEW_ROWS if row < len(new)]
        tensors[f"prompt_logits.{index}"] = prompt_logits.numpy()
        tensors[f"logits.{index}"] = logits[new_rows].numpy()
        prompts.append({key_of(source): source, "decoder_input_ids": decoder, "output_ids": new, "prompt_rows": list(range(len(decoder))),
                        "new_rows": new_rows, "largest_logit": round(golden.largest(prompt_logits, logits), 5),
                        "leads": [round(x, 4) for x in lead]})
        references.append(((source, decoder + new[:7]), forward(model, (source, decoder + new[:7]))))
    write(name, folder, model, prompts, tensors, references, forward, attention_peak(model, references[-1][0]))


# ---- encoders -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def forward_encoder(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0]  # [T, V]


@torch.no_grad()
def encoder_peak(model, ids):
    maps = model(input_ids=torch.tensor([ids]), output_attentions=True).attentions
    return float(torch.stack([m[0].max(-1).values.mean() for m in maps]).mean())


@torch.no_grad()
def pooled(model, ids):
    """(mean of the last hidden states, that of the first token), as `millrace embed` gives them."""
    hidden = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return hidden.mean(0), hidden[0]


def record_encoder(name, folder, config, model):
    prompts, tensors, references = [], {}, []
    for index, length in enumerate(golden.LENGTHS):
        for attempt in range(300):
            rng = np.random.default_rng([golden.SEED, length, attempt, *name.encode()])
            ids = [int(t) for t in rng.integers(3, model.config.vocab_size, length)]
            logits = forward_encoder(model, ids)
            lead = golden.leads(logits)
            if min(lead) > 1.001 * golden.LEAD_MIN * golden.largest(logits):
                break
        else:
            raise SystemExit(f"golden: {name}: no prompt of {length} tokens with a clear winner everywhere")
        rows = list(range(length)) if length <= golden.FULL_ROWS_MAX else [0, length // 3, 2 * length // 3, length - 1]
        tensors[f"prompt_logits.{index}"] = logits[rows].numpy()
        mean, first = pooled(model, ids)
        tensors[f"mean.{index}"], tensors[f"first.{index}"] = mean.numpy(), first.numpy()
        prompts.append({"input_ids": ids, "output_ids": logits.argmax(-1).tolist(), "prompt_rows": rows, "new_rows": [],
                        "largest_logit": round(golden.largest(logits), 5), "leads": [round(x, 4) for x in lead]})
        references.append((ids, logits))
    write(name, folder, model, prompts, tensors, references, forward_encoder, encoder_peak(model, prompts[-1]["input_ids"]))


# ---- both -----------------------------------------------------------------------------------------------------------


def write(name, folder, model, prompts, tensors, references, run, peak):
    spread = float(torch.cat([logits for _, logits in references]).std())
    if getattr(model.config, "scale_decoder_outputs", False):  # T5 divides by it in front of the head
        spread *= model.config.d_model**0.5
    golden.check(spread >= 1, f"{name}: the logits' deviation is {spread:.2f}, less than 1")
    golden.check(peak >= PEAK_MIN, f"{name}: the strongest attention weight is {peak:.2f} on average, less than {PEAK_MIN}")
    faults = measure_tensors(model, run, references, FAINT_TENSORS.get(name, []))
    unseen = {fault: moved for fault, moved in faults.items() if moved <= 10 * golden.TOLERANCE}
    golden.check(not unseen, f"{name}: these faults hardly move the logits: {unseen}")
    head = {"made_by": "tools/golden.py", **golden.versions(), "seed": golden.SEED, "tolerance": golden.TOLERANCE,
            "ignore_eos": True, "rope_type": "default", "logit_deviation": round(spread, 3), "attention_peak": round(peak, 3),
            "faults": faults}
    golden.write_json(folder / "golden.json", head, "prompts", prompts)
    save_file(tensors, folder / "golden.safetensors")
    smallest = min(faults, key=faults.get)
    print(f"{name:24} deviation {spread:.2f}  peak {peak:.2f}  {len(faults)} faults, least {smallest} {faults[smallest]:.4f}",
          flush=True)


def record(name):
    folder, config = golden.DATA / name, CONFIGS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = build(folder, config)
    (record_encoder if is_encoder(config) else record_encoder_decoder)(name, folder, config, model)
