"""Checks a JSON value against a schema: the part of JSON Schema (2020-12) that docs/schemas/ uses.

A keyword that this file does not know is an error, so a schema never says more than is checked.
"""
import json
import math
import pathlib
import re

ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description", "examples"}
TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v),
}


def load(name):
    """docs/schemas/NAME.schema.json."""
    root = pathlib.Path(__file__).resolve().parents[2]
    return json.loads((root / "docs/schemas" / f"{name}.schema.json").read_text())


def problems(value, schema):
    """What is wrong with the value, one text per finding, each with the place as a path."""
    return list(Checker(schema).check(value, schema, "$"))


class Checker:
    def __init__(self, root):
        self.root = root

    def resolve(self, reference):
        target = self.root
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        return target

    def check(self, value, schema, path):
        if schema is True:
            return
        if schema is False:
            yield f"{path}: nothing may be here"
            return
        for keyword, rule in schema.items():
            if keyword in ANNOTATIONS:
                continue
            method = getattr(self, "on_" + keyword.replace("$", ""), None)
            if method is None:
                raise ValueError(f"unknown schema keyword {keyword}")
            yield from method(value, rule, schema, path)

    def on_ref(self, value, rule, _, path):
        yield from self.check(value, self.resolve(rule), path)

    def on_type(self, value, rule, _, path):
        names = rule if isinstance(rule, list) else [rule]
        if not any(TYPES[name](value) for name in names):
            yield f"{path}: {json.dumps(value)[:60]} is not {' or '.join(names)}"

    def on_enum(self, value, rule, _, path):
        if value not in rule:
            yield f"{path}: {json.dumps(value)[:60]} is none of {rule}"

    def on_minimum(self, value, rule, _, path):
        if TYPES["number"](value) and value < rule:
            yield f"{path}: {value} is less than {rule}"

    def on_maximum(self, value, rule, _, path):
        if TYPES["number"](value) and value > rule:
            yield f"{path}: {value} is more than {rule}"

    def on_pattern(self, value, rule, _, path):
        if isinstance(value, str) and not re.search(rule, value):
            yield f"{path}: {value!r} does not match {rule}"

    def on_minItems(self, value, rule, _, path):
        if isinstance(value, list) and len(value) < rule:
            yield f"{path}: {len(value)} items, fewer than {rule}"

    def on_maxItems(self, value, rule, _, path):
        if isinstance(value, list) and len(value) > rule:
            yield f"{path}: {len(value)} items, more than {rule}"

    def on_prefixItems(self, value, rule, _, path):
        if isinstance(value, list):
            for i, (item, schema) in enumerate(zip(value, rule)):
                yield from self.check(item, schema, f"{path}[{i}]")

    def on_items(self, value, rule, schema, path):
        if isinstance(value, list):
            first = len(schema.get("prefixItems", []))
            for i, item in enumerate(value[first:], first):
                yield from self.check(item, rule, f"{path}[{i}]")

    def on_required(self, value, rule, _, path):
        if isinstance(value, dict):
            for name in rule:
                if name not in value:
                    yield f"{path}: {name} is missing"

    def on_properties(self, value, rule, _, path):
        if isinstance(value, dict):
            for name, schema in rule.items():
                if name in value:
                    yield from self.check(value[name], schema, f"{path}.{name}")

    def on_additionalProperties(self, value, rule, schema, path):
        if isinstance(value, dict):
            for name in value.keys() - schema.get("properties", {}).keys():
                yield from self.check(value[name], rule, f"{path}.{name}")
