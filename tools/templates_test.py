#!/usr/bin/env python3
"""What `./dev new` makes compiles as it is.

    tools/templates_test.py COMPILER BUILD_FOLDER
"""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    compiler, build = sys.argv[1:]
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/src", f"-I{ROOT}/include", f"-I{build}"]
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("op", "model", "pass"):
            subprocess.run([sys.executable, "-B", ROOT / "dev", "new", kind, f"new_{kind}", "--into", folder], check=True)
        for source in sorted(pathlib.Path(folder).rglob("*.cc")):
            subprocess.run([compiler, *flags, f"-I{folder}/src", source], check=True)
            count += 1
    print(f"{count} sources from templates compile")


if __name__ == "__main__":
    main()
