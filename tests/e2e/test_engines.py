#!/usr/bin/env python3
"""Engine files and the engine cache: damage, races, killed builds, full disks, bounds."""
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, EXACT, GOLDENS, command, environment, run

TINY = (GOLDENS / "llama_gqa", "--dummy-weights=20", "--dtype", "fp32", "--kv-dtype", "fp32")
PROMPT = json.loads((GOLDENS / "llama_gqa/golden.json").read_text())["prompts"][3]
TOKENS = ("--input-ids", ",".join(map(str, PROMPT["input_ids"])), "--max-new-tokens", "32", "--ignore-eos", "--greedy", "--json")
GOLDEN = json.loads((GOLDENS / "novelist_draft/golden.json").read_text())["prompts"][0]


def output_ids(result):
    return json.loads(result.out)["outputs"][0]["output_ids"]


class EngineFile(program.ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.engine = cls.folder / "draft.engine"
        built = run("build", DRAFT, "-o", cls.engine, "--dtype", "fp32")
        if built.status:
            raise AssertionError(str(built))

    def test_runs_alone(self):
        """Weights, tokenizer and defaults are inside; the folder is not needed."""
        alone = self.folder / "alone/moved.engine"
        alone.parent.mkdir()
        shutil.copy(self.engine, alone)
        output = self.outputs(alone, *EXACT, "--max-new-tokens", 64, GOLDEN["prompt"])[0]
        self.assertEqual((output["output_ids"], output["text"]), (GOLDEN["output_ids"], GOLDEN["text"]))

    def test_flags_that_contradict_the_file(self):
        for option, value in [("--dtype", "bf16"), ("--max-seq-len", 4096), ("--max-batch-size", 100000)]:
            self.refused(option.strip("-").replace("-", "[-_ ]"), "run", self.engine, "--greedy", option, value, "The sea")
        self.refused("dummy-weights", "run", self.engine, "--greedy", "--dummy-weights", "The sea")

    def test_quantised_cache(self):
        """An 8-bit KV cache is the engine's: it is kept in the file, and its size counts the scales."""
        config = json.loads((GOLDENS / "llama_gqa/config.json").read_text())
        vectors = 2 * config["num_hidden_layers"] * config["num_key_value_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        for kind, stored, vector_bytes in (("int8", "i8", head_size + 4), ("fp8", "f8e4m3", head_size)):
            with self.subTest(kv_dtype=kind):
                golden = json.loads((GOLDENS / f"llama_gqa/golden_{kind}.json").read_text())["prompts"][-1]
                engine = self.folder / f"{kind}.engine"
                self.good("build", *TINY[:-1], kind, "-o", engine)
                ids = ",".join(map(str, golden["input_ids"]))
                result = self.good("run", engine, "--input-ids", ids, "--max-new-tokens", "32", "--ignore-eos", "--greedy", "--json")
                self.assertEqual(output_ids(result), golden["output_ids"])
                inspected = self.objects("inspect", engine, "--verify", schema="inspect")[0]
                self.assertEqual(inspected["provenance"]["kv_dtype"], stored)
                self.assertEqual(inspected["plan"]["kv_cache_per_token"], vectors * vector_bytes)
                for other in ("fp32", "fp64"):
                    self.refused(f"--kv-dtype.*{kind}", "run", engine, "--input-ids", ids, "--kv-dtype", other)

    def damaged(self, name, change):
        data = bytearray(self.engine.read_bytes())
        path = self.folder / name
        path.write_bytes(bytes(change(data)))
        return path

    def check_refused(self, path):
        result = run("run", path, *EXACT, "--max-new-tokens", 64, "--json", GOLDEN["prompt"])
        self.assertIn(result.status, (1, 2), result)
        self.assertEqual(result.out, "", result)
        self.assertRegex(result.err.splitlines()[-1], rf"^millrace: error: .*{path.name}.*; ")

    def test_truncated(self):
        size = self.engine.stat().st_size
        for length in (0, 7, 100, 4096, size // 2, size - 1):
            with self.subTest(length=length):
                self.check_refused(self.damaged("truncated.engine", lambda data, n=length: data[:n]))

    def test_longer(self):
        self.check_refused(self.damaged("longer.engine", lambda data: data + b"more"))

    def test_foreign(self):
        self.check_refused(self.damaged("foreign.engine", lambda data: b"ELF\x7f" + data[4:]))
        shutil.copy(DRAFT / "model.safetensors", self.folder / "weights.engine")
        self.check_refused(self.folder / "weights.engine")

    def test_flipped_bits(self):
        """A flipped bit gives an error, or sits in padding and changes nothing."""
        rng = random.Random(5)
        size = self.engine.stat().st_size
        places = [8, 9, 10, 12, 16, 24, 40, 64, 100] + [rng.randrange(size) for _ in range(15)]
        for place in places:
            with self.subTest(place=place):
                def flip(data, at=place):
                    data[at] ^= 1 << rng.randrange(8)
                    return data
                path = self.damaged("flipped.engine", flip)
                result = run("run", path, *EXACT, "--max-new-tokens", 64, "--json", GOLDEN["prompt"])
                if result.status == 0:
                    self.assertEqual(output_ids(result), GOLDEN["output_ids"], "wrong text")
                else:
                    self.assertIn(result.status, (1, 2), result)
                    self.assertRegex(result.err.splitlines()[-1], r"^millrace: error: .*flipped\.engine")


class BuildFailures(program.ProgramTest):
    def test_full_disk(self):
        """Writes beyond a limit fail as on a full disk: status 1, nothing is left behind."""
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        target = self.folder / "full"
        target.mkdir()
        self.refused(r"full\.engine", "build", DRAFT, "-o", target / "full.engine", status=1, before=limit)
        self.assertEqual(list(target.iterdir()), [])

    def test_target_folder_missing(self):
        result = run("build", DRAFT, "-o", "/nonexistent/folder/a.engine")
        self.assertIn(result.status, (1, 2), result)
        self.assertRegex(result.err.splitlines()[-1], r"^millrace: error: .*/nonexistent/folder")

    def test_killed(self):
        """A build killed at any moment leaves nothing that a later run takes for an engine."""
        for delay in (0.02, 0.05, 0.1, 0.2, 0.4):
            cache = self.folder / f"killed_{delay}"
            process = subprocess.Popen(command("run", *TINY, "--cache-dir", cache, *TOKENS), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, env=environment())
            time.sleep(delay)
            process.kill()
            process.wait()
            self.assertEqual(output_ids(self.good("run", *TINY, "--cache-dir", cache, *TOKENS)), PROMPT["output_ids"])


class Cache(program.ProgramTest):
    def listed(self, cache):
        return self.objects("cache", "list", "--cache-dir", cache, schema="cache_list")

    def test_list_and_clear(self):
        cache = self.folder / "list"
        self.assertEqual(self.listed(cache), [])
        self.good("run", *TINY, "--cache-dir", cache, *TOKENS)
        self.assertEqual(len(self.listed(cache)), 1)
        self.good("run", *TINY, "--cache-dir", cache, *TOKENS)
        self.assertEqual(len(self.listed(cache)), 1)
        self.good("run", *TINY, "--max-seq-len", 64, "--cache-dir", cache, *TOKENS)
        entries = self.listed(cache)
        self.assertEqual(len(entries), 2)
        for entry in entries:
            self.assertEqual(os.path.getsize(entry["path"]), entry["bytes"])
        self.good("cache", "clear", "--cache-dir", cache)
        self.assertEqual(self.listed(cache), [])

    def test_bounded(self):
        """More engines than the cache keeps: those unused for longest go, the last one stays."""
        cache = self.folder / "bounded"
        for length in range(34, 34 + 68):
            self.good("run", *TINY, "--max-seq-len", length, "--cache-dir", cache, "--input-ids", "3", "--max-new-tokens", 1,
                      "--greedy", "--quiet")
            if length == 34:
                first = self.listed(cache)[0]["path"]
        entries = self.listed(cache)
        self.assertEqual(len(entries), 64)
        self.assertNotIn(first, [entry["path"] for entry in entries])
        self.assertEqual([entry["last_used"] for entry in entries], sorted(entry["last_used"] for entry in entries))

    def test_no_cache(self):
        cache = self.folder / "none"
        env = environment(XDG_CACHE_HOME=cache)
        self.assertEqual(output_ids(self.good("run", *TINY, "--no-cache", *TOKENS, env=env)), PROMPT["output_ids"])
        self.assertFalse(cache.exists() and any(path.is_file() for path in cache.rglob("*")))

    def test_default_folder(self):
        cache = self.folder / "xdg"
        self.good("run", *TINY, *TOKENS, env=environment(XDG_CACHE_HOME=cache))
        self.assertTrue(any(path.is_file() for path in (cache / "millrace").rglob("*")))

    def test_changed_model_is_built_again(self):
        model = self.copy_of(DRAFT, "changing")
        cache = self.folder / "changing_cache"
        line = ("run", model, *EXACT, "--cache-dir", cache, "--max-new-tokens", 8, "--json", GOLDEN["prompt"])
        first = output_ids(self.good(*line))
        weights = model / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-65536:] = bytes(65536)
        weights.write_bytes(bytes(data))
        self.assertNotEqual(output_ids(self.good(*line)), first)

    def test_damaged_entry_is_built_again(self):
        cache = self.folder / "damaged"
        self.good("run", *TINY, "--cache-dir", cache, *TOKENS)
        path = pathlib.Path(self.listed(cache)[0]["path"])
        whole = path.read_bytes()
        for data in (whole[:len(whole) // 2], b"", whole[:200] + bytes(200) + whole[400:]):
            path.write_bytes(data)
            self.assertEqual(output_ids(self.good("run", *TINY, "--cache-dir", cache, *TOKENS)), PROMPT["output_ids"])

    def test_read_only_folder(self):
        """Falls back, says so, status 0. A file in the folder's place also cannot be written, even by root."""
        cache = self.write("not_a_folder", "a file where the cache should be")
        result = self.good("run", *TINY, "--cache-dir", cache, *TOKENS)
        self.assertEqual(output_ids(result), PROMPT["output_ids"])
        self.assertRegex(result.err, r"not_a_folder")
        if os.geteuid() != 0:
            locked = self.folder / "locked"
            locked.mkdir(mode=0o555)
            result = self.good("run", *TINY, "--cache-dir", locked, *TOKENS)
            self.assertRegex(result.err, r"locked")

    def test_two_builders(self):
        for attempt in range(3):
            cache = self.folder / f"race_{attempt}"
            both = [subprocess.Popen(command("run", *TINY, "--cache-dir", cache, *TOKENS), stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, env=environment()) for _ in range(2)]
            for process in both:
                out, err = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 0, err.decode())
                self.assertEqual(json.loads(out)["outputs"][0]["output_ids"], PROMPT["output_ids"])
            self.assertEqual(len(self.listed(cache)), 1)
            files = [path for path in cache.rglob("*") if path.is_file() and "tmp" in path.name]
            self.assertEqual(files, [], "temporary files are left")


if __name__ == "__main__":
    program.main()
