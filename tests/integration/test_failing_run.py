# A run that goes wrong on the way: numbers that are not finite, a rank that dies. One message, and an end.
# LABELS mpi
# TIMEOUT 200
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, children_of, command, is_gone, overrides, wait_for  # noqa: E402


class NotFinite(ProgramTest):
    def run_out(self, words, ranks=1, **values):
        result = self.caravan("train", "run.yaml", *overrides(**values), ranks=ranks)
        self.assertEqual(result.code, 1, result.err)
        self.assertEqual(len(result.messages()), 1, result.err)
        for word in words:
            self.assertIn(word, result.messages()[0])
        return result

    def test_a_step_too_large_stops_with_step_and_rank(self):
        result = self.run_out(["local step 2", "rank ", "optimizer.lr"], ranks=2, optimizer__lr=1e30)
        self.assertEqual(result.messages()[0].count("rank "), 1, result.err)
        self.assertNotIn("-nan", result.err)
        self.assertEqual([row[0] for row in self.history()], [0])
        self.assertFalse((self.folder / "out" / "checkpoints").exists())
        self.run_out(["local step 2"], optimizer__lr=1e30, mode="synchronous", output__dir="out1")
        self.assertIn("1 recorded, step 1 to 1", self.succeed("inspect", "out1/results.h5").out)

    def test_a_weight_that_is_not_finite_is_named(self):
        self.train(federated__rounds=1)
        self.succeed("convert", "--in", self.checkpoint(1), "--out", "hf", "--to", "hf")
        path = self.folder / "hf" / "model.safetensors"
        data = bytearray(path.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        name = b'"model.layers.1.mlp.up_proj.weight":'
        entry = bytes(data[8:8 + size]).split(name)[1]
        begin = 8 + size + int(entry.split(b'"data_offsets":[')[1].split(b",")[0])
        data[begin:begin + 4] = struct.pack("<f", float("inf"))
        path.write_bytes(data)
        source = dict(model__preset="null", model__checkpoint="hf")
        self.run_out(["local step 1", "the parameter layers.1.feed_forward.w3.weight"], mode="synchronous",
                     data__eval="[]", output__dir="out1", **source)
        self.refuse(1, "weights are not usable", "--overwrite", ranks=2, **source)
        self.expect_failure(1, "the evaluation loss is", "eval", "--checkpoint", "hf", "--data", "eval.jsonl")


class DyingRank(ProgramTest):
    def test_a_rank_killed_from_outside_ends_the_job_soon(self):
        for victim in (0, 1):
            output = f"out{victim}"
            wanted = overrides(federated__rounds=100000, output__dir=output)
            with subprocess.Popen(command("train", "run.yaml", *wanted, ranks=2), cwd=self.folder,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
                try:
                    checkpoints = self.folder / output / "checkpoints"
                    wait_for(checkpoints.exists, 60, "the first finished round")
                    ranks = sorted(children_of(job.pid))
                    self.assertEqual(len(ranks), 2)
                    os.kill(ranks[victim], signal.SIGKILL)
                    begin = time.monotonic()
                    self.assertNotEqual(job.wait(timeout=30), 0)
                    self.assertLess(time.monotonic() - begin, 15)
                    for pid in ranks:
                        wait_for(lambda pid=pid: is_gone(pid), 10, f"the end of rank with pid {pid}")
                finally:
                    job.kill()
            self.assertIn("ended          not yet, or the run was stopped",
                          self.succeed("inspect", f"{output}/results.h5").out)


if __name__ == "__main__":
    unittest.main()
