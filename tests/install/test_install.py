#!/usr/bin/env python3
"""The installed program and library work outside of the source tree, and the program needs nothing but a C library."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

PROGRAM = pathlib.Path(os.environ["MILLRACE"])
SOURCE = pathlib.Path(os.environ["MILLRACE_SOURCE_DIR"])
MODEL = SOURCE / "models/novelist-14m"
PROMPT = "It was a dark night, and"
SYSTEM_LIBRARIES = ("linux-vdso.so", "libc.so", "libm.so", "ld-linux")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class InstallTest(unittest.TestCase):
    def test_links_only_the_c_library(self):
        names = [line.split()[0].rsplit("/", 1)[-1] for line in run("ldd", PROGRAM).splitlines()]
        self.assertTrue(names)
        self.assertEqual([name for name in names if not name.startswith(SYSTEM_LIBRARIES)], [])

    def test_example_against_the_installed_library(self):
        with tempfile.TemporaryDirectory() as folder:
            prefix, build = pathlib.Path(folder, "prefix"), pathlib.Path(folder, "build")
            run("cmake", "--install", PROGRAM.parent, "--prefix", prefix)
            run("cmake", "-S", SOURCE / "examples/stream_text", "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
            run("cmake", "--build", build)
            text = run(build / "stream_text", MODEL, PROMPT, 24)
            said = run(prefix / "bin/millrace", "run", MODEL, PROMPT, "--greedy", "--max-new-tokens", 24, "--json")
        self.assertEqual(text, json.loads(said)["outputs"][0]["text"] + "\n")
        self.assertGreater(len(text), 24)


if __name__ == "__main__":
    unittest.main()
