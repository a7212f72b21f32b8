# LABELS cuda-build
# scripts/gpu_check.sh and scripts/bundle.sh: what they refuse, and what they say where there is no GPU.
import os
import pathlib
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["CARAVAN_BIN"]).parent.parent


class Scripts(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="caravan-test-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def run_script(self, name, *arguments, **environment):
        return subprocess.run([SOURCE / "scripts" / name, *map(str, arguments)], cwd=self.folder, capture_output=True,
                              encoding="utf-8", env={**os.environ, "CARAVAN_BUILD": str(BUILD), **environment}, timeout=120)

    def test_options_that_do_not_exist_or_fit(self):
        for script, arguments, words in [
            ("gpu_check.sh", ["--speed"], "gpu_check.sh: unknown option --speed"),
            ("gpu_check.sh", ["--part", "everything"], "no part is named everything"),
            ("gpu_check.sh", ["--part", "steps=long"], "--part steps=long: the seconds must be a whole number"),
            ("gpu_check.sh", ["--goldens", "nowhere"], "--goldens nowhere is no folder"),
            ("bundle.sh", ["--small"], "bundle.sh: unknown option --small"),
            ("bundle.sh", ["--build", "nowhere"], "nowhere/bin/caravan is not there; build first"),
            ("bundle.sh", ["--build", BUILD, "--output", self.folder], "exists and is no bundle"),
        ]:
            with self.subTest(words):
                result = self.run_script(script, *arguments)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertIn(words, result.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_without_a_gpu_it_says_so_and_writes_what_it_knows(self):
        (self.folder / "nvidia-smi").write_text("#!/bin/sh\necho 'no driver here'\nexit 9\n")
        (self.folder / "nvidia-smi").chmod(0o755)
        result = self.run_script("gpu_check.sh", "--out", "out", PATH=f"{self.folder}:{os.environ['PATH']}")
        self.assertEqual(result.returncode, 77, result.stdout + result.stderr)
        report = (self.folder / "out" / "report.md").read_text()
        self.assertIn("no GPU: no driver here", report)
        self.assertIn("caravan ", report)

    def test_parts_are_run_and_what_fails_is_said(self):
        # A machine whose nvidia-smi names a GPU that CUDA does not find: tests are skipped, training fails.
        (self.folder / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: none'\n")
        (self.folder / "nvidia-smi").chmod(0o755)
        result = self.run_script("gpu_check.sh", "--out", "out", "--part", "curve", CUDA_VISIBLE_DEVICES="",
                                 PATH=f"{self.folder}:{os.environ['PATH']}")
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("| curve_float32 | **failed (1)**: caravan: device: cuda: no usable GPU", result.stdout)
        self.assertIn("**Something failed.**", result.stdout)
        rows = (self.folder / "out" / "curve.jsonl").read_text().splitlines()
        self.assertEqual(len(rows), 1024)


    def test_the_same_training_twice_is_compared(self):
        (self.folder / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: none'\n")
        (self.folder / "nvidia-smi").chmod(0o755)
        path = dict(CARAVAN_CHECK_DEVICE="cpu", PATH=f"{self.folder}:{os.environ['PATH']}")
        result = self.run_script("gpu_check.sh", "--out", "out", "--part", "reruns", **path)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("| rerun_2 | passed |", result.stdout)
        self.assertRegex(result.stdout, r"The two runs have the same bits \([1-9]\d* files of weights and losses, float32\)")
        # A second run that computes something else is told from the first.
        program = self.folder / "build" / "bin" / "caravan"
        program.parent.mkdir(parents=True)
        program.write_text('#!/bin/sh\ncase "$*" in *rerun-2*) set -- "$@" --set optimizer.lr=1e-4 ;; esac\n'
                           f'exec {BUILD}/bin/caravan "$@"\n')
        program.chmod(0o755)
        result = self.run_script("gpu_check.sh", "--out", "other", "--part", "reruns", **path,
                                 CARAVAN_BUILD=str(self.folder / "build"))
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("**The two runs differ, or left nothing**", result.stdout)


if __name__ == "__main__":
    unittest.main()
