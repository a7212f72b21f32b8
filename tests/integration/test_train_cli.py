# What a user meets before a run starts: the dry run, and every kind of bad input, told once and without a trace.
# LABELS mpi
# TIMEOUT 300
import json
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, overrides, snapshot, write_ids  # noqa: E402

CONFIG, INPUT = 2, 1  # exit codes: what the user wrote, what a file holds


class DryRun(ProgramTest):
    def plan(self, *arguments, **options):
        before = snapshot(self.folder)
        result = self.succeed("train", "run.yaml", *arguments, **options)
        self.assertEqual(snapshot(self.folder), before, "a dry run creates nothing")
        return result.out

    def test_prints_the_plan_of_another_number_of_ranks_on_one(self):
        wanted = overrides(federated__world_size=4)
        plan = self.plan("--dry-run", *wanted)
        self.assertIn("plan: federated on 4 ranks, float32", plan)
        self.assertRegex(plan, r"layers\.\*\.attention\.wq\.weight +\[64, 64\] +\[16, 64\]\n")
        self.assertRegex(plan, r"layers\.\*\.attention\.wk\.weight +\[32, 64\] +\[8, 64\]\n")
        self.assertRegex(plan, r"layers\.\*\.feed_forward\.w2\.weight +\[64, 160\] +\[64, 40\]\n")
        self.assertRegex(plan, r"tok_embeddings\.weight +\[256, 64\] +\[256, 64\]  \(copy\)\n")
        # Per layer: two norms, wq, wk, wv, wo, w1, w2, w3; then embedding, output, norm.
        whole = 2 * (2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64) + 2 * 256 * 64 + 64
        slice_ = 2 * (2 * 64 + (2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64) // 4) + 2 * 256 * 64 + 64
        self.assertIn(f"parameters: {whole} in the model, {slice_} per rank", plan)
        self.assertIn("memory of rank 0 (aggregator and trainer)", plan)
        self.assertIn("memory of every other rank", plan)
        by_environment = self.plan(*wanted, env={"DRY_RUN": "1"})
        self.assertEqual(by_environment, plan)

    def test_needs_no_more_than_the_data_files_names(self):
        (self.folder / "train.jsonl").write_text("not looked at\n")
        self.assertIn("plan: federated on 1 rank,", self.plan("--dry-run"))
        self.refuse(INPUT, "none.jsonl: there is no such data file", "--dry-run", data__train="none.jsonl")

    def test_zero_or_nothing_in_DRY_RUN_is_a_run(self):
        for value in ("", "0"):
            self.succeed("train", "run.yaml", *overrides(output__dir=f"run{value}", federated__rounds=0),
                         env={"DRY_RUN": value})
            self.assertTrue((self.folder / f"run{value}" / "results.h5").exists())

    def test_on_two_ranks_prints_once(self):
        plan = self.plan("--dry-run", ranks=2)
        self.assertEqual(plan.count("plan: federated on 2 ranks"), 1)

    def test_checks_what_a_run_would(self):
        self.refuse(CONFIG, "allowed numbers of ranks: 1, 2, 4", "--dry-run", federated__world_size=3)
        self.train()
        self.refuse(CONFIG, "already holds the results of a run", "--dry-run")


class WrongConfiguration(ProgramTest):
    def test_every_problem_is_reported_at_once_with_its_place(self):
        text = (self.folder / "run.yaml").read_text()
        text = text.replace("rounds: 2", "rounds: many, rouns: 3").replace("seed", "sed")
        (self.folder / "bad.yaml").write_text(text)
        result = self.expect_failure(
            CONFIG, ["has 3 problems", "bad.yaml:2:1: sed: unknown key; did you mean seed?",
                     "bad.yaml:7:21: federated.rounds: got many; expected a whole number",
                     "federated.rouns: unknown key; did you mean federated.rounds?"],
            "train", "bad.yaml", ranks=2)
        self.assertEqual(len(result.err.splitlines()), 4, result.err)

    def test_values_that_no_run_can_have(self):
        for words, values in [
            ("did you mean optimizer.lr?", {"optimizer__lrs": 1}),
            ("optimizer.lr: got .nan", {"optimizer__lr": ".nan"}),
            ("data.max_seq_len: is 1; it must be from 2", {"data__max_seq_len": 1}),
            ("data.pad_id: is -1", {"data__pad_id": -1}),
            ("data.pad_id is 256, outside the model's vocabulary of 256", {"data__pad_id": 256}),
            ("model.checkpoint and model.preset are given", {"model__checkpoint": "x"}),
            ("no weights", {"model__preset": "null"}),
            ("did you mean tiny?", {"model__preset": "tinny"}),
            ("comm.backend: is nccl, which carries tensors of GPUs, but device is cpu", {"comm__backend": "nccl", "device": "cpu"}),
            ("attention: is cudnn, which computes on GPUs, but device is cpu", {"attention": "cudnn", "device": "cpu"}),
            ("attention: is cudnn, which computes in 16 bits, but dtype is float32", {"attention": "cudnn"}),
            ("attention: is cudnn, which takes one document in a row", {"attention": "cudnn", "data__pack": "true"}),
            ("attention: is cudnn, which wants whole rows, but parallel.cp is 2",
             {"attention": "cudnn", "mode": "synchronous", "parallel__cp": 2}),
            ("attention: got flash; expected one of own, cudnn", {"attention": "flash"}),
            ("cuda_graphs: is always, but device is cpu, which has none", {"cuda_graphs": "always", "device": "cpu"}),
            ("cuda_graphs: is always, but comm.backend is mpi",
             {"cuda_graphs": "always", "comm__backend": "mpi", "mode": "synchronous"}),
            ("cuda_graphs: got on; expected one of auto, always, never", {"cuda_graphs": "on"}),
            ("dtype: is bfloat16, which GPUs compute in", {"dtype": "bfloat16", "device": "cpu"}),
            ("dtype: is float64, which CPUs compute in", {"dtype": "float64", "device": "cuda"}),
            ("data.eval: is missing", {"data__eval": "[]"}),
            ("data.train: is missing", {"data__train": "[]"}),
            ("federated.batch_size: is 1048576", {"federated__batch_size": 1048576, "data__max_seq_len": 4096}),
            ("resume: is out/x; in mode federated it is never or latest", {"resume": "out/x"}),
            ("run mpirun -n 4", {"federated__world_size": 4}),
            ("output.name: is 'a/b'", {"output__name": "a/b"}),
            ("output.dir: got null", {"output__dir": ""}),
        ]:
            with self.subTest(words):
                self.refuse(CONFIG, words, **values)

    def test_files_that_are_no_configuration(self):
        self.expect_failure(CONFIG, "none.yaml: cannot be read", "train", "none.yaml", ranks=2)
        self.expect_failure(CONFIG, "is a folder", "train", ".")
        self.expect_failure(CONFIG, "needs a configuration file", "train")
        (self.folder / "empty.yaml").write_text("")
        self.expect_failure(CONFIG, "has 3 problems", "train", "empty.yaml")

    def test_wrong_environment(self):
        for name, words in (("CARAVAN_PROGRESS", "CARAVAN_PROGRESS is 'x'"), ("LOG_RANK", "LOG_RANK: cannot read 'x'"),
                            ("CARAVAN_SYNC_KERNELS", "--sync-kernels / CARAVAN_SYNC_KERNELS: cannot read 'x'")):
            self.expect_failure(CONFIG, words, "train", "run.yaml", env={name: "x"})

    def test_numbers_of_ranks(self):
        self.refuse(CONFIG, "federated.world_size is 4, but 2 ranks were started: run mpirun -n 4", ranks=2,
                    federated__world_size=4)
        self.refuse(CONFIG, ["n_kv_heads = 4", "allowed numbers of ranks: 1, 2, 4"], ranks=3)
        self.refuse(CONFIG, "the product of the axes is 1, but 2 ranks were started", ranks=2, mode="synchronous",
                    parallel__dp_shard=1)
        write_ids(self.folder / "few.jsonl", 1, seed=3)
        self.refuse(CONFIG, "1 samples cannot be divided among 2 ranks", ranks=2, data__train="few.jsonl")


class WrongData(ProgramTest):
    def test_files_that_cannot_be_samples(self):
        (self.folder / "cut.jsonl").write_text('{"ids": [1, 2]}\n\n{"ids": [1,\n')
        (self.folder / "big.jsonl").write_text('{"ids": [255]}\n{"ids": [1, 256]}\n')
        (self.folder / "blank.jsonl").write_text("\n \n")
        (self.folder / "latin.txt").write_bytes("gr\u00fc\u00dfe".encode("latin-1"))
        (self.folder / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
        for words, name in [
            ("cut.jsonl:3: column 12: an id must be a whole number", "cut.jsonl"),
            ("big.jsonl:2: column 13: id 256 is out of range: ids must be below 256", "big.jsonl"),
            ("blank.jsonl: no samples", "blank.jsonl"),
            ("latin.txt:1: column 3: not valid UTF-8", "latin.txt"),
            ("cut.jsonl.gz", "cut.jsonl.gz"),
            ("none.jsonl: there is no such data file", "none.jsonl"),
            ("no file matches the pattern `none*.jsonl`", "none*.jsonl"),
            (".: is a folder; name its files", "."),
            ("/dev/null: is not a regular file", "/dev/null"),
        ]:
            with self.subTest(name):
                self.refuse(INPUT, words, data__train=name)
        self.refuse(INPUT, "cut.jsonl:3: column 12", ranks=2, data__eval="cut.jsonl")

    def test_everything_wrong_with_the_inputs_is_told_at_once(self):
        (self.folder / "cut.jsonl").write_text('{"ids": [1,\n')
        self.refuse(INPUT, ["inputs have 4 problems", "none.json: cannot be read", "none.yaml", "gone.jsonl", "gone*.txt"],
                    tokenizer="none.json", model__preset="null", model__config="none.yaml", data__train="gone.jsonl",
                    data__eval="gone*.txt")
        self.refuse(INPUT, ["inputs have 3 problems", "allowed numbers of ranks: 1, 2, 4", "no such data file",
                            "gone*.txt"], ranks=3, data__train="gone.jsonl", data__eval="gone*.txt")
        self.refuse(INPUT, ["inputs have 2 problems", "cut.jsonl:1: column 12", "gone.jsonl"], data__train="cut.jsonl",
                    data__eval="gone.jsonl")

    def test_text_needs_a_tokenizer(self):
        (self.folder / "text.txt").write_text("two plus two\n")
        (self.folder / "text.jsonl").write_text('{"ids": [1]}\n{"text": "two plus two"}\n')
        self.refuse(CONFIG, "text.txt:1: this sample is text, and no tokenizer is given", ranks=2,
                    data__train="text.txt")
        self.refuse(CONFIG, "text.jsonl:2: this sample is text, and no tokenizer is given", data__eval="text.jsonl")

    def test_the_tokenizer_fits_the_model(self):
        self.tokenizer()
        self.refuse(CONFIG, ["tokenizer.json has 300 tokens", "only 256"], tokenizer="tokenizer.json",
                    model__vocab_size=256)
        self.refuse(INPUT, "none.json: cannot be read", tokenizer="none.json")
        (self.folder / "broken.json").write_text("{")
        self.refuse(INPUT, "broken.json", tokenizer="broken.json")

    def test_ids_need_no_tokenizer_that_works(self):
        self.train(federated__rounds=1)
        source = self.checkpoint(1)
        (self.folder / "text.txt").write_text("two plus two\n")
        begins_nothing = json.loads(self.tokenizer("whole.json", vocab=256 + 40).read_text())
        begins_nothing["added_tokens"] = []
        for content, reason in (('{"model": {"type": "Unigram"}}', "must be ByteLevel"),
                                (json.dumps(begins_nothing), "no token begins a text")):
            (source / "tokenizer.json").write_text(content)
            wanted = dict(model__preset="null", model__checkpoint=source, federated__rounds=1, output__dir="out2")
            if content.count("added_tokens"):
                wanted.update(model__checkpoint="null", model__preset="tiny", tokenizer=source / "tokenizer.json")
            result = self.train("--overwrite", **wanted)
            self.assertEqual(len(re.findall(f"warning: the tokenizer cannot be used.*{reason}", result.err)), 1, result.err)
            self.assertEqual((self.checkpoint(1, "out2") / "tokenizer.json").read_text(), content)
            self.refuse(CONFIG, ["text.txt:1: this sample is text, and the tokenizer cannot be used", reason],
                        "--overwrite", **{**wanted, "data__eval": "text.txt"})
            self.succeed("eval", "--checkpoint", self.checkpoint(1, "out2"), "--data", "eval.jsonl")
            self.expect_failure(CONFIG, reason, "generate", "--checkpoint", self.checkpoint(1, "out2"), "--prompt", "a")
            self.succeed("generate", "--checkpoint", self.checkpoint(1, "out2"), "--ids", "1,2", "-n", 2)

    def test_samples_without_a_target_end_the_run(self):
        (self.folder / "short.jsonl").write_text('{"ids": [1]}\n{"ids": [2]}\n{"ids": []}\n')
        for mode in ("synchronous", "federated"):
            wanted = overrides(mode=mode, data__train="short.jsonl", output__dir=mode)
            result = self.caravan("train", "run.yaml", *wanted)
            self.assertEqual(result.code, INPUT, result.err)
            self.assertEqual(len(result.messages()), 1, result.err)
            self.assertIn("shorter than two tokens", result.messages()[0])


class WrongCheckpoint(ProgramTest):
    def refuse_checkpoint(self, code, words, name, **options):
        self.refuse(code, words, model__preset="null", model__checkpoint=name, **options)

    def test_folders_that_are_no_checkpoint(self):
        self.refuse_checkpoint(INPUT, "none: the checkpoint folder cannot be read", "none", ranks=2)
        (self.folder / "empty").mkdir()
        self.refuse_checkpoint(INPUT, "empty: is no checkpoint", "empty")

    def test_both_layouts_in_one_folder(self):
        self.train(federated__rounds=1)
        both = self.checkpoint(1)
        self.succeed("convert", "--in", both, "--out", "hf", "--to", "hf")
        for path in (self.folder / "hf").iterdir():
            path.rename(both / path.name)
        self.refuse_checkpoint(INPUT, "both", both, output__dir="out2")

    def test_damaged_weights(self):
        self.train(federated__rounds=1)
        folder = self.checkpoint(1)
        weights = folder / "consolidated.00.pth"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:100000])
        self.refuse_checkpoint(INPUT, "consolidated.00.pth: damaged ZIP archive", folder, output__dir="out2")
        weights.write_bytes(whole)
        params = folder / "params.json"
        params.write_text(params.read_text().replace("64", "32"))
        self.refuse_checkpoint(INPUT, "tok_embeddings.weight", folder, output__dir="out2")
        params.write_text("{")
        self.refuse_checkpoint(INPUT, "params.json", folder, output__dir="out2")


class Messages(ProgramTest):
    def test_a_rank_without_a_say_keeps_quiet(self):
        quiet = self.train(ranks=2)
        self.assertEqual(len(re.findall(r"^round 0: ", quiet.err, re.M)), 1, quiet.err)
        self.assertNotIn("[rank 1]", quiet.err)
        self.assertEqual(quiet.out, "")


if __name__ == "__main__":
    unittest.main()
