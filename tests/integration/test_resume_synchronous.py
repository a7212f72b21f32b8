# Synchronous training saved and gone on with: on the same mesh bit for bit, on any other with the numbers of one rank;
# which runs may go on, and which checkpoints are passed over.
# LABELS mpi
# TIMEOUT 600
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import unittest
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import (ProgramTest, overrides, results_columns, snapshot, state_of_training,  # noqa: E402
                     tensors_of_pth, write_ids)

CONFIG, INPUT = 2, 1  # exit codes: what the user wrote, what a file holds
# The numbers of one rank, reached on another mesh with sums in another order: as in test_mesh_training.
FLOAT64_TOLERANCE = 1e-10

ONE_KV_HEAD = dict(dim=64, n_layers=2, n_heads=8, n_kv_heads=1, vocab_size=256, multiple_of=32)
DDP = dict(parallel__dp_replicate=2, parallel__dp_shard=1)


class Resume(ProgramTest):
    PLAIN = dict(mode="synchronous", training__steps=6, training__clip_norm=0.8, checkpoint__every=2,
                 checkpoint__keep=9, optimizer__schedule__name="cosine", optimizer__schedule__warmup_steps=2)

    def train(self, *arguments, ranks=1, **values):
        return super().train(*arguments, ranks=ranks, **{**self.PLAIN, **values})

    def refuse(self, code, words, *arguments, ranks=1, **values):
        return super().refuse(code, words, *arguments, ranks=ranks, **{**self.PLAIN, **values})

    def step(self, number, folder="out"):
        return self.folder / folder / "checkpoints" / f"step_{number:08}"

    def steps(self, folder="out"):
        return [int(path.name[5:]) for path in sorted((self.folder / folder / "checkpoints").glob("step_*"))]

    def weights(self, folder, number=6):
        return tensors_of_pth(self.checkpoint(number, folder) / "consolidated.00.pth")

    def columns(self, folder="out"):
        return results_columns(self.folder / folder / "results.h5")

    def close(self, ours, theirs, what):
        self.assertEqual(len(ours), len(theirs), what)
        largest = max(abs(value) for value in theirs)
        for one, other in zip(ours, theirs):
            self.assertAlmostEqual(one / largest, other / largest, delta=FLOAT64_TOLERANCE, msg=what)


class SameMesh(Resume):
    def check(self, name, ranks=1, **values):
        """Steps 5 and 6 taken from the checkpoint after step 4, in another folder."""
        whole, again = f"{name}-whole", f"{name}-again"
        values = {"training__eval_every": 3, **values}
        self.train(ranks=ranks, output__dir=whole, output__name="run", **values)
        self.assertEqual(self.steps(whole), [2, 4, 6])
        result = self.train(ranks=ranks, output__dir=again, output__name="run", resume=self.step(4, whole), **values)
        self.assertIn("resume: step 4 is finished", result.err)
        self.assertEqual(self.steps(again), [6])
        columns = self.columns(whole)
        self.assertEqual(columns["/steps/step"], [1, 2, 3, 4, 5, 6])
        self.assertEqual(columns["/history/round"], [0, 3, 6])
        self.assertEqual(self.columns(again), columns)
        self.assertEqual(self.rounds_text(again), self.rounds_text(whole))
        self.assertTrue(self.weights(whole))
        self.assertEqual(self.weights(again), self.weights(whole))
        state = state_of_training(self.step(6, whole))
        self.assertTrue(any(tensor.startswith("optimizer.exp_avg_sq.") for tensor, _ in state))
        self.assertEqual(state_of_training(self.step(6, again)), state)

    def test_bits_of_every_store_are_those_of_the_uninterrupted_run(self):
        (self.folder / "one_kv_head.json").write_text(json.dumps(ONE_KV_HEAD))
        for name, ranks, mesh in [
            ("one", 1, {}),
            ("ddp", 2, DDP),
            ("zero1", 2, dict(parallel__zero_stage=1, checkpoint__async="true")),
            ("zero2", 2, dict(parallel__zero_stage=2, training__micro_batch=1)),
            ("zero3", 2, dict(data__pack="true", training__recompute="full")),
            ("tp", 2, dict(parallel__tp=2, checkpoint__async="true")),
            ("cp", 2, dict(parallel__cp=2, dtype="float64")),
            ("hsdp", 4, dict(parallel__dp_replicate=2, data__shuffle_buffer=5)),
            ("tp_fsdp", 4, dict(parallel__tp=2, model__preset="tiny-tied")),
            ("pp", 2, dict(parallel__pp=2)),
            ("kv_copies", 4, dict(parallel__tp=2, model__preset="null", model__config="one_kv_head.json")),
            ("dropout", 1, dict(training__dropout=0.2, training__micro_batch=1)),
            ("dropout_tp", 2, dict(training__dropout=0.2, parallel__tp=2, training__recompute="full")),
            ("pp_fsdp", 4, dict(parallel__pp=2, model__preset="tiny-tied", parallel__pipeline_schedule="zero_bubble")),
        ]:
            with self.subTest(name):
                self.check(name, ranks, **mesh)

    def test_recomputing_may_change_and_changes_no_bit(self):
        self.train(output__dir="whole")
        self.train(output__dir="again", resume=self.step(4, "whole"), training__recompute="full", output__name="whole")
        self.assertEqual(self.columns("again"), self.columns("whole"))
        self.assertEqual(self.weights("again"), self.weights("whole"))

    def test_epochs_and_an_end_off_the_grid_of_evaluations(self):
        self.check("epochs", training__steps="null", training__epochs=2, training__eval_every=3,
                   training__batch_size=6)

    def test_the_memory_of_a_write_in_the_background_is_planned(self):
        plain, planned = (self.train("--dry-run", checkpoint__async=value).out for value in ("false", "true"))
        self.assertNotIn("checkpoint to be written", plain)
        self.assertIn("checkpoint to be written", planned)

    def test_more_steps_read_as_one_longer_run(self):
        self.train(output__dir="whole", training__eval_every=4, training__steps=8, optimizer__schedule__name="constant")
        short = dict(training__eval_every=4, optimizer__schedule__name="constant", output__name="whole")
        self.train(**short)  # its last evaluation, after step 6, has no place in a run of eight steps
        self.assertEqual(self.columns()["/history/round"], [0, 4, 6])
        self.train(resume="latest", **{**short, "training__steps": 8})
        self.assertEqual(self.columns(), self.columns("whole"))
        self.assertEqual(self.weights("out", 8), self.weights("whole", 8))

    def test_a_finished_run_is_only_written_again(self):
        self.train(training__eval_every=4)
        before = self.columns(), self.weights("out"), state_of_training(self.step(6))
        self.train(training__eval_every=4, resume="latest")
        self.assertEqual((self.columns(), self.weights("out"), state_of_training(self.step(6))), before)


class OtherMesh(Resume):
    PLAIN = {**Resume.PLAIN, "dtype": "float64", "training__batch_size": 12, "checkpoint__every": 3,
             "training__eval_every": 3, "output__name": "run"}
    MESHES = {
        "one": (1, {}),
        "ddp2": (2, DDP),
        "zero1x3": (3, dict(parallel__zero_stage=1)),
        "zero3x4": (4, dict(training__micro_batch=1)),
        "hsdp4": (4, dict(parallel__dp_replicate=2, parallel__zero_stage=2)),
        "tp8": (8, dict(parallel__tp=8)),
        "tp2cp2": (4, dict(parallel__tp=2, parallel__cp=2, parallel__sequence_parallel="false")),
        "tp2fsdp3": (6, dict(parallel__tp=2)),
        "pp2ddp2": (4, dict(parallel__pp=2, parallel__dp_replicate=2, parallel__dp_shard=1)),
        "pp2tp2fsdp2": (8, dict(parallel__pp=2, parallel__tp=2)),
        "pp2tp4": (8, dict(parallel__pp=2, parallel__tp=4, parallel__pipeline_schedule="zero_bubble")),
    }
    PAIRS = [("one", "zero3x4"), ("zero3x4", "one"), ("ddp2", "tp8"), ("tp8", "zero1x3"), ("zero1x3", "hsdp4"),
             ("hsdp4", "tp2cp2"), ("tp2cp2", "ddp2"), ("tp2fsdp3", "zero3x4"), ("zero3x4", "tp2fsdp3"),
             ("pp2ddp2", "tp2cp2"), ("zero3x4", "pp2ddp2"), ("pp2tp2fsdp2", "pp2tp4")]

    def setUp(self):
        super().setUp()
        write_ids(self.folder / "train.jsonl", 31, seed=1)  # three steps an epoch, the last one of seven rows

    def weights_as_numbers(self, folder):
        with zipfile.ZipFile(self.checkpoint(6, folder) / "consolidated.00.pth") as archive:
            data = b"".join(archive.read(name) for name in sorted(archive.namelist()) if "/data/" in name)
        return struct.unpack(f"<{len(data) // 8}d", data)

    def test_the_numbers_of_one_rank_whatever_wrote_and_whatever_reads(self):
        self.train(output__dir="whole")
        columns, weights = self.columns("whole"), self.weights_as_numbers("whole")
        for before in sorted({pair[0] for pair in self.PAIRS}):
            ranks, mesh = self.MESHES[before]
            self.train(ranks=ranks, output__dir=before, **mesh)
        for before, after in self.PAIRS:
            with self.subTest(f"{before} to {after}"):
                ranks, mesh = self.MESHES[after]
                folder = f"{before}-{after}"
                self.train(ranks=ranks, output__dir=folder, resume=self.step(3, before), **mesh)
                found = self.columns(folder)
                for name in ("/steps/step", "/steps/tokens", "/steps/lr", "/history/round"):
                    self.assertEqual(found[name], columns[name], name)
                for name in ("/steps/loss", "/steps/grad_norm", "/history/loss"):
                    self.close(found[name], columns[name], name)
                self.close(self.weights_as_numbers(folder), weights, "weights")

    def test_one_model_is_left_when_other_ranks_write_it_again(self):
        self.train(output__dir="whole")
        (self.folder / "whole" / "checkpoints" / "run_more_ws1_lr0.001_round6").mkdir()  # somebody else's
        ranks, mesh = self.MESHES["ddp2"]
        self.train(ranks=ranks, output__dir="whole", resume="latest", **mesh)
        models = sorted(path.name for path in (self.folder / "whole" / "checkpoints").glob("*_round*"))
        self.assertEqual(models, ["run_more_ws1_lr0.001_round6", "run_ws2_lr0.001_round6"])

    def test_every_rank_writes_its_part_and_every_element_once(self):
        for name in ("ddp2", "hsdp4", "tp8"):
            ranks, mesh = self.MESHES[name]
            self.train(ranks=ranks, output__dir=name, **mesh)
            files = json.loads((self.step(6, name) / "manifest.json").read_text())["files"]
            self.assertEqual(len(files), ranks, name)
            sizes = [entry[1] for entry in files]
            self.assertLess(max(sizes), 2 * sum(sizes) / len(sizes), name)


class SameRun(Resume):
    """What may change, and what may not."""

    def setUp(self):
        super().setUp()
        self.train(checkpoint__keep=2)

    def refuse_key(self, words, ranks=1, code=CONFIG, **values):
        self.refuse(code, words, ranks=ranks, resume="latest", **values)

    def test_old_checkpoints_go(self):
        self.assertEqual(self.steps(), [4, 6])

    def test_keys_that_make_another_run(self):
        write_ids(self.folder / "other.jsonl", 17, seed=5)
        for key, values in [
            ("seed was 7 and is 8 now", dict(seed=8)),
            ("dtype was float32 and is float64 now", dict(dtype="float64")),
            ("model.preset was tiny and is tiny-tied now", dict(model__preset="tiny-tied")),
            ("data.train was [train.jsonl] and is [other.jsonl] now", dict(data__train="other.jsonl")),
            ("data.max_seq_len was 24 and is 20 now", dict(data__max_seq_len=20)),
            ("training.batch_size was 4 and is 2 now", dict(training__batch_size=2)),
        ]:
            with self.subTest(key):
                self.refuse_key(["resume: this is not the run of out/checkpoints/step_00000006: " + key,
                                 "put the old value back"], **values)
        self.refuse_key("is a checkpoint of a synchronous run; choose another output.dir", mode="federated")

    def test_samples_per_rank_are_compared_as_samples_of_a_step(self):
        per_rank = dict(training__batch_size="null", training__batch_size_per_rank=2)
        self.refuse_key("training.batch_size was 4 and is 2 now", **per_rank)
        self.train(ranks=2, resume="latest", **per_rank)

    def test_fewer_steps_than_are_finished(self):
        self.refuse_key("the run is to have 5 steps, but out/checkpoints/step_00000006 has finished 6",
                        training__steps=5, optimizer__schedule__warmup_steps=0)
        self.refuse_key("the run is to have 5 steps, but out/checkpoints/step_00000006 has finished 6", ranks=2,
                        training__steps="null", training__epochs=1)

    def test_values_that_may_change_are_said(self):
        result = self.train(resume="latest", optimizer__lr=2e-3, training__steps=8, checkpoint__every=5)
        self.assertIn("resume: optimizer.lr was 0.001 and is 0.002 now", result.err)
        self.assertEqual(self.steps(), [4, 6, 8])
        self.assertEqual(self.columns()["/steps/step"], list(range(1, 9)))

    def test_data_that_have_changed(self):
        original = (self.folder / "eval.jsonl").read_text()
        (self.folder / "eval.jsonl").write_text("".join(sorted(original.splitlines(True))))
        self.refuse_key("data.eval had samples with the checksum", code=INPUT, training__steps=8)
        (self.folder / "eval.jsonl").write_text(original)
        with open(self.folder / "train.jsonl", "a", encoding="ascii") as file:
            file.write('{"ids": [1, 2, 3]}\n')
        self.refuse_key("data.train had 17 samples of", code=INPUT, training__steps=8)

    def test_results_that_are_older_or_gone(self):
        results = self.folder / "out" / "results.h5"
        newest = results.read_bytes()
        self.train(output__dir="short", training__steps=2, optimizer__schedule__warmup_steps=0)
        shutil.copy(self.folder / "short" / "results.h5", results)
        self.refuse_key(["out/results.h5 has 2 evaluations and 2 steps, fewer than", "it is an older file"], code=INPUT)
        results.write_bytes(newest)
        shutil.rmtree(self.folder / "out" / "checkpoints")
        self.refuse_key("out/results.h5 holds 6 finished steps, but their checkpoints are gone from out/checkpoints",
                        code=INPUT)

    def test_a_checkpoint_by_its_path(self):
        later = state_of_training(self.step(6))
        columns = self.columns()
        self.refuse(CONFIG, f"--overwrite and resume: {self.step(4)} contradict each other", "--overwrite",
                    resume=self.step(4))
        result = self.train(resume="out/checkpoints/step_00000004/", training__steps=6)
        self.assertIn("step_00000006 is removed, it lies behind step 4", result.err)
        self.assertEqual(state_of_training(self.step(6)), later)
        self.assertEqual(self.columns(), columns)

    def test_paths_that_are_no_checkpoint(self):
        self.refuse(INPUT, ["out: is no training checkpoint, a folder like checkpoints/step_00000100",
                            "the newest below it is out/checkpoints/step_00000006"], resume="out", output__dir="new")
        self.refuse(INPUT, "nowhere: is no training checkpoint", resume="nowhere", output__dir="new", ranks=2)
        (self.folder / "out2").mkdir()
        shutil.move(self.folder / "out", self.folder / "out2" / "inner")
        self.refuse(CONFIG, "which --overwrite empties", "--overwrite", output__dir="out2",
                    resume="out2/inner/checkpoints/step_00000004")

    def test_a_checkpoint_without_its_results(self):
        shutil.copytree(self.step(4), self.folder / "moved" / "here" / "step_00000004")
        result = self.train(resume="moved/here/step_00000004", output__dir="new")
        self.assertIn("new/results.h5 will begin with step 5", result.err)
        self.assertEqual(self.columns("new")["/steps/step"], [5, 6])

    def test_another_model_in_the_same_file(self):
        shape = dict(dim=64, n_layers=1, n_heads=8, n_kv_heads=4, vocab_size=256, multiple_of=32)
        (self.folder / "shape.json").write_text(json.dumps(shape))
        own = dict(model__preset="null", model__config="shape.json", output__dir="own")
        self.train(**own)
        (self.folder / "shape.json").write_text(json.dumps({**shape, "n_layers": 2}))
        self.refuse_key(["layers.1.attention_norm.weight is missing there and float32 [64] in the model"], code=INPUT,
                        **own)
        (self.folder / "shape.json").write_text(json.dumps({**shape, "n_kv_heads": 8}))
        self.refuse_key("it is the state of another model", code=INPUT, **own)


class Damage(Resume):
    def setUp(self):
        super().setUp()
        self.train(ranks=2, output__dir="whole", output__name="run")
        shutil.copytree(self.folder / "whole", self.folder / "out")

    def flip(self, path, place=-1):
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

    def go_on(self, words):
        """latest takes the checkpoint after step 4, says why, and comes to the same end; step 6 by name is refused."""
        self.refuse(INPUT, words, ranks=2, resume=self.step(6), output__name="run")
        before = snapshot(self.step(6))
        result = self.train(ranks=2, resume="latest", output__name="run")
        self.assertRegex(result.err, "warning: checkpoint: out/checkpoints/step_00000006 is not used: ")
        for word in words:
            self.assertIn(word, result.err)
        self.assertIn("resume: step 4 is finished", result.err)
        self.assertEqual(self.columns(), self.columns("whole"))
        self.assertEqual(self.weights("out"), self.weights("whole"))
        self.assertEqual(state_of_training(self.step(6)), state_of_training(self.step(6, "whole")))
        # Nothing is lost: another start, or a person, may be able to read what this one could not.
        self.assertIn("step_00000006 is kept as out/checkpoints/step_00000006.refused", result.err)
        self.assertEqual(snapshot(self.step(6).with_suffix(".refused")), before)

    def test_a_flipped_bit(self):
        self.flip(self.step(6) / "shard_00001.safetensors")
        # The last byte belongs to the last piece.
        self.go_on(["step_00000006/shard_00001.safetensors: bytes ",
                    " of tensor 'optimizer.exp_avg_sq.output.weight') are damaged: their checksum is "])

    def test_a_file_cut_short(self):
        path = self.step(6) / "shard_00000.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
        self.go_on(["shard_00000.safetensors"])

    def test_a_shard_of_another_step(self):
        shutil.copy(self.step(4) / "shard_00000.safetensors", self.step(6))
        self.go_on(["shard_00000.safetensors"])

    def test_a_damaged_manifest(self):
        self.flip(self.step(6) / "manifest.json", -20)
        self.go_on(["manifest.json"])

    def test_none_is_intact(self):
        for number in (2, 4, 6):
            (self.step(number) / "shard_00001.safetensors").unlink()
        before = snapshot(self.folder / "out")
        self.refuse(INPUT, ["none of the 3 checkpoints in out/checkpoints can be used"], ranks=2, resume="latest",
                    output__name="run")
        self.assertEqual(snapshot(self.folder / "out"), before)


class FreshStart(Resume):
    def test_latest_without_a_checkpoint_says_so(self):
        result = self.train(resume="latest")
        self.assertIn("resume: out holds no complete checkpoint; starting afresh", result.err)
        self.assertEqual(self.columns()["/steps/step"], [1, 2, 3, 4, 5, 6])

    def test_remains_of_other_runs_are_not_overwritten(self):
        self.train(mode="federated", federated__rounds=1)
        self.refuse(CONFIG, "this is not the run of out/results.h5: mode was federated and is synchronous now",
                    resume="latest")


class FullDisk(Resume):
    def test_one_message_and_the_earlier_checkpoints_stay(self):
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2400k", "none", disk], capture_output=True).returncode:
            self.skipTest("no right to mount a small tmpfs")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        for is_async in ("false", "true"):
            result = self.caravan("train", "run.yaml", *overrides(**{**self.PLAIN, "output__dir": f"disk/{is_async}",
                                                                     "checkpoint__async": is_async}), ranks=2)
            self.assertEqual(result.code, INPUT, result.err)
            self.assertEqual(len(result.messages()), 1, result.err)
            self.assertIn("No space left on device", result.messages()[0])
            self.assertEqual(self.steps(f"disk/{is_async}"), [2])
            self.assertIn("all checksums are right",
                          self.succeed("inspect", f"disk/{is_async}/checkpoints/step_00000002").out)
            shutil.rmtree(disk / is_async)


class Model(Resume):
    def test_the_model_in_a_checkpoint_is_one_like_any_other(self):
        self.train(ranks=2, training__eval_every=4)
        whole, state = (json.loads(self.succeed("eval", "--checkpoint", folder, "--data", "eval.jsonl", "--json").out)
                        for folder in (self.checkpoint(6), self.step(6)))
        self.assertEqual(state, whole)
        self.assertEqual(self.succeed("generate", "--checkpoint", self.step(6), "--ids", "1,2,3", "-n", 4).out,
                         self.succeed("generate", "--checkpoint", self.checkpoint(6), "--ids", "1,2,3", "-n", 4).out)
        self.succeed("convert", "--in", self.step(6), "--out", "meta", "--to", "meta")
        self.assertEqual(tensors_of_pth(self.folder / "meta" / "consolidated.00.pth"), self.weights("out"))
        self.train(ranks=2, output__dir="next", model__preset="null", model__checkpoint=self.step(6))
        self.assertEqual(self.columns("next")["/history/loss"][0], self.columns()["/history/loss"][-1])

    def test_inspect_tells_what_it_is(self):
        self.train(ranks=2, parallel__tp=2)
        text = self.succeed("inspect", self.step(4)).out
        for words in ("training checkpoint after step 4", "written by         2 ranks, tp 2", "samples consumed   16",
                      "data.train         17 samples of", "optimizer.exp_avg.norm.weight", "n_layers           2",
                      "all checksums are right"):
            self.assertIn(words, text)


if __name__ == "__main__":
    unittest.main()
