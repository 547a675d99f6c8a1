#!/usr/bin/env python3
"""`millrace run` on the bundled models: text, ids and log-probabilities of transformers; stops, seeds, batches, input files."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, EXACT, GOLDENS, NOVELIST
from tensor_file import read_tensors

FP32 = ("--dtype", "fp32", "--kv-dtype", "fp32")


def golden(name):
    return json.loads((GOLDENS / name / "golden.json").read_text())["prompts"]


class Goldens(program.ProgramTest):
    """Greedy texts of both models, recorded from transformers."""

    def check_model(self, model, name, *options):
        prompts = golden(name)
        logits_file = self.folder / "logits.safetensors"
        file = self.prompts_file("prompts.jsonl", *({"prompt": p["prompt"]} for p in prompts))
        found = self.objects("run", model, *EXACT, "--max-new-tokens", 64, "--input-file", file, "--logprobs", 5,
                             "--prompt-logprobs", 0, "--logits-file", logits_file, *options, schema="run")
        self.assertEqual([f["input_ids"] for f in found], [p["input_ids"] for p in prompts])
        wanted_logits = read_tensors(GOLDENS / name / "golden.safetensors")
        logits = read_tensors(logits_file)
        for i, (prompt, one) in enumerate(zip(prompts, found)):
            output = one["outputs"][0]
            with self.subTest(model=name, prompt=prompt["prompt"]):
                self.assertEqual(output["output_ids"], prompt["output_ids"])
                self.assertEqual(output["text"], prompt["text"])
                self.assertEqual([x["id"] for x in output["logprobs"]], prompt["output_ids"])
                self.check_logprobs(one, output, prompt)
                (_, vocab), rows = logits[f"prompt_logits.{i}"]
                self.check_close(rows[-vocab:], wanted_logits[f"last_prompt_logits.{i}"][1], 1e-4)

    def check_logprobs(self, one, output, prompt):
        self.check_close([x["logprob"] for x in output["logprobs"]], prompt["logprobs"], 2e-4)
        self.assertAlmostEqual(output["cumulative_logprob"], sum(prompt["logprobs"]), delta=1e-2)
        for mine, theirs in zip(output["logprobs"], prompt["top_logprobs"]):
            self.assertEqual([token for token, _ in mine["top"]], [token for token, _ in theirs])
            self.check_close([value for _, value in mine["top"]], [value for _, value in theirs], 2e-4)
        self.assertEqual([x["id"] for x in one["prompt_logprobs"]], prompt["input_ids"][1:])
        self.check_close([x["logprob"] for x in one["prompt_logprobs"]], prompt["prompt_logprobs"], 2e-4)

    def check_close(self, mine, theirs, tolerance):
        """Relative to the largest of `theirs`."""
        self.assertEqual(len(mine), len(theirs))
        largest = max((abs(x) for x in theirs), default=1)
        self.assertLessEqual(max((abs(a - b) for a, b in zip(mine, theirs)), default=0), tolerance * largest)

    def test_novelist_14m(self):
        self.check_model(NOVELIST, "novelist_14m")

    def test_novelist_draft(self):
        self.check_model(DRAFT, "novelist_draft")

    def test_draft_padded_contiguous(self):
        self.check_model(DRAFT, "novelist_draft", "--layout", "padded", "--kv-cache", "contiguous")

    def test_draft_without_captured_graphs(self):
        self.check_model(DRAFT, "novelist_draft", "--no-cuda-graphs")

    def test_greedy_with_one_rule(self):
        """Penalties and bans, each against transformers' generate()."""
        rows = json.loads((GOLDENS / "novelist_14m/knobs.json").read_text())["outputs"]
        file = self.prompts_file("knobs.jsonl", *({"input_ids": r["input_ids"], "max_new_tokens": 64, **self.row_of(r["knobs"])}
                                                  for r in rows))
        outputs = self.outputs(NOVELIST, *EXACT, "--input-file", file)
        for row, output in zip(rows, outputs):
            with self.subTest(**row["knobs"]):
                self.assertEqual(output["output_ids"], row["output_ids"])

    @staticmethod
    def row_of(knobs):
        """A suppressed token is a bad word of one token."""
        row = dict(knobs)
        suppressed = row.pop("suppress_tokens", None)
        return row | ({"bad_words_ids": [[token] for token in suppressed]} if suppressed else {})

    def test_option_and_row_agree(self):
        prompt = golden("novelist_14m")[0]
        ids = ",".join(map(str, prompt["input_ids"]))
        by_option = self.outputs(NOVELIST, *EXACT, "--input-ids", ids, "--max-new-tokens", 24, "--repetition-penalty", 1.3,
                                 "--no-repeat-ngram-size", 3, "--logit-bias", "268:-5")
        file = self.prompts_file("row.jsonl", {"input_ids": prompt["input_ids"], "max_new_tokens": 24, "repetition_penalty": 1.3,
                                               "no_repeat_ngram_size": 3, "logit_bias": {"268": -5}})
        by_row = self.outputs(NOVELIST, *EXACT, "--input-file", file)
        self.assertEqual(by_option[0]["output_ids"], by_row[0]["output_ids"])
        plain = self.outputs(NOVELIST, *EXACT, "--input-ids", ids, "--max-new-tokens", 24)
        self.assertNotEqual(plain[0]["output_ids"], by_row[0]["output_ids"])
        self.assertEqual(plain[0]["output_ids"], prompt["output_ids"][:24])


class Text(program.ProgramTest):
    """Without --json: the text alone on standard output."""

    prompt = golden("novelist_14m")[0]
    line = ("run", NOVELIST, *EXACT, "--max-new-tokens", 64)

    def test_argument(self):
        result = self.good(*self.line, self.prompt["prompt"])
        self.assertIn(self.prompt["text"].strip(), result.out)
        self.assertIn("tokens/s", result.err)
        self.assertNotIn("tokens/s", result.out)

    def test_standard_input(self):
        self.assertIn(self.prompt["text"].strip(), self.good(*self.line, stdin=self.prompt["prompt"]).out)

    def test_prompt_file(self):
        file = self.write("prompt.txt", self.prompt["prompt"])
        self.assertIn(self.prompt["text"].strip(), self.good(*self.line, "--prompt-file", file).out)

    def test_quiet(self):
        result = self.good(*self.line, "--quiet", self.prompt["prompt"])
        self.assertIn(self.prompt["text"].strip(), result.out)

    def test_chat_is_rendered(self):
        """The template's tokens, not the text's; user text never becomes special tokens."""
        plain = self.objects("run", NOVELIST, *EXACT, "--max-new-tokens", 4, "Write about the sea.", schema="run")[0]
        chat = self.objects("run", NOVELIST, *EXACT, "--max-new-tokens", 4, "--chat", "Write about the sea.", schema="run")[0]
        self.assertNotEqual(plain["input_ids"], chat["input_ids"])
        self.assertEqual(chat["input_ids"].count(1), 1, "one BOS")
        messages = self.prompts_file("chat.jsonl", {"messages": [{"role": "user", "content": "Write about the sea."}]})
        by_file = self.objects("run", NOVELIST, *EXACT, "--max-new-tokens", 4, "--input-file", messages, schema="run")[0]
        self.assertEqual(by_file["input_ids"], chat["input_ids"])
        self.assertEqual(by_file["outputs"], chat["outputs"])


class Length(program.ProgramTest):
    ids = "1,988,317,264"

    def test_max_new_tokens(self):
        for count in (1, 2, 17):
            output = self.outputs(DRAFT, *EXACT, "--input-ids", self.ids, "--max-new-tokens", count)[0]
            self.assertEqual((len(output["output_ids"]), output["finish_reason"]), (count, "length"))

    def test_no_new_tokens(self):
        found = self.objects("run", DRAFT, *EXACT, "--input-ids", self.ids, "--max-new-tokens", 0, "--prompt-logprobs", 2,
                             schema="run")[0]
        self.assertEqual(found["outputs"][0]["output_ids"], [])
        self.assertEqual([len(x["top"]) for x in found["prompt_logprobs"]], [2, 2, 2])

    def test_until_the_context_is_full(self):
        model = self.tiny_model("short", max_position_embeddings=40, eos_token_id=2)
        output = self.outputs(model, "--dummy-weights", "--ignore-eos", *EXACT, "--input-ids", "5,6,7")[0]
        self.assertEqual((len(output["output_ids"]), output["finish_reason"]), (37, "length"))

    def test_end_token(self):
        name = "llama_end_token"
        head = json.loads((GOLDENS / name / "golden.json").read_text())
        end = json.loads((GOLDENS / name / "config.json").read_text())["eos_token_id"]
        prompt = next(p for p in head["prompts"] if p["output_ids"][-1] == end)
        arguments = (GOLDENS / name, f"--dummy-weights={head['seed']}", *EXACT, "--max-new-tokens", 32, "--input-ids",
                     ",".join(map(str, prompt["input_ids"])))
        output = self.outputs(*arguments)[0]
        self.assertEqual((output["output_ids"], output["finish_reason"], output["stop_reason"]),
                         (prompt["output_ids"], "stop", None))
        longer = self.outputs(*arguments, "--ignore-eos")[0]
        self.assertEqual(longer["output_ids"][:len(prompt["output_ids"])], prompt["output_ids"])
        self.assertEqual(len(longer["output_ids"]), 32)
        later = self.outputs(*arguments, "--min-new-tokens", len(prompt["output_ids"]) + 1)[0]
        self.assertNotEqual(later["output_ids"][:len(prompt["output_ids"])], prompt["output_ids"])
        self.assertNotIn(end, later["output_ids"][:len(prompt["output_ids"])])

    def test_stop_token(self):
        prompt = golden("novelist_draft")[0]
        stop = prompt["output_ids"][7]
        first = prompt["output_ids"].index(stop)
        output = self.outputs(DRAFT, *EXACT, "--max-new-tokens", 64, "--input-ids", ",".join(map(str, prompt["input_ids"])),
                              "--stop-token-ids", stop)[0]
        self.assertEqual(output["output_ids"], prompt["output_ids"][:first + 1])
        self.assertEqual((output["finish_reason"], output["stop_reason"]), ("stop", stop))


class StopText(program.ProgramTest):
    prompt = golden("novelist_14m")[0]

    def check(self, stop):
        text = self.prompt["text"]
        output = self.outputs(NOVELIST, *EXACT, "--max-new-tokens", 64, self.prompt["prompt"], "--stop", stop)[0]
        self.assertEqual(output["text"], text[:text.index(stop)])
        self.assertEqual((output["finish_reason"], output["stop_reason"]), ("stop", stop))
        count = len(output["output_ids"])
        self.assertEqual(output["output_ids"], self.prompt["output_ids"][:count])
        # The ids end with the token that completed the stop text.
        self.assertIn(stop, self.decoded(output["output_ids"]))
        self.assertNotIn(stop, self.decoded(output["output_ids"][:-1]))

    def decoded(self, ids):
        return self.good("tokenize", NOVELIST, "--decode", ",".join(map(str, ids))).out

    def test_inside_and_across_tokens(self):
        words = self.prompt["text"].split()
        self.check(words[3])
        self.check(f"{words[2]} {words[3]}")
        self.check(f"{words[1][-1]} {words[2][0]}")

    def test_text_output_leaves_it_out(self):
        stop = self.prompt["text"].split()[4]
        result = self.good("run", NOVELIST, *EXACT, "--max-new-tokens", 64, self.prompt["prompt"], "--stop", stop)
        self.assertNotIn(stop, result.out.replace(self.prompt["prompt"], ""))

    def test_several(self):
        words = self.prompt["text"].split()
        output = self.outputs(NOVELIST, *EXACT, "--max-new-tokens", 64, self.prompt["prompt"], "--stop", words[6], "--stop",
                              words[4])[0]
        first = min((words[6], words[4]), key=self.prompt["text"].index)
        self.assertEqual(output["stop_reason"], first)


class Sampling(program.ProgramTest):
    line = (DRAFT, *FP32, "--temperature", "1.0", "--top-k", "0", "--top-p", "1.0", "--max-new-tokens", "24")

    def texts(self, *options):
        return [output["output_ids"] for output in self.outputs(*self.line, *options)]

    def test_same_seed_same_text(self):
        first = self.texts("--seed", 7, "It was a dark night, and")
        self.assertEqual(first, self.texts("--seed", 7, "It was a dark night, and"))
        self.assertNotEqual(first, self.texts("--seed", 8, "It was a dark night, and"))

    def test_seed_is_reported(self):
        found = self.objects("run", *self.line, "The sea", schema="run")[0]
        again = self.objects("run", *self.line, "--seed", found["seed"], "The sea", schema="run")[0]
        self.assertEqual(found["outputs"], again["outputs"])

    def test_batch_changes_nothing(self):
        rows = [{"prompt": text, "seed": seed} for seed, text in enumerate(["The sea was calm", "My dear", "London", "He"])]
        together = self.texts("--input-file", self.prompts_file("batch.jsonl", *rows))
        for i, row in enumerate(rows):
            alone = self.texts("--input-file", self.prompts_file(f"alone{i}.jsonl", row))
            self.assertEqual(alone, [together[i]])
        turned = self.texts("--input-file", self.prompts_file("turned.jsonl", *reversed(rows)))
        self.assertEqual(turned, together[::-1])

    def test_top_k_1_is_greedy(self):
        prompt = golden("novelist_draft")[0]
        output = self.outputs(DRAFT, *FP32, "--temperature", 1.0, "--top-k", 1, "--repetition-penalty", 1.0, "--seed", 3,
                              "--max-new-tokens", 24, prompt["prompt"])[0]
        self.assertEqual(output["output_ids"], prompt["output_ids"][:24])

    def test_greedy_turns_generation_config_off(self):
        """generation_config.json of the model has a temperature and a repetition penalty."""
        prompt = golden("novelist_draft")[0]
        self.assertEqual(self.outputs(DRAFT, *EXACT, "--max-new-tokens", 24, prompt["prompt"])[0]["output_ids"],
                         prompt["output_ids"][:24])
        self.assertIn("repetition_penalty", (DRAFT / "generation_config.json").read_text())


class InputFile(program.ProgramTest):
    """Validated whole before any output."""

    def refuse_second_line(self, pattern, line, *options):
        good = json.dumps({"prompt": "The sea", "max_new_tokens": 4})
        file = self.write("bad.jsonl", f"{good}\n{line}\n")
        self.refused(pattern, "run", DRAFT, *EXACT, "--json", "--input-file", file, *options)

    def test_bad_lines(self):
        for pattern, line in [
                (r"(?i)json.*bad\.jsonl.*2|bad\.jsonl.*2.*json", "{not json"),
                (r"bad\.jsonl.*2", "[1, 2]"),
                (r"bad\.jsonl.*2", '"text"'),
                (r"bad\.jsonl.*2", "{}"),
                (r"promt", '{"promt": "The sea"}'),
                (r"input_ids", '{"input_ids": "3,4"}'),
                (r"input_ids|empty|no tokens", '{"input_ids": []}'),
                (r"4096", '{"input_ids": [4096]}'),
                (r"-1", '{"input_ids": [-1]}'),
                (r"1\.5|input_ids", '{"input_ids": [1.5]}'),
                (r"prompt", '{"prompt": 5}'),
                (r"prompt|input_ids|messages", '{"prompt": "a", "input_ids": [3]}'),
                (r"messages", '{"messages": "hello"}'),
                (r"messages|role|content", '{"messages": [{"role": "user"}]}'),
                (r"max_new_tokens", '{"prompt": "a", "max_new_tokens": -1}'),
                (r"max_new_tokens", '{"prompt": "a", "max_new_tokens": "many"}'),
                (r"temperature", '{"prompt": "a", "temperature": -0.5}'),
                (r"top_p", '{"prompt": "a", "top_p": 1.5}'),
                (r"logit_bias|4096", '{"prompt": "a", "logit_bias": {"4096": 1}}'),
                (r"num_beams", '{"prompt": "a", "num_beams": 2}'),
                (r"(?i)utf-8", '{"prompt": "\\ud800"}')]:
            with self.subTest(line=line):
                self.refuse_second_line(pattern, line)

    def test_not_utf8(self):
        file = self.folder / "latin.jsonl"
        file.write_bytes(b'{"prompt": "caf\xe9"}\n')
        self.refused(r"(?i)utf-8", "run", DRAFT, *EXACT, "--json", "--input-file", file)

    def test_empty_file(self):
        self.refused(r"empty|no prompt", "run", DRAFT, *EXACT, "--json", "--input-file", self.write("empty.jsonl", ""))

    def test_missing_file(self):
        self.refused(r"nowhere\.jsonl", "run", DRAFT, *EXACT, "--json", "--input-file", self.folder / "nowhere.jsonl")

    def test_order_and_many(self):
        rows = [{"prompt": "word " * (i % 7 + 1), "max_new_tokens": i % 5} for i in range(40)]
        outputs = self.outputs(DRAFT, *EXACT, "--input-file", self.prompts_file("many.jsonl", *rows), "--max-batch-size", 8)
        self.assertEqual([len(o["output_ids"]) for o in outputs], [i % 5 for i in range(40)])


if __name__ == "__main__":
    program.main()
