"""Beam search as transformers does it: beams.json beside golden.json (called by tools/golden.py).

Entries of a few prompts each, batched in the tests. A prompt is taken only if its sequences are the same when the
log-probabilities of every step are moved by noise: then equality of ids is a fair test.
"""
import json
import zlib

import numpy as np
import torch
import transformers
from transformers.modeling_outputs import CausalLMOutput

from golden_inputs import draw_source, inputs_of, key_of

NOISE = 3e-4  # more than any difference of arithmetic that the tolerance of logits allows
NEW_TOKENS = 20
LENGTHS = [6, 23]
ATTEMPTS = 60
MAIN = [{"num_beams": 2, "num_return_sequences": 2}, {"num_beams": 4, "num_return_sequences": 4},
        {"num_beams": 8, "num_return_sequences": 3}]
# Options beside num_beams 4 (unless they say so), recorded with end tokens that occur.
VARIED_MODELS = ["llama_gqa", "gpt2", "mistral_window", "qwen3"]
MEASURED_MODEL = "llama_gqa"  # whose prompts are such that every option of an entry matters: a test leaves them out
VARIANTS = [
    {}, {"length_penalty": 0.5}, {"length_penalty": 2.0}, {"length_penalty": -1.0}, {"early_stopping": True},
    {"early_stopping": "never"}, {"early_stopping": "never", "length_penalty": 0.0},
    {"early_stopping": True, "num_beams": 8}, {"min_new_tokens": 9}, {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2, "num_beams": 3}, {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 5},
    {"num_beams": 2, "length_penalty": 2.0, "early_stopping": "never"}]
NEUTRAL = {"do_sample": False, "length_penalty": 1.0, "early_stopping": False, "num_return_sequences": 1,
           "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "pad_token_id": 0,
           "forced_bos_token_id": None, "forced_eos_token_id": None}


class Noise(transformers.LogitsProcessor):
    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        return scores + NOISE * (2 * torch.rand(scores.shape, generator=self.random) - 1)


class Reference(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A reference model of tools/golden_models/ (architectures that transformers does not have), with generate()."""
    config_class = transformers.PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, model):
        super().__init__(transformers.PretrainedConfig(vocab_size=model.config.vocab_size, is_encoder_decoder=False,
                                                       num_hidden_layers=1))
        self.reference = model

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids, **_):
        return CausalLMOutput(logits=self.reference(input_ids=input_ids, use_cache=False).logits)


def can_search(model):
    """Encoders have no beams."""
    return not type(model).__name__.endswith(("ForMaskedLM", "EncoderModel")) and \
        getattr(model, "can_generate", lambda: True)()


@torch.no_grad()
def search(model, frequencies, source, options, end_tokens, noise=None):
    """[(new ids, score, how often its beam came from another place)], best first; `source` is ids, or frames of speech."""
    inputs = inputs_of(source)
    frequencies.renew()
    if frequencies.model:  # rules that depend on length: as the prompt made them
        model(**inputs, use_cache=False)
        frequencies.hold()
    options = NEUTRAL | {"max_new_tokens": NEW_TOKENS} | options
    if isinstance(model, Reference):
        options["use_cache"] = False
    if model.config.is_encoder_decoder:
        options["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    # Not model.generate(): Whisper's makes decoder prompts of its own.
    found = transformers.GenerationMixin.generate(
        model, **inputs, eos_token_id=end_tokens or None, output_scores=True, return_dict_in_generate=True,
        logits_processor=transformers.LogitsProcessorList([Noise(noise)] if noise is not None else []), **options)
    prompt = found.sequences.shape[1] - found.beam_indices.shape[1]
    sequences = []
    for row, places, score in zip(found.sequences, found.beam_indices, found.sequences_scores):
        length = int((places >= 0).sum())
        moves = int((places[1:length] != places[:length - 1]).sum())
        sequences.append((row[prompt:prompt + length].tolist(), float(score), moves))
    return sequences


def is_told_apart(model, frequencies, ids, options, end_tokens, sequences):
    for seed in (1, 2):
        others = search(model, frequencies, ids, options, end_tokens, noise=seed)
        if [o[0] for o in others] != [s[0] for s in sequences]:
            return False
    return True


def options_matter(model, frequencies, ids, options, end_tokens, sequences):
    """Whether each option beside the numbers of beams and sequences changes what is found."""
    for key in set(options) - {"num_beams", "num_return_sequences"}:
        others = search(model, frequencies, ids, {k: v for k, v in options.items() if k != key}, end_tokens)
        if [o[0] for o in others] == [s[0] for s in sequences]:
            return False
    return True


def draw_prompt(model, frequencies, name, length, options, end_tokens, wants_end):
    """A random prompt whose sequences are told apart, or None; with `wants_end` one of them ends before the limit."""
    for attempt in range(ATTEMPTS):
        key = zlib.crc32(json.dumps([name, options, end_tokens]).encode())
        rng = np.random.default_rng([length, attempt, key])
        ids = draw_source(model.config, rng, length)
        sequences = search(model, frequencies, ids, options, end_tokens)
        if wants_end and not (any(tokens[-1] in end_tokens for tokens, _, _ in sequences)
                              and (name != MEASURED_MODEL
                                   or options_matter(model, frequencies, ids, options, end_tokens, sequences))):
            continue
        if is_told_apart(model, frequencies, ids, options, end_tokens, sequences):
            return {key_of(ids): ids, "outputs": [{"output_ids": tokens, "score": round(score, 6)}
                                                  for tokens, score, _ in sequences]}, sum(s[2] for s in sequences)
    return None


def likely_ends(model, frequencies, name):
    """Two tokens that beams come upon early."""
    counts = {}
    for attempt in range(6):
        rng = np.random.default_rng([attempt, zlib.crc32(name.encode())])
        ids = [int(t) for t in rng.integers(3, model.config.vocab_size, 12)]
        for tokens, _, _ in search(model, frequencies, ids, {"num_beams": 4, "num_return_sequences": 4}, []):
            for token in set(tokens[2:12]):
                counts[token] = counts.get(token, 0) + 1
    return sorted(sorted(counts, key=lambda token: (-counts[token], token))[:2])


def record_entry(model, frequencies, name, options, end_tokens, stop_tokens):
    prompts, moves = [], 0
    ends = sorted({*end_tokens, *stop_tokens})
    for length in LENGTHS:
        drawn = draw_prompt(model, frequencies, name, length, options, ends, bool(stop_tokens) and not prompts)
        if drawn:
            prompts.append(drawn[0])
            moves += drawn[1]
    return {"options": options, "stop_token_ids": stop_tokens, "beam_moves": moves, "prompts": prompts}


def write(path, head, entries):
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = ",\n".join(f"    {json.dumps(entry)}" for entry in entries)
    path.write_text("{\n" + "\n".join(lines) + f"\n  \"entries\": [\n{rows}\n  ]\n}}\n")


def record(model, frequencies, name, folder, head):
    """Writes beams.json for a model of transformers, or a reference model, whose config.json is in the folder."""
    if not can_search(model):
        return
    if not isinstance(model, transformers.PreTrainedModel):
        model = Reference(model).eval()
    configured = json.loads((folder / "config.json").read_text()).get("eos_token_id")
    golden = json.loads((folder / "golden.json").read_text())
    end_tokens = []
    if not golden.get("ignore_eos", True):
        end_tokens = configured if isinstance(configured, list) else [configured]
    entries = [record_entry(model, frequencies, name, options, end_tokens, []) for options in MAIN]
    if name in VARIED_MODELS:
        stops = likely_ends(model, frequencies, name)
        entries += [record_entry(model, frequencies, name, {"num_beams": 4, "num_return_sequences": 3} | variant, end_tokens, stops)
                    if variant.get("num_beams", 4) >= 3 else
                    record_entry(model, frequencies, name, {"num_return_sequences": 2} | variant, end_tokens, stops)
                    for variant in VARIANTS]
    entries = [entry for entry in entries if entry["prompts"]]
    if not entries or not any(entry["beam_moves"] for entry in entries):
        raise SystemExit(f"golden: {name}: no prompt whose beams change places and are told apart")
    write(folder / "beams.json", {"made_by": "tools/golden_beams.py", **head, "seed": golden["seed"],
                                  "ignore_eos": golden.get("ignore_eos", True), "max_new_tokens": NEW_TOKENS}, entries)
    print(f"{name:24} beams: {len(entries)} entries, {sum(len(e['prompts']) for e in entries)} prompts", flush=True)
