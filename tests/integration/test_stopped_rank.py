# A rank that stands still: the others say what they wait for, and the job ends (comm.timeout_seconds).
# LABELS mpi
# TIMEOUT 180
import os
import pathlib
import re
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, children_of, command, overrides, wait_for  # noqa: E402


def rank_process(launcher, rank):
    """The process of a rank among the launcher's children."""
    name = f"OMPI_COMM_WORLD_RANK={rank}".encode()
    return next(pid for pid in children_of(launcher)
                if name in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


class StoppedRank(ProgramTest):
    def test_the_others_end_the_job_and_say_what_they_wait_for(self):
        values = {"mode": "synchronous", "parallel__tp": 2, "training__steps": 1000000, "comm__timeout_seconds": 2}
        with open(self.folder / "log.txt", "wb") as log:
            job = subprocess.Popen(command("train", "run.yaml", *overrides(**values), ranks=2), cwd=self.folder,
                                   stdout=log, stderr=log)
        self.addCleanup(job.kill)
        results = self.folder / "out" / "results.h5"
        wait_for(lambda: results.exists() or job.poll() is not None, 60, "the first step")
        self.assertIsNone(job.poll(), (self.folder / "log.txt").read_text())
        stopped = rank_process(job.pid, 1)
        os.kill(stopped, signal.SIGSTOP)
        try:
            code = job.wait(timeout=60)
        finally:
            try:
                os.kill(stopped, signal.SIGKILL)
            except ProcessLookupError:
                pass
        text = (self.folder / "log.txt").read_text()
        self.assertNotEqual(code, 0, text)
        self.assertTrue(re.search(r"^caravan: rank 0: has waited \d+\.\d s for other ranks in \w+ number \d+ of group "
                                  r"\w+ \(rank 0 of 2 there\), \d+ bytes, from \w+/\w+\.(cpp|h):\d+; "
                                  r"its last operations:$", text, re.M), text)
        # mpirun wakes the stopped rank to end it; whatever that one still says, it says after rank 0.
        self.assertTrue(next(line for line in text.splitlines() if line.startswith("caravan:"))
                        .startswith("caravan: rank 0:"), text)

    def test_a_limit_that_nobody_can_keep_to(self):
        self.refuse(2, "comm.timeout_seconds: is 0; it must be greater than 0", comm__timeout_seconds=0)


if __name__ == "__main__":
    unittest.main()
