# The batch scripts under a real Slurm, four nodes on this machine: the same run as on one rank and under mpirun.
# LABELS slow
# TIMEOUT 600
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import SHARED, SOURCE, ProgramTest, overrides, results_columns  # noqa: E402

LOCAL = SHARED / "slurm-local"
os.environ["PATH"] += ":/usr/sbin"
MISSING = [name for name in ("sbatch", "srun", "munged", "slurmctld", "slurmd") if shutil.which(name) is None]
if MISSING or not (LOCAL / "start.sh").exists():
    print(f"SKIPPED: {', '.join(MISSING)} not installed (scripts/install_deps.sh --slurm)" if MISSING else
          f"SKIPPED: no {LOCAL}/start.sh; set CARAVAN_SHARED")
    sys.exit(77)


class UnderSlurm(ProgramTest):
    @classmethod
    def setUpClass(cls):
        os.environ.update(SLURM_LOCAL_NODES="4", SLURM_LOCAL_CPUS="2")
        shown = subprocess.run([LOCAL / "start.sh"], check=True, stdout=subprocess.PIPE, encoding="utf-8", timeout=120)
        for word in shown.stdout.replace("export ", "").split():
            name, value = word.split("=", 1)
            os.environ[name] = value.strip("'")
        cls.addClassCleanup(subprocess.run, [LOCAL / "stop.sh", "--purge"], check=True)

    def submit(self, script, *options, timeout=400, **values):
        """Runs a batch script of ours to its end; returns the exit code, and its log. Once more when a rank died
        within MPI_Init, before it said a word (docs/notes/meshes.md)."""
        log = self.folder / "job.log"
        for _ in range(3):
            log.unlink(missing_ok=True)
            job = subprocess.run(["sbatch", "--wait", "--cpus-per-task=1", f"--output={log}", *options,
                                  SOURCE / "slurm" / script, "run.yaml", *overrides(**values)],
                                 cwd=self.folder, capture_output=True, encoding="utf-8", timeout=timeout)
            text = log.read_text() if log.exists() else ""
            died_in_init = "Failing at address: (nil)" in text and "caravan:" not in text and "plan:" not in text
            if not died_in_init:
                break
            print("a rank died within MPI_Init; submitting again", file=sys.stderr)
        return job.returncode, f"{job.stdout}{job.stderr}{text}"

    def batch(self, script, *options, **values):
        code, text = self.submit(script, *options, **values)
        self.assertEqual(code, 0, text)

    def hosts(self, folder):
        return set(re.findall(r"\bn[1-4]\b", self.succeed("inspect", f"{folder}/results.h5").out))

    def test_eight_ranks_on_four_nodes_have_the_curve_of_one(self):
        plain = dict(mode="synchronous", dtype="float64", training__steps=20, training__clip_norm=0.8)
        self.train(output__dir="one", **plain)
        for name, mesh in [("tp_fsdp", dict(parallel__tp=2)),
                           ("pp_tp_ddp", dict(parallel__pp=2, parallel__tp=2, parallel__dp_replicate=2,
                                              parallel__dp_shard=1)),
                           ("cp_hsdp", dict(parallel__cp=2, parallel__dp_replicate=2, parallel__context="ring"))]:
            with self.subTest(name):
                self.batch("train_synchronous.sbatch", output__dir=name, **plain, **mesh)
                ours, wanted = self.history(name), self.history("one")
                self.assertEqual([row[0] for row in ours], [0, 20])
                for row, expected in zip(ours, wanted):
                    self.assertAlmostEqual(row[1] / expected[1], 1, delta=1e-10)
                self.assertEqual(self.steps_close(name, "one"), 20)
                self.assertEqual(self.hosts(name), {"n1", "n2", "n3", "n4"})

    def steps_close(self, ours, wanted):
        """The number of steps, after each loss was found equal."""
        losses = [results_columns(self.folder / folder / "results.h5")["/steps/loss"] for folder in (ours, wanted)]
        self.assertEqual(len(losses[0]), len(losses[1]))
        for loss, expected in zip(*losses):
            self.assertAlmostEqual(loss / expected, 1, delta=1e-10)
        return len(losses[0])

    def test_federated_rounds_are_those_of_mpirun(self):
        plain = dict(dtype="float64", federated__rounds=2)
        self.train(ranks=4, output__dir="mpirun", **plain)
        self.batch("train_federated.sbatch", output__dir="slurm", **plain)
        self.assertEqual(self.rounds_text("slurm"), self.rounds_text("mpirun"))
        self.assertEqual(self.hosts("slurm"), {"n1", "n2", "n3", "n4"})

    def test_a_refused_run_ends_the_job_at_once(self):
        code, text = self.submit("train_synchronous.sbatch", timeout=100, mode="synchronous", parallel__tp=3)
        self.assertNotEqual(code, 0)
        self.assertEqual(text.count("which does not divide 8 ranks"), 1, text)


if __name__ == "__main__":
    unittest.main()
