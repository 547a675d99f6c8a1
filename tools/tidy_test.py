#!/usr/bin/env python3
"""Plants one fault at a time in a small tree: tidy must name each, and nothing in the tree without faults."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).resolve().parent / "tidy.py"
CLEAN = {
    "tools/layers.txt": "base:\nir: base\nops: base ir\nnn: base ir ops/*/*.h\nserver: base\n",
    "include/millrace/error.h": "#pragma once\n#include <string>\n",
    "src/base/error.h": '#pragma once\n#include "millrace/error.h"\n',
    "src/base/error.cc": '#include "base/error.h"\n',
    "src/ir/graph.h": '#pragma once\n#include "base/error.h"\n',
    "src/ir/graph.cc": '#include "ir/graph.h"\n',
    "src/ops/op.h": '#pragma once\n#include "ir/graph.h"\n',
    "src/ops/add/add.h": '#pragma once\n#include "ops/op.h"\n',
    "src/ops/add/add.cc": '#include "ops/add/add.h"\n',
    "src/ops/mul/mul.cc": '#include "ops/op.h"\n',
    "src/nn/layers.cc": '#include "ops/add/add.h"\n',
    "README.md": "See [the table](tools/layers.txt) and [the web](https://example.org/x).\n",
}


def run_tidy(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, "-B", str(TIDY), "--root", folder], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


class TidyTest(unittest.TestCase):
    def expect(self, message, **planted):
        """`planted`: file -> its text; the message must be the only finding."""
        code, output = run_tidy({**CLEAN, **planted["files"]})
        self.assertEqual(code, 1, output)
        self.assertEqual(len(output.strip().splitlines()), 1, output)
        self.assertIn(message, output)

    def test_clean_tree(self):
        code, output = run_tidy(CLEAN)
        self.assertEqual((code, output), (0, "tidy: 10 files ok\n"))

    def test_include_against_the_table(self):
        self.expect("src/base/error.cc:2: base/ may not include ir/graph.h",
                    files={"src/base/error.cc": '#include "base/error.h"\n#include "ir/graph.h"\n'})
        self.expect("nn/ may not include ops/op.h", files={"src/nn/layers.cc": '#include "ops/add/add.h"\n#include "ops/op.h"\n'})
        self.expect("server/ may not include ir/graph.h", files={"src/server/http.cc": '#include "ir/graph.h"\n'})

    def test_op_includes_op(self):
        self.expect("an op may not include another op", files={"src/ops/mul/mul.cc": '#include "ops/add/add.h"\n'})

    def test_circle_in_the_table(self):
        table = CLEAN["tools/layers.txt"].replace("base:", "base: ir")
        self.expect("base names ir, which is not above it", files={"tools/layers.txt": table})

    def test_folder_outside_the_table(self):
        self.expect("this folder is not in tools/layers.txt", files={"src/misc/misc.cc": "int x;\n"})

    def test_lengths(self):
        self.expect("801 lines; the limit is 800", files={"src/base/error.cc": "// x\n" * 801})
        self.expect("151 lines; the limit is 150", files={"src/compiler/build.cc": "// x\n" * 151,
                                                          "tools/layers.txt": CLEAN["tools/layers.txt"] + "compiler: base\n"})
        self.expect("801 lines", files={"tools/make.py": "# x\n" * 801})
        self.expect("801 lines", files={"src/base/lib.rs": "// x\n" * 801})
        self.expect("101 columns", files={"src/base/error.cc": "//" + "x" * 99 + "\n"})

    def test_banned_words(self):
        for text, message in {
            "// FIXME now\n": "FIXME",
            "// TODO: later\n": "TODO without an issue",
            "std::cout << std::endl;\n": "std::endl",
            "using namespace std;\n": "using namespace",
            "TEST(Graph, DISABLED_Prints) {}\n": "disabled test",
            "#if 0\n": "dead code",
        }.items():
            self.expect(message, files={"src/ir/graph.cc": text})
        code, output = run_tidy({**CLEAN, "src/ir/graph.cc": '#include "ir/graph.h"\n// TODO(#12): later\n'})
        self.assertEqual(code, 0, output)

    def test_cuda_headers(self):
        self.expect("CUDA headers belong", files={"src/ops/add/add.cc": "#include <cuda_runtime.h>\n"})
        self.expect("CUDA headers belong", files={"src/base/error.cc": "#include <cute/tensor.hpp>\n"})
        code, output = run_tidy({**CLEAN, "src/ops/add/add_cuda.cu": "#include <cuda_runtime.h>\n"})
        self.assertEqual(code, 0, output)

    def test_public_headers(self):
        self.expect("a public header may include", files={"include/millrace/text.h": '#pragma once\n#include "base/error.h"\n'})
        self.expect("a public header may include", files={"include/millrace/text.h": "#pragma once\n#include <nlohmann/json.hpp>\n"})
        self.expect("it is not public", files={"examples/demo.cc": '#include "base/error.h"\n'})

    def test_headers_and_names(self):
        self.expect("no file includes this header", files={"src/base/lonely.h": "#pragma once\n"})
        self.expect("#pragma once", files={"include/millrace/text.h": "#include <string>\n"})
        self.expect("base name already used by src/base/error.cc", files={"src/ir/error.cc": "int x;\n"})
        self.expect("base name already used by include/millrace/text.h",
                    files={"include/millrace/text.h": "#pragma once\n", "src/base/text.h": "#pragma once\n",
                           "src/base/text.cc": '#include "base/text.h"\n'})

    def test_links(self):
        self.expect("README.md:1: broken link: docs/none.md", files={"README.md": "[x](docs/none.md#part)\n"})


if __name__ == "__main__":
    unittest.main()
