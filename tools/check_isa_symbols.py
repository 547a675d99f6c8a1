#!/usr/bin/env python3
"""Finds inline functions that leak from instruction-set variants.

A source compiled with -mavx2 or -mavx512* that instantiates an inline function (a template of the standard library, an
inline function of a shared header) emits a copy that uses those instructions. The linker keeps one copy for the whole
program, perhaps this one, and the program dies on an older processor. Such functions belong into an anonymous namespace.

    tools/check_isa_symbols.py BUILD_FOLDER     of an optimised build, where small functions are inlined
"""
import pathlib
import subprocess
import sys

VARIANTS = ("_avx2.cc.o", "_avx512.cc.o", "_avx512bf16.cc.o")


def leaking_symbols(path):
    listed = subprocess.run(["nm", "--defined-only", "--demangle", str(path)], capture_output=True, text=True, check=True)
    return [line.split(maxsplit=2)[2] for line in listed.stdout.splitlines() if line.split(maxsplit=2)[1] == "W"]


def main():
    objects = sorted(p for p in pathlib.Path(sys.argv[1]).rglob("*.o") if p.name.endswith(VARIANTS))
    findings = [f"{path.name}: {symbol}" for path in objects for symbol in leaking_symbols(path)]
    print("\n".join(findings) or f"{len(objects)} variants leak nothing")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
