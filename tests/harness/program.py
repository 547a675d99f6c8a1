"""Runs the program in tests: exit status, both outputs, JSON lines; folders of models to run it on."""
import atexit
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import json_schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("MILLRACE", str(ROOT / "build/millrace"))
MODELS = ROOT / "models"
NOVELIST = MODELS / "novelist-14m"
DRAFT = MODELS / "novelist-draft"
GOLDENS = ROOT / "tests/data/models"
EXACT = ("--dtype", "fp32", "--kv-dtype", "fp32", "--greedy")
ERROR_LINE = re.compile(r"^millrace: error: \S.*$")

# One scratch folder a process: engines are built once, nothing of the user's is read or written.
SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="millrace_test_"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def environment(**changes):
    """Of a run: our own cache, no user settings. A value of None removes a variable."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("MILLRACE_", "HF_", "XDG_"))}
    variables.update(XDG_CACHE_HOME=str(SCRATCH / "cache"), HF_HOME=str(SCRATCH / "hf"), LC_ALL="C.UTF-8")
    variables.pop("NO_COLOR", None)
    for key, value in changes.items():
        variables.pop(key, None)
        if value is not None:
            variables[key] = str(value)
    return variables


class Result:
    def __init__(self, arguments, status, out, err):
        self.arguments, self.status, self.out, self.err = arguments, status, out, err

    def __str__(self):
        return f"millrace {' '.join(self.arguments)}\nstatus {self.status}\nstdout: {self.out[-1500:]}\nstderr: {self.err[-3000:]}"


def command(*arguments):
    return [PROGRAM, *map(str, arguments)]


def run(*arguments, stdin="", env=None, timeout=240, cwd=ROOT, before=None):
    """Runs the program to its end. `before` is called in the new process (limits)."""
    done = subprocess.run(command(*arguments), input=stdin.encode() if isinstance(stdin, str) else stdin, capture_output=True,
                          env=env or environment(), timeout=timeout, cwd=cwd, preexec_fn=before, check=False)
    return Result(list(map(str, arguments)), done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))


def no_constant(text):
    raise ValueError(f"{text} in JSON output")


def json_lines(text):
    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


class ProgramTest(unittest.TestCase):
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(dir=SCRATCH))

    def good(self, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.status, 0, result)
        return result

    def objects(self, *arguments, schema=None, **options):
        """The JSON lines of a successful run, each held to the schema."""
        result = self.good(*arguments, "--json", **options)
        found = json_lines(result.out)
        for value in found if schema else []:
            wrong = json_schema.problems(value, json_schema.load(schema))
            self.assertEqual(wrong, [], result)
        return found

    def outputs(self, *arguments, **options):
        """`outputs[0]` of each prompt of `millrace run`."""
        found = self.objects("run", *arguments, schema="run", **options)
        self.assertEqual([value["index"] for value in found], list(range(len(found))))
        return [value["outputs"][0] for value in found]

    def refused(self, pattern, *arguments, status=2, **options):
        """A run that ends with one error line which matches, and with nothing on standard output."""
        result = run(*arguments, **options)
        self.assertEqual(result.status, status, result)
        self.assertEqual(result.out, "", result)
        lines = result.err.splitlines()
        errors = [line for line in lines if line.startswith("millrace: error:")]
        self.assertTrue(lines and len(errors) == 1 and lines[-1] == errors[0], result)
        self.assertRegex(lines[-1], ERROR_LINE, result)
        self.assertRegex(lines[-1], pattern, result)
        return result

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def prompts_file(self, name, *prompts):
        return self.write(name, "".join(json.dumps(prompt) + "\n" for prompt in prompts))

    def tiny_model(self, name, golden="llama_gqa", without=(), **changes):
        """A folder with a changed config of the goldens and no weights (run it with --dummy-weights)."""
        config = json.loads((GOLDENS / golden / "config.json").read_text())
        config.update(changes)
        for key in without:
            config.pop(key, None)
        self.write(f"{name}/config.json", json.dumps(config))
        return self.folder / name

    def copy_of(self, model, name):
        target = self.folder / name
        shutil.copytree(model, target)
        return target


def main():
    unittest.main(verbosity=1)
