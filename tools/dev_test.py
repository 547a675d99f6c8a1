#!/usr/bin/env python3
"""How `./dev test` counts: cases inside a program where it prints them, and a failure is never lost; what `--timing` prints."""
import importlib.machinery
import importlib.util
import pathlib
import shutil
import tempfile
import unittest

DEV = pathlib.Path(__file__).resolve().parent.parent / "dev"
LOADER = importlib.machinery.SourceFileLoader("dev", str(DEV))
dev = importlib.util.module_from_spec(importlib.util.spec_from_loader("dev", LOADER))
LOADER.exec_module(dev)

RULE = "-" * 58 + "\n"


def entry(output, outcome):
    return f"1/3 Testing: x\n1/3 Test: x\nCommand: \"x\"\nOutput:\n{RULE}{output}<end of output>\n{RULE}{outcome}\n{RULE}\n"


class CountTest(unittest.TestCase):
    def count(self, *entries):
        return dev.count_cases("Start testing: now\n" + RULE + "".join(entries))

    def test_counts_cases_of_programs(self):
        self.assertEqual(self.count(entry("[==========] 8 tests ran.\n[  PASSED  ] 8 tests.\n", "Test Passed.")), (8, 0))
        self.assertEqual(self.count(entry("Ran 11 tests in 2.1s\n\nOK\n", "Test Passed.")), (11, 0))
        self.assertEqual(self.count(entry("no numbers\n", "Test Passed.")), (1, 0))

    def test_counts_failures(self):
        output = "[  PASSED  ] 6 tests.\n[  FAILED  ] 2 tests, listed below:\n\n 2 FAILED TESTS\n"
        self.assertEqual(self.count(entry(output, "Test Failed.")), (6, 2))
        self.assertEqual(self.count(entry("Ran 11 tests in 2.1s\n\nFAILED (failures=1, errors=2)\n", "Test Failed.")), (8, 3))

    def test_a_crash_or_a_timeout_is_a_failure(self):
        self.assertEqual(self.count(entry("[ RUN      ] A.b\n", "Test Failed.")), (0, 1))
        self.assertEqual(self.count(entry("Segmentation fault\n", "Test Exception: SegFault")), (0, 1))
        self.assertEqual(self.count(entry("[  PASSED  ] 8 tests.\n", "Test Failed."), entry("slow\n", "Test Timeout.")), (8, 2))


class TimingTest(unittest.TestCase):
    LOG = ("# ninja log v5\n0\t9000\t1\tCMakeFiles/x.dir/src/a.cc.o\taa\n0\t5000\t1\tCMakeFiles/x.dir/src/b.cu.o\tbb\n"
           "10\t2010\t1\tCMakeFiles/x.dir/src/a.cc.o\tcc\n20\t1020\t1\tlibx.a\tdd\n")

    def test_the_last_build_of_each_file_counts(self):
        self.assertEqual([line.split() for line in dev.slowest(self.LOG, count=2)],
                         [["5.0", "s", "1", "x", ".cu"], ["2.0", "s", "1", "x", ".cc"], ["1.0", "s", "1", "x", "else"],
                          ["5.0", "s", "src/b.cu.o"], ["2.0", "s", "src/a.cc.o"]])


class NeedsTest(unittest.TestCase):
    def test_libraries_and_the_newest_version_by_number(self):
        headers = ("Dynamic Section:\n  NEEDED               libm.so.6\n  NEEDED               libc.so.6\n  INIT    0x1\n"
                   "Version References:\n  required from libc.so.6:\n    0x069691b4 0x00 07 GLIBC_2.34\n    0x0d696919 0x00 05 GLIBC_2.9\n"
                   "    0x09691a75 0x00 03 GLIBC_2.2.5\n    0x0 0x00 03 GLIBCXX_3.4.30\n")
        self.assertEqual(dev.needs(headers), (["libm.so.6", "libc.so.6"], (2, 34)))


class CudaProgramTest(unittest.TestCase):
    def test_a_program_that_is_not_ours(self):
        """cat is small and needs the C library alone, but says nothing of GPUs."""
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(shutil.copy(shutil.which("cat"), folder))
            found = dict(dev.cuda_program_checks(program))
        self.assertGreaterEqual(len(found), 4)
        self.assertEqual([what for what, wrong in found.items() if wrong], [what for what in found if "without a GPU" in what])


if __name__ == "__main__":
    unittest.main()
