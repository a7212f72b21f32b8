# A federated run that is killed at any moment and resumed ends with the bits of the run nobody disturbed.
# LABELS mpi slow
# TIMEOUT 300
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import (ProgramTest, children_of, command, is_gone, kill_ranks, overrides, tensors_of_pth,  # noqa: E402
                     wait_for, write_ids)

try:
    import h5py
except ImportError:
    h5py = None  # the steps are then compared by what inspect prints of them

ROUNDS = 5
STOPS = 6


class ResumeAfterKill(ProgramTest):
    def setUp(self):
        super().setUp()
        write_ids(self.folder / "train.jsonl", 48, seed=1)
        self.values = dict(federated__rounds=ROUNDS, federated__enable_swapping="true", federated__batch_size=2,
                           federated__optimizer_state="keep", federated__outer="{momentum: 0.5, lr: 0.9}",
                           data__shuffle_buffer=7, output__name="run")

    def start(self):
        log = open(self.folder / "log.txt", "ab")
        self.addCleanup(log.close)
        return subprocess.Popen(command("train", "run.yaml", *overrides(resume="latest", **self.values), ranks=2),
                                cwd=self.folder, stdout=log, stderr=log)

    def seconds_per_round(self):
        first, last = (self.checkpoint(number, "whole").stat().st_mtime for number in (1, ROUNDS))
        return (last - first) / (ROUNDS - 1)

    def moment(self, number, numbers, job):
        """Waits for the moment to kill: at random in the first rounds, or while a checkpoint is being written."""
        checkpoints = self.folder / "out" / "checkpoints"
        if number % 3 == 2:
            def is_writing():
                return job.poll() is not None or any(".tmp-" in path.name for path in checkpoints.glob("*_round*"))
            wait_for(is_writing, 60, "a checkpoint being written")
        else:
            results = self.folder / "out" / "results.h5"
            wait_for(lambda: results.exists() or job.poll() is not None, 60, "results.h5")
            time.sleep(numbers.uniform(0.0, 1.25 * self.seconds_per_round()))

    def check_readable(self):
        out = self.folder / "out"
        if (out / "results.h5").exists():
            self.assertIn("History" if (out / "checkpoints").exists() else "results of a run",
                          self.succeed("inspect", "out/results.h5").out)
        for folder in sorted((out / "checkpoints").glob("run_ws2_*_round?")):
            self.assertIn("after round", self.succeed("inspect", folder).out)

    def steps(self, folder):
        path = self.folder / folder / "results.h5"
        if h5py is None:
            shown = self.succeed("inspect", path).out
            return [line for line in shown.splitlines() if "recorded" in line or "at the first" in line]
        with h5py.File(path, "r") as file:
            return {name: file["steps"][name][:].tolist() for name in ("step", "loss", "lr", "grad_norm", "tokens")}

    def history_shown(self, folder):
        return self.succeed("inspect", f"{folder}/results.h5").out.split("History\n")[1].split("\n\n")[0]

    def run_whole(self):
        self.succeed("train", "run.yaml", *overrides(**{**self.values, "output__dir": "whole"}), ranks=2)

    def finish_and_compare(self):
        job = self.start()
        self.assertEqual(job.wait(timeout=120), 0, (self.folder / "log.txt").read_text())
        self.assertEqual(self.rounds_text("out"), self.rounds_text("whole"))
        self.assertEqual([row[0] for row in self.history("out")], list(range(ROUNDS + 1)))
        self.assertEqual(self.history_shown("out"), self.history_shown("whole"))
        self.assertEqual(self.steps("out"), self.steps("whole"))
        for number in range(1, ROUNDS + 1):
            resumed, whole = (tensors_of_pth(self.checkpoint(number, folder) / "consolidated.00.pth")
                              for folder in ("out", "whole"))
            self.assertTrue(resumed and resumed == whole, f"weights after round {number}")
        self.assertEqual(sorted(path.name for path in (self.folder / "out").rglob("*")),
                         sorted(path.name for path in (self.folder / "whole").rglob("*")), "kills leave nothing behind")

    def test_a_launcher_that_hangs_is_killed_and_costs_nothing(self):
        self.run_whole()
        job = self.start()
        wait_for((self.folder / "out" / "checkpoints").exists, 60, "the first checkpoint")
        ranks = children_of(job.pid)
        self.assertEqual(len(ranks), 2)
        os.kill(job.pid, signal.SIGSTOP)  # as if it hung
        self.assertTrue(kill_ranks(job, patience=2))
        self.assertTrue(all(is_gone(pid) for pid in ranks))
        self.check_readable()
        self.finish_and_compare()

    def test_final_bits_are_those_of_the_undisturbed_run(self):
        self.run_whole()
        seed = int(os.environ.get("CARAVAN_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
        print(f"CARAVAN_TEST_SEED={seed}", file=sys.stderr)
        numbers = random.Random(seed)
        kills = 0
        for number in range(STOPS):
            job = self.start()
            self.moment(number, numbers, job)
            kills += job.poll() is None
            kill_ranks(job)
            self.check_readable()
        self.assertGreaterEqual(kills, 2, "most runs ended before they were killed")
        self.finish_and_compare()


if __name__ == "__main__":
    unittest.main()
