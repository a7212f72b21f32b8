# Synchronous training on a mesh through the program: the same run on any mesh, and what a mesh cannot be.
# TIMEOUT 400
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, results_columns, tensors_of_pth  # noqa: E402

CONFIG = 2
PLAIN = dict(mode="synchronous", dtype="float64", training__steps="null", training__epochs=2, training__clip_norm=0.8)


class SameRun(ProgramTest):
    def close(self, history, expected):
        self.assertEqual([row[0] for row in history], [row[0] for row in expected])
        for row, wanted in zip(history, expected):
            self.assertAlmostEqual(row[1] / wanted[1], 1, delta=1e-10)

    def test_every_mesh_has_the_history_of_one_rank(self):
        # 17 samples in steps of 4: the last step of an epoch has one row, so some ranks have none.
        self.train(output__dir="one", **PLAIN)
        one = self.history("one")
        self.assertEqual([row[0] for row in one], [0, 10])
        for name, ranks, mesh in [
            ("fsdp", 2, {}),
            ("tp", 2, dict(parallel__tp=2)),
            ("cp", 2, dict(parallel__cp=2, parallel__context="ring", data__pack="false")),
            ("hsdp", 4, dict(parallel__dp_replicate=2, training__micro_batch=1)),
            ("tp_fsdp", 4, dict(parallel__tp=2, parallel__zero_stage=2, training__recompute="full")),
            # Rows of 4 in micro-batches of 2; the last step has one row and so one micro-batch.
            ("pp", 2, dict(parallel__pp=2)),
            ("pp_zero", 2, dict(parallel__pp=2, parallel__pipeline_schedule="zero_bubble", training__micro_batch=1)),
            ("pp_fsdp", 4, dict(parallel__pp=2, parallel__pipeline_schedule="gpipe", training__recompute="selective")),
            ("pp_tp", 4, dict(parallel__pp=2, parallel__tp=2)),
        ]:
            with self.subTest(name):
                self.train(ranks=ranks, output__dir=name, **PLAIN, **mesh)
                self.close(self.history(name), one)

    def test_epochs_are_counted_whatever_has_no_target(self):
        for rows, short, steps in [
            (6, 1, 9),  # steps of two rows: a short one always has another beside it
            (6, 2, None),  # two may meet, and then make no step
            (5, 1, None),  # one may be the last step's only row
            (5, 0, 9),
        ]:
            with self.subTest(f"{short} of {rows}"):
                lines = [json.dumps({"ids": [7] if row < short else [row + 1, 5, 9]}) for row in range(rows)]
                (self.folder / "few.jsonl").write_text("\n".join(lines) + "\n")
                self.train("--overwrite", data__train="few.jsonl", data__eval="null", training__batch_size=2,
                           **{**PLAIN, "training__epochs": 3})
                columns = results_columns(self.folder / "out" / "results.h5")
                if steps is None:  # three epochs have exactly so many tokens
                    self.assertEqual(sum(columns["/steps/tokens"]), 3 * 2 * (rows - short))
                else:
                    self.assertEqual(len(columns["/steps/step"]), steps)

    def test_with_dropout_too(self):
        for dropout in (0, 0.2):
            self.train(output__dir=f"one-{dropout}", training__dropout=dropout, **PLAIN)
        one = self.history("one-0.2")
        without = self.history("one-0")
        self.assertEqual(one[0], without[0])  # before the first step: evaluation has none
        self.assertNotEqual(one[1], without[1])
        for name, ranks, mesh in [
            ("tp_fsdp", 4, dict(parallel__tp=2, training__micro_batch=1)),
            ("pp_cp", 4, dict(parallel__pp=2, parallel__cp=2, parallel__pipeline_schedule="zero_bubble")),
        ]:
            with self.subTest(name):
                self.train(ranks=ranks, output__dir=name, training__dropout=0.2, **PLAIN, **mesh)
                self.close(self.history(name), one)

    def test_the_saved_model_is_the_whole_one(self):
        # One step from the same weights differs in the last bits only, so files are compared after none.
        same = dict(mode="synchronous", training__steps=1, optimizer__lr="1e-300", optimizer__weight_decay=0)
        self.train(output__dir="one", **same)
        self.train(ranks=4, output__dir="four", parallel__tp=2, **same)
        self.train(ranks=2, output__dir="stages", parallel__pp=2, **same)
        ours = tensors_of_pth(self.checkpoint(1, "four") / "consolidated.00.pth")
        theirs = tensors_of_pth(self.checkpoint(1, "one") / "consolidated.00.pth")
        self.assertGreaterEqual(len(ours), 20)
        self.assertEqual(ours, theirs)
        self.assertEqual(tensors_of_pth(self.checkpoint(1, "stages") / "consolidated.00.pth"), theirs)
        self.succeed("eval", "--checkpoint", self.checkpoint(1, "four"), "--data", "eval.jsonl")

    def test_the_plan_names_the_mesh(self):
        result = self.train("--dry-run", ranks=2, mode="synchronous", parallel__tp=2)
        self.assertIn("plan: synchronous on 2 ranks (tp 2)", result.out)
        self.assertIn("[128, 64]", result.out)  # half of the embedding's 256 rows
        stages = self.train("--dry-run", ranks=2, mode="synchronous", parallel__pp=2)
        self.assertIn("pipeline: 1f1b, 2 micro-batches; layers of the stages: 1 1", stages.out)
        self.assertIn("messages between stages", stages.out)
        self.assertNotIn("host memory", result.out)
        offloaded = self.train("--dry-run", ranks=2, mode="synchronous", parallel__cpu_offload="optimizer")
        device, host = offloaded.out.split("host memory of rank 0, the largest")
        self.assertIn("device memory of rank 0, the largest", device)
        self.assertNotIn("AdamW moments", device)
        self.assertIn("AdamW moments", host)
        alone = self.train("--dry-run", mode="synchronous", parallel__tp=2)
        self.assertEqual(alone.out.splitlines()[1:], result.out.splitlines()[1:])


class ImpossibleMeshes(ProgramTest):
    def refuse_mesh(self, words, ranks=2, **values):
        self.refuse(CONFIG, words, ranks=ranks, mode="synchronous", **values)

    def test_sizes(self):
        self.refuse_mesh("the product of the axes is 1, but 2 ranks were started", parallel__dp_shard=1)
        self.refuse_mesh("the given sizes make 3, which does not divide 2 ranks; start a multiple of it", parallel__tp=3)
        self.refuse_mesh("the given sizes make 4, which does not divide 2 ranks", parallel__tp=2, parallel__pp=2)
        self.refuse_mesh("the given sizes make 1048576 or more, which does not divide 2 ranks", parallel__tp=1048576,
                         parallel__pp=1048576)
        self.refuse_mesh("only one axis can take the rest", parallel__tp=-1)
        self.refuse_mesh("parallel.cp is 0", parallel__cp=0)
        self.refuse_mesh("parallel.zero_stage: is 4; it must be from 1 to 3", parallel__zero_stage=4)

    def test_models_and_batches(self):
        self.refuse_mesh(["parallel.tp is 3, which does not divide the model's 8 heads", "4 key/value heads",
                          "possible here: 1, 2, 4, 8"], ranks=3, parallel__tp=3)
        self.refuse_mesh("training.batch_size is 3, which dp_replicate · dp_shard = 2 does not divide; use 4",
                         training__batch_size=3)
        self.refuse_mesh("training.micro_batch is 4, which does not divide the 2 samples of a rank's step; use 2",
                         training__micro_batch=4)
        self.refuse_mesh("training.micro_batch is 3, which does not divide the 4 samples of a rank's step; use 2",
                         parallel__tp=2, training__micro_batch=3)

    def test_pipelines(self):
        self.refuse_mesh("parallel.pp is 3: 3 stages, but the model has only 2 layers; use at most 2 stages", ranks=3,
                         parallel__pp=3)
        self.refuse_mesh("parallel.pp is 2 and parallel.stages_per_rank 2: 4 stages, but the model has only 2 layers",
                         parallel__pp=2, parallel__stages_per_rank=2, parallel__pipeline_schedule="interleaved")
        self.refuse_mesh("parallel.stages_per_rank is 2, but parallel.pp is 1", parallel__stages_per_rank=2,
                         parallel__pipeline_schedule="interleaved")
        self.refuse_mesh("parallel.stages_per_rank: is 2, but the schedule 1f1b has one stage per rank",
                         parallel__pp=2, parallel__stages_per_rank=2)
        self.refuse_mesh("parallel.stages_per_rank: is 1, but the schedule interleaved", parallel__pp=2,
                         parallel__pipeline_schedule="interleaved")
        self.refuse_mesh("got 1f2b; expected one of gpipe, 1f1b, interleaved, zero_bubble", parallel__pp=2,
                         parallel__pipeline_schedule="1f2b")

    def test_graphs(self):
        self.refuse_mesh("(pp 2): cuda_graphs is always, which the stages of parallel.pp 2 cannot be; set cuda_graphs to auto",
                         parallel__pp=2, cuda_graphs="always")
        self.refuse_mesh("cuda_graphs is always, which the ring of parallel.cp 2 (parallel.context: ring) cannot be",
                         parallel__cp=2, parallel__context="ring", cuda_graphs="always")

    def test_offload(self):
        self.refuse_mesh("parallel.cpu_offload: is parameters_and_optimizer, but with parallel.zero_stage 1 whole weights "
                         "stay on the device", parallel__cpu_offload="parameters_and_optimizer", parallel__zero_stage=1)
        self.refuse_mesh("parallel.ddp_bucket_mib: is 0; it must be greater than 0", parallel__ddp_bucket_mib=0)

    def test_keys_that_contradict_each_other(self):
        self.refuse_mesh("training.epochs: is 1 and training.steps is 4; give one of them", training__epochs=1)
        self.refuse_mesh("training.batch_size_per_rank: is 2 and training.batch_size is 4; give one of them",
                         training__batch_size_per_rank=2)
        self.refuse(CONFIG, "is the mesh of mode: synchronous, but mode is federated", ranks=2, parallel__tp=2)


if __name__ == "__main__":
    unittest.main()
