#!/usr/bin/env python3
"""Checks that compilers and clang-tidy cannot make: who includes whom, file length, banned words, unused headers,
unique base names, links in documents.

Function length and naming are clang-tidy's work (.clang-tidy). Limits have a list of exceptions, each with a reason;
an exception that is no longer needed is an error, so the list can only shrink.

    tools/tidy.py [--root DIR]     prints one line per finding, FILE:LINE: WHAT; exit status 1 when there is one
"""
import argparse
import collections
import fnmatch
import pathlib
import re
import subprocess
import sys

LINES_MAX, SPINE_LINES_MAX, COLUMNS_MAX = 800, 150, 100
# Tables of contents in code: what a reader opens first.
SPINE = {
    "src/cli/main.cc",
    "src/compiler/build.cc",
    "src/compiler/pipeline.cc",
    "src/runtime/generation_session.cc",
    "src/serving/executor.cc",
}
LONG_FILES = {}  # "src/ops/x/x_cuda.cu": "the reason"
CODE_FOLDERS = ("src/", "include/", "tests/", "bench/", "examples/", "tools/")
CPP = {".h", ".cc", ".cu", ".cuh"}
HEADERS = {".h", ".cuh"}
SCRIPTS = {".py", ".rs"}
BANNED = [  # pattern, suffixes, what to do
    (r"\bFIXME\b", CPP | SCRIPTS, "FIXME: resolve it before merging"),
    (r"\bTODO\b(?!\(#\d+\))", CPP | SCRIPTS, "TODO without an issue: write TODO(#issue)"),
    (r"\bstd::endl\b", CPP, "std::endl: use '\\n'"),
    (r"\busing namespace\b", CPP, "using namespace: name the namespace"),
    (r"\bDISABLED_", CPP, "a disabled test: repair or remove it"),
    (r"#\s*if\s+0\b", CPP, "dead code: remove it"),
]
BANNED = [(re.compile(pattern), suffixes, why) for pattern, suffixes, why in BANNED]
CUDA_HEADER = re.compile(r"\s*#\s*include\s+[<\"](cuda|cub/|cublas|curand|nccl|nvml|nvtx|cute/|cutlass/)")
CUDA_ALLOWED = re.compile(r"^src/(device/cuda/|.*_cuda[^/]*\.(cu|cuh|cc|h)$|.*\.cuh$)")
INCLUDE = re.compile(r'\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')
MARKDOWN_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


class Findings:
    def __init__(self):
        self.lines = []

    def add(self, file, line, what):
        self.lines.append(f"{file}:{line}: {what}")


def list_files(root):
    """Relative paths of our files: what git tracks or would track; everything where there is no git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = listed.stdout.split("\0")
    else:
        names = [p.relative_to(root).as_posix() for p in root.rglob("*")]
    return sorted({n for n in names if n and (root / n).is_file()})


def read_layers(root, findings):
    """{folder: what it may include} from tools/layers.txt, which names only folders further up: no circles."""
    layers = {}
    table = "tools/layers.txt"
    for n, line in enumerate((root / table).read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, allowed = line.split(":")
        for entry in allowed.split():
            if entry != "*" and entry.split("/")[0] not in layers:
                findings.add(table, n, f"{name} names {entry}, which is not above it: that way lie circles")
        layers[name.strip()] = set(allowed.split())
    return layers


def may_include(folder, target, layers):
    allowed = layers[folder]
    other = target.split("/")[0]
    if other == folder or other in allowed or "*" in allowed:
        return True
    return any(fnmatch.fnmatch(target, pattern) for pattern in allowed if "/" in pattern)


def check_include(file, target, layers):
    """What is wrong with `#include "target"` in src/..., or None."""
    inside = file.split("/", 1)[1]
    folder, other = inside.split("/")[0], target.split("/")[0]
    if other not in layers:
        return None
    if not may_include(folder, target, layers):
        return f"{folder}/ may not include {target} (tools/layers.txt)"
    if folder == other == "ops" and inside.count("/") > 1 and target.count("/") > 1:
        mine, theirs = inside.split("/")[1], target.split("/")[1]
        if theirs not in (mine, "common", "harness") and mine != "harness":
            return f"an op may not include another op ({target}); share through ops/common"
    return None


def check_length(file, count, findings):
    limit = SPINE_LINES_MAX if file in SPINE else LINES_MAX
    if count > limit and file not in LONG_FILES:
        findings.add(file, count, f"{count} lines; the limit is {limit}")
    if count <= limit and file in LONG_FILES:
        findings.add(file, 1, "no longer too long: remove it from LONG_FILES")


def check_includes(file, lines, layers, included, findings):
    for n, line in enumerate(lines, 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        target = found[1] or found[2]
        if found[1]:
            included[target].add(file)
        if CUDA_HEADER.match(line) and not CUDA_ALLOWED.match(file):
            findings.add(file, n, "CUDA headers belong in device/cuda and in *_cuda.* or *.cuh")
        if file.startswith("src/") and found[1]:
            why = check_include(file, target, layers)
            if why:
                findings.add(file, n, why)
        if file.startswith(("include/", "examples/")):
            internal = found[1] and not target.startswith("millrace/")
            library = found[2] and ("/" in target or target.endswith((".h", ".hpp")))
            if file.startswith("include/") and (internal or library):
                findings.add(file, n, f"a public header may include the standard library and millrace/ only, not {target}")
            elif internal:
                findings.add(file, n, f"an example may not include {target}: it is not public")


def check_code(root, file, layers, included, findings):
    suffix = pathlib.PurePath(file).suffix or ".py"  # `dev` has no suffix
    lines = (root / file).read_text().splitlines()
    check_length(file, len(lines), findings)
    if file.startswith("src/") and file.count("/") > 1 and file.split("/")[1] not in layers:
        findings.add(file, 1, "this folder is not in tools/layers.txt")
        return
    for n, line in enumerate(lines, 1):
        if suffix in CPP and len(line) > COLUMNS_MAX and "http" not in line:
            findings.add(file, n, f"{len(line)} columns; the limit is {COLUMNS_MAX}")
        if file.startswith("tools/tidy"):  # names what it forbids
            continue
        for pattern, suffixes, why in BANNED:
            if suffix in suffixes and pattern.search(line):
                findings.add(file, n, f"banned: {why}")
    if suffix in HEADERS and "#pragma once" not in lines:
        findings.add(file, 1, "a header starts with #pragma once")
    if suffix in CPP:
        check_includes(file, lines, layers, included, findings)


def check_headers(files, included, findings):
    """Headers that nobody includes. A public header is for others and may be included by none of us."""
    for file in files:
        if file.startswith("src/") and pathlib.PurePath(file).suffix in HEADERS:
            if not included[file[len("src/"):]] - {file}:
                findings.add(file, 1, "no file includes this header")


def check_base_names(files, included, findings):
    """One base name, one file. A header of src/ may carry a public header's name when it includes it (extends it)."""
    places = collections.defaultdict(list)
    for file in files:
        path = pathlib.PurePath(file)
        if path.suffix in CPP and file.startswith(("src/", "include/")):
            places[path.name].append(file)
    for name, same in sorted(places.items()):
        extended = {f for f in same if f in included[f"millrace/{name}"]}
        rest = [f for f in same if f not in extended]
        for file in rest[1:]:
            findings.add(file, 1, f"base name already used by {rest[0]}")


def check_links(root, file, findings):
    for n, line in enumerate((root / file).read_text().splitlines(), 1):
        for target in MARKDOWN_LINK.findall(line):
            if "://" not in target and not target.startswith("mailto:") and not (root / file).parent.joinpath(target).exists():
                findings.add(file, n, f"broken link: {target}")


def tidy(root):
    findings, included = Findings(), collections.defaultdict(set)
    layers = read_layers(root, findings)
    files = list_files(root)
    ours = [f for f in files if f == "dev" or (f.startswith(CODE_FOLDERS) and pathlib.PurePath(f).suffix in CPP | SCRIPTS)]
    for file in ours:
        check_code(root, file, layers, included, findings)
    for file in sorted(set(LONG_FILES) - set(files)):
        findings.add(file, 1, "in LONG_FILES, but there is no such file")
    check_headers(ours, included, findings)
    check_base_names(ours, included, findings)
    for file in files:
        if file.endswith(".md"):
            check_links(root, file, findings)
    return len(ours), findings.lines


def main():
    parser = argparse.ArgumentParser(description="Checks the rules of this repository that compilers cannot check.")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    count, lines = tidy(parser.parse_args().root.resolve())
    print("\n".join(lines) or f"tidy: {count} files ok")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
