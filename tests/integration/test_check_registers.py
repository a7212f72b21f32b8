#!/usr/bin/env python3
# LABELS cuda-build
# TIMEOUT 120
"""scripts/check_registers.py finds what it is there to find: in reports made up here, and in one of nvcc where there is
one. Standard library only."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = SOURCE / "scripts/check_registers.py"

# void caravan::cuda::(anonymous namespace)::add_parts_kernel<float>(float const*, long, int, float*), as nvcc mangles it.
KERNEL = "_ZN7caravan4cuda39_GLOBAL__N__1234abcd_7_norm_cu_5678ef9016add_parts_kernelIfEEvPKfliPT_"
NAME = "norm: add_parts_kernel<float>"


def report(registers=32, spilled=0, shared=0, stack=0, arch="sm_90", words=""):
    smem = f", {shared} bytes smem" if shared else ""
    return (f"ptxas info    : 0 bytes gmem\n{words}"
            f"ptxas info    : Compiling entry function '{KERNEL}' for '{arch}'\n"
            f"ptxas info    : Function properties for {KERNEL}\n"
            f"    {stack} bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads\n"
            f"ptxas info    : Used {registers} registers, used 1 barriers{smem}\n"
            "ptxas info    : Compile time = 2.000 ms\n")


class Registers(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.limits = self.folder / "limits.txt"

    def check(self, text, *options, source="norm.cu"):
        reports = self.folder / "CMakeFiles/caravan_kernels_cuda.dir/kernels/cuda"
        reports.mkdir(parents=True, exist_ok=True)
        (reports / f"{source}.o.ptxas").write_text(text)
        return self.run_script(*options)

    def run_script(self, *options):
        result = subprocess.run([sys.executable, SCRIPT, "--build", self.folder, "--limits", self.limits, *options],
                                capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        return result.returncode, result.stdout

    def accept(self, text):
        status, output = self.check(text, "--update")
        self.assertEqual(status, 0, output)

    def expect(self, words, text):
        status, output = self.check(text)
        self.assertEqual(status, 1, output)
        self.assertIn(words, output)

    def test_what_was_accepted_passes_and_less_does_too(self):
        self.accept(report(registers=40, shared=512))
        self.assertIn(f"sm_90 40 512 0 {NAME}\n", self.limits.read_text())
        for text in (report(registers=40, shared=512), report(registers=39)):
            status, output = self.check(text)
            self.assertEqual((status, output.count("\n")), (0, 1), output)

    def test_more_than_the_limit_of_anything_fails(self):
        self.accept(report(registers=40, shared=512, stack=8))
        self.expect(f"{NAME} for sm_90: registers 41, the limit is 40", report(registers=41, shared=512, stack=8))
        self.expect("shared 528, the limit is 512", report(registers=40, shared=528, stack=8))
        self.expect("stack 16, the limit is 8", report(registers=40, shared=512, stack=16))

    def test_a_spill_fails_and_cannot_be_accepted(self):
        self.accept(report())
        self.expect(f"{NAME} for sm_90: spills 8 bytes", report(spilled=4))
        self.assertEqual(self.check(report(spilled=4), "--update")[0], 1)

    def test_serialised_matrix_instructions_fail(self):
        self.accept(report())
        for words in ("(C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized due to",
                      "(C7508) setmaxnreg ignored"):
            self.expect(words, report(words=f"ptxas info    : {words}\n"))
        harmless = "ptxas info    : (C7519) Potential Performance Loss: warpgroup.arrive is injected\n"
        self.assertEqual(self.check(report(words=harmless))[0], 0)

    def test_kernels_and_limits_belong_together(self):
        self.expect(f"{NAME} for sm_90: 32 registers, and no limit", report())
        self.accept(report())
        with self.limits.open("a") as file:
            file.write("sm_90 10 0 0 norm: gone_kernel\nsm_80 10 0 0 norm: not_built_kernel\n")
        self.expect("norm: gone_kernel for sm_90: has a limit and is gone", report())
        self.assertNotIn("not_built_kernel", self.check(report())[1])

    def test_an_update_keeps_the_limits_of_other_architectures(self):
        self.accept(report(registers=30, arch="sm_80"))
        self.accept(report(registers=31, arch="sm_90"))
        self.assertEqual([line.split()[:2] for line in self.limits.read_text().splitlines() if line[0] != "#"],
                         [["sm_80", "30"], ["sm_90", "31"]])

    def test_reports_of_sources_that_are_gone_do_not_count(self):
        self.assertEqual(self.check(report(), source="nothing_of_that_name.cu")[0], 77)

    def test_a_build_without_kernels_is_skipped_with_the_reason(self):
        status, output = self.run_script()
        self.assertEqual(status, 77)
        self.assertIn("SKIPPED", output)

    def test_another_compiler_is_held_to_spills_alone(self):
        self.accept(report(registers=40))
        self.limits.write_text(self.limits.read_text().replace("# nvcc unknown", "# nvcc 12.8"))
        nvcc = self.folder / "nvcc"
        nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
        nvcc.chmod(0o755)
        (self.folder / "CMakeCache.txt").write_text(f"CMAKE_CUDA_COMPILER:FILEPATH={nvcc}\n")
        self.assertEqual(self.check(report(registers=41))[0], 0)
        self.assertEqual(self.check(report(spilled=4))[0], 1)

    def test_what_nvcc_writes_today_is_understood(self):
        nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        if not os.access(nvcc, os.X_OK):
            print("SKIPPED: there is no nvcc")
            return
        source = self.folder / "spill.cu"
        source.write_text("""
            __global__ void spilling(float* x) {
              __shared__ float all[64];
              float mine[64];
            #pragma unroll
              for (int i = 0; i < 64; ++i) { mine[i] = x[i * 32]; }
              all[threadIdx.x] = x[threadIdx.x];
              __syncthreads();
            #pragma unroll
              for (int i = 0; i < 64; ++i) { x[i] = mine[63 - i] * all[i]; }
            }""")
        nvcc_run = subprocess.run(
            [SOURCE / "cmake/nvcc_with_report.sh", nvcc, "-arch=sm_90", "-maxrregcount=24", "-Xptxas=-v", "-c", source,
             "-o", self.folder / "spill.o"], capture_output=True, text=True)
        self.assertEqual((nvcc_run.returncode, nvcc_run.stderr), (0, ""))
        status, output = self.check((self.folder / "spill.o.ptxas").read_text(), "--update")
        self.assertEqual(status, 1)
        self.assertRegex(output, r"norm: spilling for sm_90: spills [1-9]\d* bytes")
        self.assertRegex(self.limits.read_text(), r"sm_90 24 256 [1-9]\d* norm: spilling\n")


if __name__ == "__main__":
    unittest.main()
