# LABELS cuda-build
# benchmark_gpu_step over the emulated device, and what scripts/gpu_check.sh makes of its output.
import functools
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["CARAVAN_BIN"]).parent
REPORT = SOURCE / "benchmarks" / "end_to_end"
TINY = ["--model", "tiny", "--seq-len", "8", "--rows", "2", "--micro-batches", "2", "--steps", "2", "--ceiling-size", "32",
        "--sustain", "0"]


def gpu_step(*options, **environment):
    return subprocess.run([BIN / "emulated_gpu_step", *TINY, *options], capture_output=True, encoding="utf-8", check=False,
                          env={**os.environ, **environment}, timeout=120)


@functools.cache
def output():
    """What it prints for the tiny model."""
    done = gpu_step()
    assert done.returncode == 0, done.stderr
    return done.stdout


def facts_of(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


class Step(unittest.TestCase):
    def test_figures_follow_from_shape_and_time(self):
        facts = facts_of(output())
        c = json.loads(facts["config"])
        width, inner, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
        heads, kv_heads, head_dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        matrices = layers * (2 * width * heads * head_dim + 2 * width * kv_heads * head_dim + 3 * width * inner)
        products = 6 * (matrices + c["vocab_size"] * width)
        square = 12 * layers * heads * head_dim * 8
        self.assertEqual(float(facts["flops_per_token_causal"]), products + square / 2)
        self.assertEqual(float(facts["flops_per_token_full"]), products + square)
        self.assertEqual((facts["tokens_per_step"], facts["steps"], facts["device"]), ("32", "2", "emulated device"))
        rate = float(facts["tokens_per_second"])
        self.assertAlmostEqual(rate * float(facts["step_ms"]) / 32e3, 1, delta=0.02)
        for count in ("causal", "full"):
            percent = 100 * rate * float(facts[f"flops_per_token_{count}"]) / 989e12
            self.assertAlmostEqual(float(facts[f"mfu_{count}_percent"]) / percent, 1, delta=0.01)
        self.assertLessEqual(float(facts["step_ms_least"]), float(facts["step_ms"]))
        self.assertAlmostEqual(float(facts["loss"]), math.log(256), delta=0.5)
        self.assertGreater(float(facts["peak_memory_gib"]), float(facts["activations_gib"]))

    def test_micro_batches_are_halved_until_they_fit(self):
        # The model's state fits, 16 rows of activations do not.
        limit = float(facts_of(output())["peak_memory_gib"]) * 2**30 + 2e5
        done = gpu_step("--rows", "16", "--micro-batches", "1", "--seconds", "0", CARAVAN_EMULATED_BYTES=str(int(limit)))
        self.assertEqual(done.returncode, 0, done.stderr)
        facts = facts_of(done.stdout)
        self.assertLess(int(facts["rows"]), 16)
        self.assertEqual(int(facts["rows"]) * int(facts["micro_batches"]), 16)
        self.assertEqual(facts["tokens_per_step"], "128")
        self.assertLess(float(facts["peak_memory_gib"]) * 2**30, limit)
        self.assertEqual(facts["steps"], "1")  # however short the time

    def test_ops_are_timed_one_by_one(self):
        done = gpu_step("--ops", "yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        facts = facts_of(done.stdout)
        self.assertEqual(facts["loss"], facts_of(output())["loss"])
        times = {name: float(value) for name, value in facts.items() if re.fullmatch("op_.*_ms", name)}
        self.assertEqual(len(times), 11)
        for name in ("products", "attention_forward", "attention_backward", "norms", "rotary", "swiglu", "loss_head", "adamw"):
            self.assertGreater(times[f"op_{name}_ms"], 0, name)
        self.assertLess(sum(times.values()), 1.01 * float(facts["step_ms_most"]))  # of two steps
        self.assertGreater(sum(times.values()), 0.5 * float(facts["step_ms_least"]))
        self.assertNotIn("op_products_ms", output())

    def test_attention_of_cudnn(self):
        fake = str(BIN.parent / "fake_cudnn" / "libcudnn.so.9")
        done = gpu_step("--attention", "cudnn", CARAVAN_CUDNN=fake)
        self.assertEqual(done.returncode, 0, done.stderr)
        facts = facts_of(done.stdout)
        self.assertEqual((facts["attention"], facts_of(output())["attention"]), ("cudnn", "own"))
        self.assertAlmostEqual(float(facts["loss"]) / float(facts_of(output())["loss"]), 1, delta=5e-3)
        done = gpu_step("--attention", "cudnn", CARAVAN_CUDNN="/nowhere")
        self.assertEqual(done.returncode, 77)
        self.assertIn("skipped: no cuDNN that can be used; tried /nowhere (no such file)", done.stdout)
        done = gpu_step("--attention", "cudnn", "--dtype", "float32", CARAVAN_CUDNN=fake)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--attention cudnn computes in bfloat16, and --dtype is float32", done.stderr)

    def test_options_that_do_not_exist_or_fit(self):
        for options, words in [(["--layers", "2"], "--layers: unknown option"), (["--steps"], "--steps: unknown option, or no"),
                               (["--model", "llama9"], "--model is llama9; it may be llama3.2-1b, "),
                               (["--rows", "0"], "--rows is 0; it must be a number of at least 1"),
                               (["--dtype", "int8"], "--dtype is int8; it may be bfloat16, float32")]:
            with self.subTest(words):
                done = gpu_step(*options)
                self.assertEqual(done.returncode, 1)
                self.assertIn(words, done.stderr)


class Report(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="caravan-test-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.write("nvidia-smi", f"#!/bin/sh\necho \"$@\" >> {self.folder}/smi.txt\necho 'GPU 0: none'\n")
        (self.bin / "caravan").symlink_to(BIN / "caravan")
        # The real shapes would take the emulated device days: the tiny model's output stands for them.
        (self.folder / "sample.log").write_text(output())
        self.write("benchmark_gpu_step", f'#!/bin/sh\necho "$@" >> {self.folder}/asked.txt\ncat {self.folder}/sample.log\n')

    def write(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def check(self, *options, python, **environment):
        done = subprocess.run([SOURCE / "scripts" / "gpu_check.sh", "--out", self.folder / "out", *options], encoding="utf-8",
                              env={**os.environ, "CARAVAN_BUILD": str(self.folder), "CARAVAN_PYTHON": python,
                                   "PATH": f"{self.bin}:{os.environ['PATH']}", **environment}, capture_output=True, check=False, timeout=250)
        return done, (self.folder / "out" / "report.md").read_text()

    def rows(self, report, begin):
        return [cells(line) for line in report.splitlines() if line.startswith(f"| {begin}")]

    def test_steps_are_measured_and_held_against_the_goals(self):
        done, report = self.check("--part", "steps=120", python="no-such-python", CUDA_VISIBLE_DEVICES="3,1")
        self.assertEqual(done.returncode, 0, report)
        self.assertIn("PyTorch beside it: not run: there is no no-such-python", report)
        self.assertIn("All that was run passed. Not run: PyTorch beside it.", report)
        watched = [line for line in (self.folder / "smi.txt").read_text().splitlines() if "clocks.sm,power.draw" in line]
        self.assertEqual({line[:5] for line in watched}, {"-i 3 "})
        rate = round(float(facts_of(output())["tokens_per_second"]))
        self.assertEqual([float(row[2]) for row in self.rows(report, "Llama 3.2") if row[1] == "Caravan"], [rate] * 3)
        asked = [line.rsplit(" --seconds ", 1) for line in (self.folder / "asked.txt").read_text().splitlines()]
        seconds = [int(each) for _, each in asked]  # thirds of what the rows before have left each row
        for actual, expected in zip(seconds, [13, 20, 40], strict=True):
            self.assertIn(expected - actual, [0, 1, 2])
        goals = [line for line in (REPORT / "gpu_goals.txt").read_text().splitlines() if line.startswith("step")]
        self.assertEqual([options for options, _ in asked], [cells(line)[3] for line in goals])
        judged = [row for row in self.rows(report, "Llama 3.2") if row[1] == "mfu_causal_percent"]
        self.assertEqual([row[2:4] + row[5:] for row in judged],
                         [[*cells(line)[-2:], "**floor missed**"] for line in goals])
        self.assertEqual({row[-1] for row in self.rows(report, "step against") + self.rows(report, "own attention")},
                         {"not measured"})

    def test_where_the_time_goes_is_a_table(self):
        (self.folder / "sample.log").write_text(gpu_step("--ops", "yes").stdout)
        done, report = self.check("--part", "ops", python="no-such-python")
        self.assertEqual(done.returncode, 0, report)
        times = [[float(cell) for cell in row[1:]] for row in self.rows(report, "Llama 3.2") if len(row) == 13]
        self.assertEqual(len(times), 3)
        facts = facts_of((self.folder / "sample.log").read_text())
        for row in times:
            self.assertAlmostEqual(row[1], float(facts["op_products_ms"]), delta=0.006)
            self.assertAlmostEqual(sum(row[1:]), row[0], delta=0.06)
        for line in (self.folder / "asked.txt").read_text().splitlines():
            self.assertIn(" --micro-batches 1 --steps 3 --ops yes", line)

    def test_pytorch_is_run_on_the_same_shapes(self):
        # A Python that has PyTorch and is half as fast as Caravan, whatever that is.
        self.write("python", '''#!/bin/sh
[ "$1" != -c ] || exit 0
echo "$@" > "$(dirname "$3")/asked.torch.txt"
sed -e 's/^program:.*/program: PyTorch 9.9/' -e '$a compile: layers' "$3" |
  awk '$1 == "tokens_per_second:" { $2 /= 2 } { print }'
''')
        done, report = self.check("--part", "steps=120", python=str(self.bin / "python"))
        self.assertEqual(done.returncode, 0, report)
        self.assertEqual([row[3] for row in self.rows(report, "Llama 3.2") if row[1] == "Caravan"], ["2.00"] * 3)
        self.assertEqual([row[4:] for row in self.rows(report, "step against torch.compile, ")], [["2", "goal met"]] * 3)
        self.assertIn("PyTorch 9.9, torch.compile: layers", report)
        self.assertRegex((self.folder / "out" / "asked.torch.txt").read_text(), r"gpu_torch_step.py --like .*/step_.*log --seconds \d+")

    def test_what_its_seconds_do_not_suffice_for_is_said(self):
        self.write("benchmark_gpu_step", "#!/bin/sh\nexec sleep 30\n")
        done, report = self.check("--part", "steps=3", python="no-such-python")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ran past its limit of 1 s", report)

    def test_the_sanitizer_runs_over_ops_and_every_attention(self):
        self.write("test_gpu_ops", "#!/bin/sh\nexit 0\n")
        self.write("compute-sanitizer", f'#!/bin/sh\necho "$CARAVAN_HOPPER_ATTENTION$CARAVAN_TEST_HOPPER_CASE $*" >> {self.folder}/asked.txt\n')
        self.write("nvidia-smi", '#!/bin/sh\ncase "$*" in *compute_cap*) echo 9.0 ;; *) echo "GPU 0: none" ;; esac\n')
        done, report = self.check("--part", "sanitizer", python="no-such-python")
        self.assertEqual(done.returncode, 0, report)
        one = f"{self.bin}/test_cuda_hopper_attention one shape*"
        cores = f"{self.bin}/test_gpu_attention_cores [attention]~[cudnn]"
        memcheck = [f" {self.bin}/test_gpu_ops", f"0 {cores}", f"1 {cores}", f"5 {one}", f"6 {one}"]
        asked = (self.folder / "asked.txt").read_text().splitlines()
        self.assertEqual([line.replace("--tool memcheck --error-exitcode 9 ", "") for line in asked[:-1]], memcheck)
        self.assertEqual(asked[-1], f" --tool racecheck --error-exitcode 9 {self.bin}/test_gpu_ops [float32]")

    def test_each_attention_is_proven_and_measured(self):
        for name in ("test_gpu_attention_cores", "test_gpu_training", "benchmark_cuda_attention"):
            self.write(name, f'#!/bin/sh\necho "{name} $CARAVAN_HOPPER_ATTENTION" >> {self.folder}/asked.txt\n')
        self.write("benchmark_gpu_step", f"""#!/bin/sh
echo "step $CARAVAN_HOPPER_ATTENTION $*" >> {self.folder}/asked.txt
cat {self.folder}/sample.log
""")
        step = "--model llama3.2-1b --seq-len 4096 --rows 4 --micro-batches 4 --steps 5 --seconds 10 --attention"
        done, report = self.check("--part", "attention", python="no-such-python")
        self.assertEqual(done.returncode, 0, report)
        self.assertEqual((self.folder / "asked.txt").read_text().splitlines(),
                         ["benchmark_cuda_attention ", f"step 0 {step} own", f"step 0 {step} cudnn"])
        self.assertIn("| Hopper's kernels | not run: the GPU has compute capability GPU 0: none, not 9.0 | |", report)
        (self.folder / "asked.txt").unlink()
        self.write("nvidia-smi", '#!/bin/sh\ncase "$*" in *compute_cap*) echo 9.0 ;; *) echo "GPU 0: none" ;; esac\n')
        done, report = self.check("--part", "attention", python="no-such-python")
        self.assertEqual(done.returncode, 0, report)
        self.assertEqual((self.folder / "asked.txt").read_text().splitlines(),
                         ["test_gpu_attention_cores 0", "test_gpu_training 0", "benchmark_cuda_attention ",
                          f"step 0 {step} own", f"step 0 {step} cudnn", f"step 1 {step} own"])
        self.assertRegex(report, r"step with attention hopper: step_ms: [\d.]+ tokens_per_second: [\d.]+ loss: [\d.]+")

    def test_rates_of_rival_kernels_are_compared(self):
        log = self.folder / "benchmark_cuda_attention.log"
        lines = ["NVIDIA H200, sm_90, 16384 tokens, 32/8 heads, bfloat16, causal"]
        for name, rate in [("cuDNN forward 128x4096", 400.0), ("cuDNN backward 128x4096", 400.0),
                           ("portable forward 128x4096", 300.0), ("portable backward 128x4096", 100.0),
                           ("portable forward 64x4096", 999.0), ("Hopper forward 128x4096", 440.0)]:
            lines.append(f"{name:26}     100.0 us ±  1.0 % {rate:7.1f} TFLOP/s  0.99 of cuDNN's  off by 3.0e-03")
        log.write_text("\n".join(lines))
        done = subprocess.run(["awk", "-f", REPORT / "gpu_report.awk", REPORT / "gpu_goals.txt", log], capture_output=True,
                              encoding="utf-8", check=True)
        self.assertEqual([row[4:] for row in self.rows(done.stdout, "own attention")],
                         [["0.75", "floor met, goal missed"], ["0.25", "**floor missed**"], ["1.1", "goal met"],
                          ["–", "not measured"]])

    def test_every_yardstick_has_a_floor_below_its_goal(self):
        rows = [cells(line) for line in (REPORT / "gpu_goals.txt").read_text().splitlines() if re.match(r"[a-z]+ \|", line)]
        self.assertGreaterEqual(len(rows), 7)
        for row in rows:
            self.assertEqual(len(row), 7, row)
            self.assertLess(float(row[5]), float(row[6]), row)


if __name__ == "__main__":
    unittest.main()
