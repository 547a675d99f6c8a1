#!/usr/bin/env python3
"""The schema checker finds what is wrong, and every schema of docs/schemas/ uses only what it knows."""
import pathlib
import unittest

import json_schema

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "docs/schemas"
RUN = {
    "index": 0, "input_ids": [3], "seed": 5, "timing": {"setup_s": 0.1, "first_token_s": 0.1, "total_s": 0.2, "tokens_per_s": 5},
    "outputs": [{"output_ids": [1], "text": None, "finish_reason": "stop", "stop_reason": None,
                 "logprobs": [{"id": 1, "logprob": -0.5, "top": [[1, -0.5]]}]}],
}


def changed(path, value):
    """RUN with one place changed; `...` removes it."""

    def copy(node, keys):
        if not keys:
            return value
        items = dict(node) if isinstance(node, dict) else dict(enumerate(node))
        if value is ... and len(keys) == 1:
            items.pop(keys[0])
        else:
            items[keys[0]] = copy(items.get(keys[0]), keys[1:])
        return items if isinstance(node, dict) else list(items.values())

    return copy(RUN, path)


class JsonSchema(unittest.TestCase):
    def test_good(self):
        self.assertEqual(json_schema.problems(RUN, json_schema.load("run")), [])

    def test_bad(self):
        for path, value in [(["index"], ...), (["index"], -1), (["index"], True), (["index"], 1.0), (["more"], 1),
                            (["input_ids", 0], "3"), (["outputs"], []), (["outputs", 0, "finish_reason"], "end"),
                            (["outputs", 0, "logprobs", 0, "logprob"], 0.5), (["timing", "total_s"], float("nan")),
                            (["outputs", 0, "logprobs", 0, "top", 0], [1]), (["outputs", 0, "text"], 5),
                            (["outputs", 0, "logprobs", 0, "top", 0, 0], "a")]:
            with self.subTest(path=path, value=value):
                self.assertEqual(len(json_schema.problems(changed(path, value), json_schema.load("run"))), 1)

    def test_unknown_keyword(self):
        with self.assertRaises(ValueError):
            json_schema.problems(1, {"multipleOf": 2})

    def test_every_schema_uses_known_keywords(self):
        def walk(schema):
            if not isinstance(schema, dict):
                return
            for keyword, rule in schema.items():
                known = keyword in json_schema.ANNOTATIONS or hasattr(json_schema.Checker, "on_" + keyword.replace("$", ""))
                self.assertTrue(known, keyword)
                if keyword in ("properties", "$defs"):
                    for inner in rule.values():
                        walk(inner)
                elif keyword in ("items", "additionalProperties"):
                    walk(rule)
                elif keyword == "prefixItems":
                    for inner in rule:
                        walk(inner)

        names = sorted(SCHEMAS.glob("*.schema.json"))
        self.assertGreaterEqual(len(names), 10)
        for path in names:
            with self.subTest(schema=path.name):
                walk(json_schema.load(path.name.removesuffix(".schema.json")))
                readme = (SCHEMAS / "README.md").read_text()
                self.assertIn(f"({path.name})", readme)


if __name__ == "__main__":
    unittest.main()
