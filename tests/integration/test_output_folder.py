# The output folder holds one run: what is refused, what --overwrite replaces, what resume: latest goes on with, and
# that a start which fails leaves every file as it was.
# LABELS mpi
# TIMEOUT 300
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, children_of, command, freeze, is_gone, overrides, snapshot, wait_for, write_ids  # noqa: E402

CONFIG, INPUT = 2, 1  # exit codes: what the user wrote, what a file holds


class OutputFolder(ProgramTest):
    def test_results_are_replaced_only_on_request(self):
        self.train()
        first = self.rounds_text()
        (self.folder / "out" / "notes.txt").write_text("mine")
        self.refuse(CONFIG, "already holds the results of a run", ranks=2)
        self.train("--overwrite", optimizer__lr=1e-2, ranks=2)
        self.assertNotEqual(self.rounds_text(), first)
        self.assertEqual((self.folder / "out" / "notes.txt").read_text(), "mine")
        self.assertEqual([path.name for path in sorted((self.folder / "out" / "checkpoints").iterdir())],
                         ["out_ws2_lr0.01_round1", "out_ws2_lr0.01_round2"])

    def test_overwrite_spares_what_the_run_starts_from(self):
        self.train()
        self.refuse(CONFIG, "which --overwrite empties", "--overwrite", model__preset="null",
                    model__checkpoint=f"./out/../out/checkpoints/{self.checkpoint(2).name}/")
        self.refuse(CONFIG, "--overwrite and resume: latest contradict each other", "--overwrite", resume="latest")

    def test_a_run_that_cannot_start_replaces_nothing(self):
        self.train(ranks=2)
        (self.folder / "short.jsonl").write_text('{"ids": [1]}\n{"ids": []}\n')
        self.refuse(INPUT, "the evaluation data has no target token", "--overwrite", ranks=2, data__eval="short.jsonl")
        self.refuse(INPUT, "the evaluation data has no target token", "--overwrite", mode="synchronous",
                    data__eval="short.jsonl")

    def test_places_that_cannot_be_a_folder(self):
        self.refuse(INPUT, "run.yaml is not a folder", output__dir="run.yaml", ranks=2)
        self.refuse(INPUT, "run.yaml is not a folder", output__dir="run.yaml/run")
        self.refuse(INPUT, "/proc/caravan: cannot be created", output__dir="/proc/caravan")
        if os.geteuid() != 0:
            (self.folder / "closed").mkdir(mode=0o555)
            self.refuse(INPUT, "cannot be written", output__dir="closed/run")


class SmallDisk(ProgramTest):
    """The output folder lies on a tmpfs."""

    def mount(self, size):
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], capture_output=True).returncode:
            self.skipTest("no right to mount a small tmpfs")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        return disk

    def test_a_full_disk_ends_the_run_and_keeps_the_finished_rounds(self):
        disk = self.mount("650k")
        result = self.caravan("train", "run.yaml", *overrides(output__dir="disk/run"), ranks=2)
        self.assertEqual(result.code, INPUT, result.err)
        self.assertEqual(len(result.messages()), 1, result.err)
        self.assertIn("No space left on device", result.messages()[0])
        self.assertRegex(result.err, r"warning: output.dir disk/run: .* are free, enough for 1 of 2 checkpoints of 465")
        self.assertEqual([path.name for path in (disk / "run" / "checkpoints").iterdir()], ["run_ws2_lr0.001_round1"])
        self.assertRegex(self.succeed("inspect", "disk/run/results.h5").out, r"History\n.*\n +0 .*\n +1 ")

    def test_no_room_for_a_checkpoint_is_told_before_anything_is_removed(self):
        self.mount("650k")
        wanted = dict(output__dir="disk/run", federated__rounds=1)
        self.train(**wanted)
        self.refuse(INPUT, "a checkpoint needs 930.50 KiB", "--overwrite", ranks=2, dtype="float64", **wanted)
        self.refuse(INPUT, "a checkpoint needs 1.36 MiB", "--overwrite", **wanted, federated__optimizer_state="keep")
        self.train("--overwrite", **wanted)  # what it frees counts

    def test_one_message_when_not_even_the_results_fit(self):
        self.mount("16k")
        result = self.caravan("train", "run.yaml", *overrides(output__dir="disk/run", federated__rounds=0))
        self.assertEqual(result.code, INPUT, result.err)
        self.assertEqual(len(result.messages()), 1, result.err)
        self.assertEqual(result.err.count("No space left on device"), 1, result.err)


class OneRunAtATime(ProgramTest):
    def start(self, *arguments, ranks=1, **values):
        log = open(self.folder.parent / f"{self.folder.name}.log", "w+b")  # beside the folder: snapshots are compared
        self.addCleanup(os.unlink, log.name)
        self.addCleanup(log.close)
        job = subprocess.Popen(command("train", "run.yaml", *overrides(**values), *arguments, ranks=ranks),
                               cwd=self.folder, stdout=log, stderr=log)
        self.addCleanup(job.wait)
        self.addCleanup(job.kill)
        return job, pathlib.Path(log.name)

    def test_a_second_run_in_the_folder_is_refused_until_the_first_has_ended(self):
        job, _ = self.start(federated__rounds=100000, ranks=2)
        wait_for((self.folder / "out" / "checkpoints").exists, 60, "the first finished round")
        ranks = children_of(job.pid)
        for pid in ranks:
            freeze(pid)  # it writes nothing more, and is still there
        in_use = ["out is in use by process", "choose another output.dir"]
        self.refuse(CONFIG, in_use, ranks=2)
        self.refuse(CONFIG, in_use, "--overwrite")
        self.refuse(CONFIG, in_use, ranks=2, resume="latest", federated__rounds=100000)
        self.succeed("train", "run.yaml", "--dry-run", *overrides(output__dir="other"))
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: is_gone(pid), 20, "the end of a rank")
        self.train("--overwrite")
        self.assertFalse((self.folder / "out" / "run.lock").exists())

    def test_a_run_that_came_and_went_while_this_one_loaded_is_noticed(self):
        write_ids(self.folder / "eval.jsonl", 4000, seed=2)
        late, log = self.start(resume="latest")
        wait_for(lambda: b"plan:" in log.read_bytes(), 60, "the plan")
        freeze(late.pid)  # it is evaluating the model and has locked nothing yet
        self.assertFalse((self.folder / "out").exists())
        self.train(resume="latest")
        before = snapshot(self.folder)
        os.kill(late.pid, signal.SIGCONT)
        self.assertEqual(late.wait(timeout=60), CONFIG, log.read_text())
        self.assertIn("another run changed output.dir out while this one started", log.read_text())
        self.assertEqual(snapshot(self.folder), before)


class WrongResume(ProgramTest):
    def resume(self, code, words, ranks=2, **values):
        self.refuse(code, words, ranks=ranks, resume="latest", **values)

    def test_another_run_is_refused_by_key_and_values(self):
        self.train(ranks=2)
        self.resume(CONFIG, "optimizer.lr was 0.001 and is 0.002 now", optimizer__lr=2e-3)
        self.resume(CONFIG, "seed was 7 and is 8 now", seed=8)
        self.resume(CONFIG, "federated.outer.momentum was 0.0 and is 0.5 now", federated__outer__momentum=0.5)
        self.resume(CONFIG, "was made by 2 ranks, this run has 1", ranks=1)
        self.resume(CONFIG, "federated.rounds is 1, but", federated__rounds=1)

    def test_damaged_parts_are_found_before_anything_is_changed(self):
        self.train(ranks=2, federated__optimizer_state="keep")
        newest = self.checkpoint(2)

        def damaged(path, content, words):
            whole = path.read_bytes()
            path.unlink() if content is None else path.write_bytes(content(whole))
            self.resume(INPUT, words, federated__rounds=3, federated__optimizer_state="keep")
            path.write_bytes(whole)

        damaged(newest / "caravan.json", lambda whole: whole[:50], "caravan.json: is not JSON")
        damaged(newest / "caravan.json", lambda whole: whole.replace(b'"round": 2', b'"round": -2'),
                "caravan.json: 'round'")
        damaged(newest / "consolidated.00.pth", lambda whole: whole[:100000], "damaged ZIP archive")
        damaged(newest / "params.json", None, "has weights but no params.json")
        damaged(newest.with_name(newest.name + ".state") / "adamw_slot1.safetensors", lambda whole: whole[:100],
                "adamw_slot1.safetensors")
        damaged(self.folder / "out" / "results.h5", lambda whole: whole[:3000], "results.h5: cannot open the file")
        damaged(self.folder / "out" / "results.h5", None, "results.h5: cannot be read")
        self.train(ranks=2, resume="latest", federated__rounds=3, federated__optimizer_state="keep")

    def test_an_older_copy_of_the_results_is_refused(self):
        self.train(ranks=2, federated__rounds=1)
        results = self.folder / "out" / "results.h5"
        older = results.read_bytes()
        self.train(ranks=2, resume="latest")
        results.write_bytes(older)
        self.resume(INPUT, ["out/results.h5 has 1 rounds and 2 steps", "it is an older file"], federated__rounds=3)

    def test_results_without_checkpoints_are_not_thrown_away(self):
        self.train(ranks=2)
        (self.folder / "out" / "checkpoints").rename(self.folder / "elsewhere")
        self.resume(CONFIG, "optimizer.lr was 0.001 and is 0.002 now", optimizer__lr=2e-3)
        self.resume(INPUT, "holds 2 finished rounds, but their checkpoints are gone from out/checkpoints")
        self.train("--overwrite", mode="synchronous")
        self.resume(CONFIG, "is a checkpoint of a synchronous run")

    def test_nothing_to_resume_starts_afresh(self):
        result = self.train(ranks=2, resume="latest")
        self.assertIn("resume: out holds no finished round; starting afresh", result.err)
        self.assertEqual([row[0] for row in self.history()], [0, 1, 2])


if __name__ == "__main__":
    unittest.main()
