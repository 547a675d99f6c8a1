#!/usr/bin/env python3
"""What every command promises: exit statuses, which output says what, signals, pipes, colour."""
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, EXACT, NOVELIST, command, environment

ESCAPE = "\x1b["
LONG = ("run", DRAFT, *EXACT, "--ignore-eos", "--max-new-tokens", "1900", "The sea")


class Usage(program.ProgramTest):
    def test_help(self):
        result = self.good("--help")
        for name in ("run", "build", "bench", "perplexity", "tokenize", "explain", "inspect", "cache", "version"):
            self.assertIn(name, result.out)
            self.assertIn(name, self.good(name, "--help").out)

    def test_help_says_what_exists(self):
        text = self.good("run", "--help").out
        for option in ("--max-new-tokens", "--greedy", "--temperature", "--stop", "--json", "--dtype", "--threads", "--input-file",
                       "--logits-file", "--kv-cache", "--layout", "--dummy-weights", "--cache-dir"):
            self.assertIn(option, text)
        for later in ("--quant", "--tp", "--pp"):
            self.assertNotIn(later + " ", text)

    def test_no_command(self):
        self.assertEqual(program.run().status, 2)

    def test_unknown(self):
        self.refused(r"frobnicate", "frobnicate")
        self.refused(r"--frobnicate", "run", DRAFT, "--frobnicate", "a")
        self.refused(r"--quant", "run", DRAFT, "--quant", "int4", "a")
        self.refused(r"--port", "run", DRAFT, "--port", "80", "a")

    def test_missing_argument(self):
        self.refused(r"MODEL", "run")
        self.refused(r"--max-new-tokens", "run", DRAFT, "a", "--max-new-tokens")
        self.refused(r"-o|output", "build", DRAFT)

    def test_bad_values(self):
        for option, value in [("--max-new-tokens", "-1"), ("--max-new-tokens", "many"), ("--max-new-tokens", "1.5"),
                              ("--max-new-tokens", "99999999999999999999"), ("--max-batch-size", "4294967297"), ("--temperature", "-1"), ("--temperature", "nan"),
                              ("--top-p", "2"), ("--top-k", "-3"), ("--min-p", "-0.1"), ("--threads", "0"), ("--threads", "-2"),
                              ("--max-batch-size", "0"), ("--max-seq-len", "-5"), ("--max-num-tokens", "0"),
                              ("--tokens-per-block", "48"), ("--tokens-per-block", "0"), ("--dtype", "int3"),
                              ("--kv-dtype", "fp64"), ("--device", "tpu"), ("--kv-cache", "ring"), ("--layout", "square"),
                              ("--logprobs", "-1"), ("--repetition-penalty", "0"), ("--logit-bias", "5"),
                              ("--logit-bias", "5000:1"), ("--dummy-weights", "x"), ("--seed", "-1"), ("--kv-memory", "8 apples")]:
            with self.subTest(option=option, value=value):
                self.refused(option.lstrip("-").replace("-", "[-_ ]"), "run", DRAFT, *EXACT, f"{option}={value}", "The sea")

    def test_contradictions(self):
        for first, second in [(("--greedy",), ("--temperature", "0.7")), (("--input-ids", "3"), ("--prompt-file", "README.md")),
                              (("--chat",), ("--input-ids", "3")), (("--no-cache",), ("--cache-dir", "x"))]:
            with self.subTest(first=first, second=second):
                self.refused(f"{first[0]}|{second[0]}", "run", DRAFT, *first, *second)

    def test_version(self):
        found = self.objects("version", schema="version")
        self.assertEqual(len(found), 1)
        text = self.good("version").out
        self.assertIn(found[0]["version"], text)
        # Programs without the CUDA back end say nothing of cuBLASLt.
        self.assertEqual("cublaslt" in found[0], "cuda" in found[0]["back_ends"])
        if "cublaslt" in found[0]:
            self.assertIn(f"cuBLASLt: {found[0]['cublaslt'] or 'libcublasLt'}", text)
        else:
            self.assertNotIn("cuBLASLt", text)
        self.assertEqual(self.good("--version").out.strip().split()[-1], found[0]["version"])


class Outputs(program.ProgramTest):
    def test_no_colour_without_terminal(self):
        result = self.good("run", DRAFT, *EXACT, "--max-new-tokens", 4, "The sea")
        self.assertNotIn(ESCAPE, result.out + result.err)
        self.assertNotIn("\r", result.err)

    def on_terminal(self, **variables):
        """Standard error of a failing run whose standard error is a terminal."""
        ours, theirs = pty.openpty()
        done = subprocess.run(command("run", "/nonexistent/model", "a"), stdout=subprocess.DEVNULL, stderr=theirs,
                              stdin=subprocess.DEVNULL, env=environment(TERM="xterm-256color", **variables), timeout=60)
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 4096):
                text += chunk
        except OSError:  # the terminal's other end is closed: all is read
            pass
        os.close(ours)
        self.assertEqual(done.returncode, 2)
        return text.decode()

    def test_no_color_is_honoured(self):
        self.assertNotIn(ESCAPE, self.on_terminal(NO_COLOR="1"))
        self.assertIn("millrace: error:", self.on_terminal(NO_COLOR="1"))

    def test_json_is_only_json(self):
        result = self.good("run", DRAFT, *EXACT, "--max-new-tokens", 4, "--json", "--stats", "The sea")
        self.assertEqual(len(program.json_lines(result.out)), 1)
        self.assertIn("KV", result.err)

    def test_quiet_and_log_level(self):
        quiet = self.good("run", DRAFT, *EXACT, "--max-new-tokens", 4, "--json", "--quiet", "--log-level", "error", "The sea")
        self.assertEqual(quiet.err, "")
        limited = self.good("run", DRAFT, *EXACT, "--max-new-tokens", 4, "--max-seq-len", 77, "--log-level", "error", "The sea")
        self.assertRegex(limited.err, r"at most \d+ requests, 77 tokens a sequence")

    def test_defaults_are_printed(self):
        result = self.good("run", DRAFT, *EXACT, "--max-new-tokens", 4, "--log-level", "info", "The sea")
        for limit in ("256", "2048", "8192"):
            self.assertIn(limit, result.err)

    def test_what_building_took_is_printed(self):
        built = r"built in [\d.]+ s, [\d.]+ s of it tactics: \d+ timed, \d+ known\n"
        run = ("run", DRAFT, *EXACT, "--max-new-tokens", 4, "--max-seq-len", 79, "The sea")
        self.assertRegex(self.good(*run).err, built)
        self.assertNotIn("built in", self.good(*run).err)  # it is in the cache


class Processes(program.ProgramTest):
    def start(self, *arguments, **options):
        return subprocess.Popen(command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=environment(), cwd=program.ROOT, **options)

    def test_closed_pipe(self):
        """`| head -c 20`: ends quietly."""
        process = self.start(*LONG)
        self.assertEqual(len(process.stdout.read(20)), 20)
        process.stdout.close()
        err = process.stderr.read().decode()
        process.stderr.close()
        process.wait(timeout=120)
        self.assertNotIn("error", err)
        self.assertIn(process.returncode, (0, -signal.SIGPIPE, 128 + signal.SIGPIPE))

    def test_interrupt(self):
        process = self.start(*LONG)
        self.assertTrue(process.stdout.read(10))
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err.decode())
        self.assertLess(time.monotonic() - begin, 10)
        self.assertNotIn(b"error", err)

    def test_full_output_device(self):
        """Standard output that cannot be written is a failure, not silence."""
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command("run", DRAFT, *EXACT, "--max-new-tokens", "8", "--json", "The sea"), stdout=full,
                                  stderr=subprocess.PIPE, env=environment(), timeout=120, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode().splitlines()[-1], r"^millrace: error: ")

    def test_text_streams(self):
        """The first words are there long before the last."""
        process = self.start("run", NOVELIST, *EXACT, "--ignore-eos", "--max-new-tokens", "300", "It was a dark night, and")
        process.stdout.read(8)
        first = time.monotonic()
        process.communicate(timeout=240)
        self.assertEqual(process.returncode, 0)
        self.assertGreater(time.monotonic() - first, 0.1)


if __name__ == "__main__":
    program.main()
