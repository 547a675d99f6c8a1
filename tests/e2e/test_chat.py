#!/usr/bin/env python3
"""A chat at a terminal: turns, a context that fills, Ctrl-C and Ctrl-D."""
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, command, environment

LINE = ("run", DRAFT, "--greedy", "--dtype", "fp32")


class Terminal:
    """The program with a terminal as standard input; its outputs go to files."""

    def __init__(self, folder, *arguments):
        self.keyboard, theirs = pty.openpty()
        self.out_path, self.err_path = folder / "out", folder / "err"
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.process = subprocess.Popen(command(*arguments), stdin=theirs, stdout=out, stderr=err, env=environment(),
                                            cwd=program.ROOT, start_new_session=True)
        os.close(theirs)

    def out(self):
        return self.out_path.read_text(errors="replace")

    def err(self):
        return self.err_path.read_text(errors="replace")

    def wait(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"{what}\nstdout: {self.out()}\nstderr: {self.err()}")
            time.sleep(0.02)

    def wait_for_prompts(self, count):
        self.wait(lambda: self.err().count("> ") >= count, f"{count} prompts did not come")

    def say(self, text, prompts):
        """Types a line and waits until the program asks for the next, the `prompts`th."""
        os.write(self.keyboard, text.encode() + b"\n")
        self.wait_for_prompts(prompts)

    def end(self):
        os.write(self.keyboard, b"\x04")
        status = self.process.wait(timeout=30)
        os.close(self.keyboard)
        return status


class Chat(program.ProgramTest):
    def start(self, *options):
        folder = self.folder / self.id().rsplit(".", 1)[-1]
        folder.mkdir()
        terminal = Terminal(folder, *LINE, *options)
        self.addCleanup(terminal.process.kill)
        terminal.wait_for_prompts(1)
        return terminal

    def test_two_turns(self):
        chat = self.start("--max-new-tokens", 16)
        chat.say("Write about the sea.", 2)
        first = chat.out()
        self.assertGreater(len(first.strip()), 0)
        chat.say("Write about a letter.", 3)
        self.assertGreater(len(chat.out()), len(first) + 1)
        self.assertEqual(chat.end(), 0)

    def test_outgrown_context(self):
        chat = self.start("--max-new-tokens", 24, "--max-seq-len", 128)
        for turn in range(6):
            chat.say("Write about the sea and a long letter from the captain of the ship.", turn + 2)
        self.assertRegex(chat.err(), r"outgrown the context.*oldest")
        chat.say("word " * 300, 8)
        self.assertRegex(chat.err(), r"longer than the context")
        chat.say("Write about the sea.", 9)
        self.assertEqual(chat.end(), 0)

    def test_interrupt_ends_the_answer_then_the_program(self):
        chat = self.start("--max-new-tokens", 900, "--ignore-eos")
        os.write(chat.keyboard, b"Write about the sea.\n")
        chat.wait(lambda: len(chat.out()) > 8, "no answer began")
        chat.process.send_signal(signal.SIGINT)
        chat.wait_for_prompts(2)
        chat.process.send_signal(signal.SIGINT)
        self.assertEqual(chat.process.wait(timeout=30), 130)


if __name__ == "__main__":
    program.main()
