# LABELS cuda-build
# scripts/gpu_check.sh and scripts/bundle.sh: what they refuse, and what they say where there is no GPU.
import os
import pathlib
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["CARAVAN_BIN"]).parent.parent
TESTS = ("ranks_on_2", "verify_on_2", "ranks_on_4", "verify_on_4")  # over NCCL, too
RUNS = ("ddp", "ddp_recorded", "tp", "tp_recorded", "pp", "cp", "fsdp", "fsdp_recorded", "fsdp_tp", "fsdp_tp_recorded",
        "federated")  # over NCCL


class Scripts(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="caravan-test-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def run_script(self, name, *arguments, **environment):
        return subprocess.run([SOURCE / "scripts" / name, *map(str, arguments)], cwd=self.folder, capture_output=True,
                              encoding="utf-8", env={**os.environ, "CARAVAN_BUILD": str(BUILD), **environment}, timeout=120)

    def script(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def test_options_that_do_not_exist_or_fit(self):
        for script, arguments, words in [
            ("gpu_check.sh", ["--speed"], "gpu_check.sh: unknown option --speed"),
            ("gpu_check.sh", ["--part", "everything"], "no part is named everything"),
            ("gpu_check.sh", ["--part", "steps=long"], "--part steps=long: the seconds must be a whole number"),
            ("gpu_check.sh", ["--goldens", "nowhere"], "--goldens nowhere is no folder"),
            ("bundle.sh", ["--small"], "bundle.sh: unknown option --small"),
            ("bundle.sh", ["--build", "nowhere"], "nowhere/bin/caravan is not there; build first"),
            ("bundle.sh", ["--build", BUILD, "--output", self.folder, "--without-benchmarks"], "exists and is no bundle"),
        ]:
            with self.subTest(words):
                result = self.run_script(script, *arguments)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertIn(words, result.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_programs_that_are_missing_are_named_before_anything_runs(self):
        self.script("build/bin/caravan", "exit 0")
        before = {path.name for path in self.folder.rglob("*")}
        for script, arguments, words in [
            ("gpu_check.sh", ["--part", "speed"], "bin: benchmark_cuda_kernels benchmark_gpu_step; cmake --preset release"),
            ("gpu_check.sh", ["--part", "attention"], "benchmark_cuda_attention benchmark_gpu_step; cmake"),
            ("bundle.sh", ["--build", self.folder / "build"], "bin/test_gpu_ops is not there, and scripts/gpu_check.sh wants it"),
        ]:
            with self.subTest(words):
                result = self.run_script(script, *arguments, CARAVAN_BUILD=str(self.folder / "build"))
                self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
                self.assertIn(words, result.stderr)
        self.assertEqual({path.name for path in self.folder.rglob("*")}, before)

    def test_logs_of_another_run_are_not_reported(self):
        self.script("nvidia-smi", "echo 'GPU 0: none'")
        for name in ("caravan", "benchmark_cuda_kernels"):
            self.script(f"build/bin/{name}", "exit 0")
        (self.folder / "out").mkdir()
        old = [self.folder / "out" / name for name in ("benchmark_cuda_attention.log", "attention_step_own.log")]
        for path in old:
            path.write_text("forward 999 TFLOP/s\n")
        self.run_script("gpu_check.sh", "--out", "out", "--part", "kernels", CARAVAN_BUILD=str(self.folder / "build"),
                        PATH=f"{self.folder}:{os.environ['PATH']}")
        self.assertTrue((self.folder / "out" / "report.md").exists())
        self.assertEqual([path for path in old if path.exists()], [])

    def test_without_a_gpu_it_says_so_and_writes_what_it_knows(self):
        self.script("nvidia-smi", "echo 'no driver here'; exit 9")
        result = self.run_script("gpu_check.sh", "--out", "out", "--part", "curve", PATH=f"{self.folder}:{os.environ['PATH']}")
        self.assertEqual(result.returncode, 77, result.stdout + result.stderr)
        report = (self.folder / "out" / "report.md").read_text()
        self.assertIn("no GPU: no driver here", report)
        self.assertIn("caravan ", report)

    def test_parts_are_run_and_what_fails_is_said(self):
        # A machine whose nvidia-smi names a GPU that CUDA does not find: tests are skipped, training fails.
        self.script("nvidia-smi", "echo 'GPU 0: none'")
        result = self.run_script("gpu_check.sh", "--out", "out", "--part", "curve", CUDA_VISIBLE_DEVICES="",
                                 PATH=f"{self.folder}:{os.environ['PATH']}")
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("| curve_float32 | **failed (1)**: caravan: device: cuda: no usable GPU", result.stdout)
        self.assertIn("**Something failed.**", result.stdout)
        rows = (self.folder / "out" / "curve.jsonl").read_text().splitlines()
        self.assertEqual(len(rows), 1024)

    def test_without_nccl_the_comparison_with_it_is_left_out(self):
        self.script("nvidia-smi", "echo 'GPU 0: none'")
        for error, status, last in [
            ("comm.backend is nccl, but rank 0 found no NCCL that can be used; tried /nowhere", 0,
             "All that was run passed. Not run: " + ", ".join(f"{what}_over_nccl" for what in TESTS + RUNS) + "."),
            ("NCCL failed", 1, "**Something failed.**"),
        ]:
            with self.subTest(error):
                for name in ("test_gpu_ranks", "test_gpu_verify"):
                    self.script(f"build/bin/{name}", f'[ "$COMM_BACKEND" = mpi ] || {{ echo "{error}"; exit 1; }}')
                self.script("build/bin/caravan", f'case "$*" in *backend=nccl*) echo "{error}"; exit 1 ;; esac\n'
                                                 f'exec {BUILD}/bin/caravan "$@"')
                result = self.run_script("gpu_check.sh", "--out", "out", "--part", "ranks", CARAVAN_CHECK_DEVICE="cpu",
                                         CARAVAN_BUILD=str(self.folder / "build"), PATH=f"{self.folder}:{os.environ['PATH']}")
                self.assertEqual(result.returncode, status, result.stdout + result.stderr)
                self.assertEqual(result.stdout.splitlines()[-2], last)
                self.assertIn("| federated_over_mpi | passed |", result.stdout)
                self.assertEqual("losses over_nccl and over_mpi" in result.stdout, status == 1)

    def test_faults_must_end_with_their_words(self):
        self.script("nvidia-smi", "echo 'GPU 0: none'")
        # An emulated device stands for the GPU, but where none may be seen.
        self.script("build/bin/caravan", f'case "$*" in *device=cuda) exec {BUILD}/bin/caravan "$@" ;; esac\n'
                                         f'exec {BUILD}/bin/caravan_emulated "$@"')
        path = dict(CARAVAN_CHECK_DEVICE="cuda", CARAVAN_BUILD=str(self.folder / "build"), CARAVAN_NCCL="/nowhere",
                    PATH=f"{self.folder}:{os.environ['PATH']}")
        result = self.run_script("gpu_check.sh", "--out", "out", "--part", "faults=60", **path)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for row in ("no_gpu | caravan: device: cuda: no usable GPU", "too_small | caravan: ", "lost_rank_over_mpi | "):
            self.assertIn("| " + row, result.stdout)
        self.assertEqual(result.stdout.splitlines()[-2], "All that was run passed. Not run: lost_rank_over_nccl.")
        # A program that trains happily, or ends without saying why.
        for does in ("exit 0", "exit 1"):
            self.script("build/bin/caravan", does)
            result = self.run_script("gpu_check.sh", "--out", "out", "--part", "faults=60", **path)
            self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
            self.assertEqual(result.stdout.count("without the words"), 4)
            self.assertEqual(result.stdout.count("no step was made before"), 2)

    def test_the_same_training_twice_is_compared(self):
        self.script("nvidia-smi", "echo 'GPU 0: none'")
        path = dict(CARAVAN_CHECK_DEVICE="cpu", PATH=f"{self.folder}:{os.environ['PATH']}")
        result = self.run_script("gpu_check.sh", "--out", "out", "--part", "reruns", **path)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("| rerun_2 | passed |", result.stdout)
        self.assertRegex(result.stdout, r"The two runs have the same bits \([1-9]\d* files of weights and losses, float32\)")
        # A second run that computes something else is told from the first.
        self.script("build/bin/caravan", 'case "$*" in *rerun-2*) set -- "$@" --set optimizer.lr=1e-4 ;; esac\n'
                                         f'exec {BUILD}/bin/caravan "$@"')
        result = self.run_script("gpu_check.sh", "--out", "other", "--part", "reruns", **path,
                                 CARAVAN_BUILD=str(self.folder / "build"))
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("**The two runs differ, or left nothing**", result.stdout)


if __name__ == "__main__":
    unittest.main()
