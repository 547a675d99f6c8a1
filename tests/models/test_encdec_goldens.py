#!/usr/bin/env python3
"""Models with an encoder: the bundled T5, embeddings, speech. (Logits and tokens of the tiny ones: test_model_goldens.py.)"""
import json
import math
import struct
import wave

import model_golden  # which finds the harness
import json_schema
import program
from model_golden import Golden

DIGITS = program.MODELS / "digits-t5"
# transformers 5.23: generate(do_sample=False, num_beams=1) in fp32.
SPOKEN = {
    "Thursday, the eighth of October eighteen twenty-nine": ([3, 78, 32, 74, 145, 100, 1], "1829-10-08"),
    "the first of May nineteen hundred": ([3, 27, 66, 1], "319"),
    "Monday, the thirty-first of December two thousand and twelve": ([204, 96, 32, 30, 129, 1], "2002-12-31"),
    "March the third, seventeen seventy-six": ([207, 73, 16, 258, 1], "1776-03-03"),
    "twelve": ([3, 128, 1], "12"),
    "Sunday, the second of February sixteen sixty-six": ([200, 73, 97, 30, 97, 1], "1666-02-02"),
    "the twenty-second of June nineteen forty-one": ([3, 66, 20, 102, 212, 32, 1], "1941-06-22"),
}


# transformers 5.23: generate() of the tiny BART under RULES, greedy, with no_repeat_ngram_size 2; by prompt of its golden.
RULES = {"decoder_start_token_id": 2, "eos_token_id": 2, "forced_bos_token_id": 7, "forced_eos_token_id": 2, "max_length": 12,
         "suppress_tokens": [67, 105], "begin_suppress_tokens": [93]}
RULED = [
    [7, 123, 123, 132, 132, 147, 34, 34, 132, 34, 2],
    [7, 43, 43, 35, 93, 93, 35, 35, 48, 48, 2],
    [7, 43, 43, 93, 93, 48, 48, 93, 43, 48, 2],
    [7, 43, 43, 76, 93, 93, 34, 34, 35, 43, 2],
    [7, 43, 43, 76, 93, 93, 55, 55, 43, 48, 2],
    [7, 76, 76, 93, 93, 147, 93, 117, 93, 31, 2],
]


# Faults planted through config.json: the comparison must see each.
CONFIG_FAULTS = [
    ("t5_relu", {"scale_decoder_outputs": False}),
    ("t5_relu", {"relative_attention_max_distance": 40}),
    ("t5_gated", {"layer_norm_epsilon": 1e-6}),
    ("t5_gated", {"feed_forward_proj": "gated-relu"}),
    ("t5_tied_unscaled", {"scale_decoder_outputs": True}),
    ("t5_tied_unscaled", {"relative_attention_num_buckets": 10}),
    ("bart", {"scale_embedding": True}),
    ("bart", {"activation_function": "relu"}),
    ("mbart", {"architectures": ["BartForConditionalGeneration"]}),
    ("marian", {"scale_embedding": False}),
    ("whisper", {"activation_function": "relu"}),
    ("bert_odd", {"layer_norm_eps": 1e-12}),
    ("roberta", {"pad_token_id": 0}),
]


class PlantedFaults(program.ProgramTest):
    def test_each_is_seen(self):
        for name, changes in CONFIG_FAULTS:
            with self.subTest(model=name, **changes):
                golden = Golden(name)
                model = self.tiny_model(f"fault_{name}", golden=name, **changes)
                logits = self.folder / "fault.safetensors"
                found = self.objects(*golden.arguments(model), "--input-file", self.prompts_file("fault.jsonl", *golden.inputs()),
                                     "--logits-file", logits)
                self.assertNotEqual(model_golden.compare(golden, found, logits)[0], [])


class DigitsT5(program.ProgramTest):
    def test_prints_the_date(self):
        text, (_, date) = next(iter(SPOKEN.items()))
        self.assertEqual(self.good("run", DIGITS, text, "--quiet").out, date + "\n")

    def test_a_batch_of_many_lengths(self):
        prompts = self.prompts_file("spoken.jsonl", *({"prompt": text} for text in SPOKEN))
        for variant in ([], ["--layout", "padded"], ["--kv-cache", "contiguous"], ["--tokens-per-block", "8", "--max-batch-size", "2"]):
            with self.subTest(variant=variant):
                outputs = self.outputs(DIGITS, "--input-file", prompts, *program.EXACT, *variant)
                self.assertEqual([(o["output_ids"], o["text"]) for o in outputs], list(SPOKEN.values()))
                self.assertEqual({o["finish_reason"] for o in outputs}, {"stop"})

    def test_engine_file(self):
        engine = self.folder / "digits.engine"
        self.good("build", DIGITS, "-o", engine, "--dtype", "fp32")
        text, (_, date) = next(iter(SPOKEN.items()))
        self.assertEqual(self.good("run", engine, text, "--quiet").out, date + "\n")

    def test_decoder_input_ids(self):
        """The decoder goes on where it is told to."""
        text, (ids, _) = next(iter(SPOKEN.items()))
        prompts = self.prompts_file("begun.jsonl", {"prompt": text, "decoder_input_ids": [0, *ids[:3]]})
        self.assertEqual(self.outputs(DIGITS, "--input-file", prompts, *program.EXACT)[0]["output_ids"], ids[3:])

    def test_max_length_of_the_model(self):
        """generation_config.json has max_length 24: 23 new tokens behind the start token."""
        output = self.outputs(DIGITS, "twelve", *program.EXACT, "--ignore-eos")[0]
        self.assertEqual((len(output["output_ids"]), output["finish_reason"]), (23, "length"))

    def test_refusals(self):
        long = self.prompts_file("long.jsonl", {"input_ids": [5] * 513})
        self.refused("513 tokens, the encoder takes 512", "run", DIGITS, "--input-file", long)
        self.refused("prompt is empty", "run", DIGITS, "--input-ids", "", "--greedy")
        self.refused("for decoders", "perplexity", DIGITS, "--text-file", program.ROOT / "README.md")
        self.refused("an encoder and a decoder", "embed", DIGITS, "twelve")
        self.refused("attention-window", "run", DIGITS, "twelve", "--attention-window", "8")
        self.refused("reads text", "run", DIGITS, "--input-file", self.prompts_file("audio.jsonl", {"audio": "x.wav"}))
        self.refused("no encoder beside a decoder", "run", program.DRAFT, "--input-file",
                     self.prompts_file("decoder.jsonl", {"prompt": "x", "decoder_input_ids": [1]}))


class Rules(program.ProgramTest):
    def test_forced_and_suppressed_tokens(self):
        golden = Golden("bart")
        model = self.tiny_model("ruled", golden="bart")
        self.write("ruled/generation_config.json", json.dumps(RULES))
        prompts = self.prompts_file("ruled.jsonl", *({"input_ids": p["input_ids"]} for p in golden.prompts))
        outputs = self.outputs(model, f"--dummy-weights={golden.head['seed']}", "--input-file", prompts, *program.EXACT,
                               "--no-repeat-ngram-size", "2")
        self.assertEqual([o["output_ids"] for o in outputs], RULED)


def close(test, found, wanted, tolerance):
    largest = max(abs(x) for x in wanted)
    test.assertEqual(len(found), len(wanted))
    test.assertLessEqual(max(abs(a - b) for a, b in zip(found, wanted)), tolerance * largest)


class Embed(program.ProgramTest):
    def embedding(self, model, ids, *arguments):
        found = self.objects("embed", model, "--input-ids", ",".join(map(str, ids)), "--dtype", "fp32", *arguments, schema="embed")
        self.assertEqual(len(found), 1)
        self.assertEqual(found[0]["input_ids"], ids)
        return found[0]

    def test_pooled_vectors_are_those_of_transformers(self):
        for name in ("bert", "roberta"):
            golden = Golden(name)
            for index, prompt in enumerate(golden.prompts):
                for pooling, key in (("mean", "mean"), ("first", "first")):
                    with self.subTest(model=name, prompt=index, pooling=pooling):
                        found = self.embedding(golden.folder, prompt["input_ids"], f"--dummy-weights={golden.head['seed']}",
                                               "--pooling", pooling)
                        close(self, found["embedding"], golden.tensors[f"{key}.{index}"][1], 1e-4)

    def test_a_model_without_a_head(self):
        """The same encoder under BertModel: names without the prefix, so other generated weights, but it embeds and nothing else."""
        model = self.tiny_model("headless", golden="bert", architectures=["BertModel"])
        found = self.embedding(model, [5, 6, 7], "--dummy-weights=20")
        self.assertEqual((len(found["embedding"]), found["pooling"]), (48, "mean"))
        self.refused("has no head", "run", model, "--dummy-weights", "--input-ids", "5,6,7")

    def test_a_decoder_gives_its_last_state(self):
        golden = Golden("llama_gqa")
        found = self.embedding(golden.folder, [5, 6, 7], "--dummy-weights=20")
        self.assertEqual(found["pooling"], "last")
        last = self.embedding(golden.folder, [5, 6, 7, 8], "--dummy-weights=20", "--pooling", "mean")["embedding"]
        mean = [0.0] * len(last)
        for count in range(1, 5):  # causal: the states of a prefix are those of the whole
            state = self.embedding(golden.folder, [5, 6, 7, 8][:count], "--dummy-weights=20")["embedding"]
            mean = [m + s / 4 for m, s in zip(mean, state)]
        close(self, last, mean, 1e-5)

    def test_refusals(self):
        model = Golden("bert").folder
        self.refused("--pooling", "embed", model, "--dummy-weights", "--input-ids", "5", "--pooling", "max")
        self.refused("one text", "embed", model, "--dummy-weights")
        self.refused("65 tokens", "embed", model, "--dummy-weights", "--input-ids", ",".join(["5"] * 65))


class Speech(program.ProgramTest):
    def wav(self, name, rate=16000, seconds=0.4, channels=1):
        path = self.folder / name
        with wave.open(str(path), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            samples = [int(9000 * math.sin(i * 0.05) + 5000 * math.sin(i * i * 1e-5)) for i in range(int(rate * seconds))]
            file.writeframes(b"".join(struct.pack("<h", s) * channels for s in samples))
        return path

    def test_a_sound_is_heard(self):
        """--audio, `audio` in a file, one channel and two: the same; another sound: other logits."""
        golden = Golden("whisper")
        model = golden.arguments()[1:]
        sound, stereo = self.wav("a.wav"), self.wav("b.wav", channels=2)
        alone = self.outputs(*model, "--audio", sound)[0]["output_ids"]
        prompts = self.prompts_file("sounds.jsonl", {"audio": str(sound)}, {"audio": str(stereo)})
        self.assertEqual([o["output_ids"] for o in self.outputs(*model, "--input-file", prompts)], [alone, alone])
        logits = [self.folder / "1.safetensors", self.folder / "2.safetensors"]
        for path, file in zip((sound, self.wav("c.wav", seconds=0.2)), logits):
            self.good("run", *model, "--audio", path, "--logits-file", file)
        first, second = (model_golden.tensor_file.read_tensors(file)["prompt_logits.0"][1] for file in logits)
        self.assertGreater(max(abs(a - b) for a, b in zip(first, second)), 1e-3)

    def test_refusals(self):
        model = ["run", *Golden("whisper").arguments()[1:]]
        self.refused("8000 samples a second", *model, "--audio", self.wav("slow.wav", rate=8000))
        self.refused("0.5 s long, the model reads 0.4", *model, "--audio", self.wav("long.wav", seconds=0.5))
        self.refused("not a WAV file", *model, "--audio", self.write("text.wav", "no sound at all"))
        self.refused("cannot read", *model, "--audio", self.folder / "missing.wav")
        self.refused("reads speech", *model, "--input-ids", "5,6")
        for line, pattern in (({"input_ids": [5]}, "audio and input_features"), ({"input_features": [[0.0] * 40] * 7}, "7 rows"),
                              ({"input_features": [[0.0] * 39] * 8}, "39 frames"),
                              ({"input_features": [["x"] * 40] * 8}, "not a number")):
            self.refused(pattern, *model, "--input-file", self.prompts_file("line.jsonl", line))


class Schemas(program.ProgramTest):
    def test_embed_schema_refuses_other_lines(self):
        schema = json_schema.load("embed")
        good = {"embedding": [0.5], "pooling": "mean", "input_ids": [3]}
        self.assertEqual(json_schema.problems(good, schema), [])
        for change in ({"embedding": []}, {"pooling": "max"}, {"more": 1}):
            self.assertNotEqual(json_schema.problems(json.loads(json.dumps(good | change)), schema), [])


if __name__ == "__main__":
    program.main()
