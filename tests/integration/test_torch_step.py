# LABELS python
# PyTorch's counterparts of the step benchmarks, on the CPU with a tiny model.
import importlib.util
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["CARAVAN_BIN"]).parent
SCRIPT = SOURCE / "benchmarks" / "end_to_end" / "gpu_torch_step.py"
SAME = ["model", "dtype", "seq_len", "rows", "micro_batches", "tokens_per_step"]


def facts_of(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


class TorchStep(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="caravan-test-")
        self.addCleanup(holder.cleanup)
        self.log = pathlib.Path(holder.name) / "step.log"
        made = subprocess.run([BIN / "emulated_gpu_step", "--model", "tiny-tied", "--seq-len", "16", "--rows", "2",
                               "--micro-batches", "2", "--steps", "1", "--ceiling-size", "32"], capture_output=True,
                              encoding="utf-8", check=True, timeout=120)
        self.log.write_text(made.stdout)
        self.facts = facts_of(made.stdout)

    def run_script(self, *options):
        return subprocess.run([sys.executable, SCRIPT, "--like", self.log, "--device", "cpu", "--compile", "none", *options],
                              capture_output=True, encoding="utf-8", check=False, timeout=250)

    def test_it_trains_the_model_of_the_log(self):
        models = ["plain"] + (["transformers"] if importlib.util.find_spec("transformers") else [])
        for model in models:
            with self.subTest(model):
                done = self.run_script("--model", model, "--steps", "2")
                self.assertEqual(done.returncode, 0, done.stderr)
                facts = facts_of(done.stdout)
                self.assertEqual({key: facts[key] for key in SAME}, {key: self.facts[key] for key in SAME})
                self.assertEqual(facts["steps"], "2")
                self.assertAlmostEqual(float(facts["loss"]), math.log(256), delta=0.5)
                percent = 100 * float(facts["tokens_per_second"]) * float(self.facts["flops_per_token_causal"]) / 989e12
                self.assertAlmostEqual(float(facts["mfu_causal_percent"]) / percent, 1, delta=0.01)

    def test_a_log_that_is_none_is_refused(self):
        self.log.write_text("model: tiny\n")
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no config, dtype, ", done.stderr)
        self.assertIn("it must be the output of benchmark_gpu_step", done.stderr)
        self.log.write_text("\n".join(f"{key}: {value}" for key, value in {**self.facts, "recompute": "full"}.items()))
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("has recompute full", done.stderr)


if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        print("SKIPPED: there is no PyTorch")
        sys.exit(77)
    unittest.main()
