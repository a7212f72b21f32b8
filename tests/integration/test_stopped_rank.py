# A rank that stands still: the others say what they wait for, and the job ends (comm.timeout_seconds,
# --timeout-seconds).
# LABELS mpi
# TIMEOUT 180
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, children_of, command, overrides, wait_for, write_ids  # noqa: E402


def rank_process(launcher, rank):
    """The process of a rank among the launcher's children."""
    name = f"OMPI_COMM_WORLD_RANK={rank}".encode()
    return next(pid for pid in children_of(launcher)
                if name in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


class StoppedRank(ProgramTest):
    def check_ends(self, *arguments, when):
        """Rank 1 of two stands still from the moment on when `when(out, log)` holds of what was printed so far."""
        out, log = self.folder / "out.txt", self.folder / "log.txt"
        with open(out, "wb") as out_file, open(log, "wb") as log_file:
            job = subprocess.Popen(command(*arguments, ranks=2), cwd=self.folder, stdout=out_file, stderr=log_file)
        self.addCleanup(job.kill)
        wait_for(lambda: when(out.read_text(), log.read_text()) or job.poll() is not None, 60, "the moment to stop a rank")
        self.assertIsNone(job.poll(), log.read_text())
        stopped = rank_process(job.pid, 1)
        os.kill(stopped, signal.SIGSTOP)
        try:
            code = job.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.fail(f"the job goes on for 60 s after rank 1 stood still; it said:\n{log.read_text()}")
        finally:
            try:
                os.kill(stopped, signal.SIGKILL)
            except ProcessLookupError:
                pass
        text = log.read_text()
        self.assertNotEqual(code, 0, text)
        self.assertTrue(re.search(r"^caravan: rank 0: has waited \d+\.\d s for other ranks in \w+ number \d+ of group "
                                  r"\w+ \(rank 0 of 2 there\), \d+ bytes, from \w+/\w+\.(cpp|h):\d+; "
                                  r"its last operations:$", text, re.M), text)
        # mpirun wakes the stopped rank to end it; whatever that one still says, it says after rank 0.
        self.assertTrue(next(line for line in text.splitlines() if line.startswith("caravan:"))
                        .startswith("caravan: rank 0:"), text)

    def test_the_others_end_a_training_and_say_what_they_wait_for(self):
        values = {"mode": "synchronous", "parallel__tp": 2, "training__steps": 1000000, "comm__timeout_seconds": 2}
        results = self.folder / "out" / "results.h5"
        self.check_ends("train", "run.yaml", *overrides(**values), when=lambda out, log: results.exists())

    def test_the_others_end_a_verification(self):
        values = {"mode": "synchronous", "parallel__tp": 2, "comm__timeout_seconds": 2}
        self.check_ends("verify", "run.yaml", "--steps", 1000000, *overrides(**values),
                        when=lambda out, log: "comparing step 3 of" in log)

    def test_the_others_end_what_runs_without_a_configuration(self):
        self.train(training__steps=1, mode="synchronous")
        model = self.checkpoint(1)
        write_ids(self.folder / "long.jsonl", 100000, seed=3)
        limit = ["--timeout-seconds", 2]
        with self.subTest("generate"):
            self.check_ends("generate", "--checkpoint", model, "--ids", 1, "-n", 100000, *limit,
                            when=lambda out, log: out.count(" ") > 30)
        with self.subTest("eval"):
            begin = time.monotonic()
            self.check_ends("eval", "--checkpoint", model, "--data", "long.jsonl", "--batch-size", 1, *limit,
                            when=lambda out, log: time.monotonic() > begin + 4)
        with self.subTest("bench"):
            self.check_ends("bench", "tp-vs-ddp", "--hidden", 64, "--batch", 8, "--steps", 20000, "--output", "x.h5",
                            *limit, when=lambda out, log: "TP on 1 ranks" in log)

    def test_a_limit_that_nobody_can_keep_to(self):
        self.refuse(2, "comm.timeout_seconds: is 0; it must be greater than 0", comm__timeout_seconds=0)
        self.expect_failure(2, "--timeout-seconds: Value 0 not in range", "eval", "--checkpoint", ".", "--data", "eval.jsonl",
                            "--timeout-seconds", 0)


if __name__ == "__main__":
    unittest.main()
