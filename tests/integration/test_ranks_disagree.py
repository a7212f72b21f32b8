# Ranks that see different files under the same names, as on nodes with disks of their own: refused before anything
# is computed, and the file named.
# LABELS mpi
# TIMEOUT 180
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import PROGRAM, ProgramTest, overrides, snapshot  # noqa: E402

CONFIG = 2


class RanksDisagree(ProgramTest):
    def setUp(self):
        super().setUp()
        self.tokenizer()
        self.train(mode="synchronous", training__steps=1, model__vocab_size=300, output__dir="model")
        shutil.copytree(self.checkpoint(1, "model"), self.folder / "weights")
        shutil.rmtree(self.folder / "model")
        self.other = self.folder / "other"
        shutil.copytree(self.folder, self.other)

    def swap_lines(self, name):
        """As many samples of as many bytes, in another order."""
        lines = (self.other / name).read_text().splitlines()
        (self.other / name).write_text("\n".join(lines[::-1]) + "\n")

    def refuse(self, what, *arguments):
        rank = [PROGRAM, *map(str, arguments)]
        before = snapshot(self.folder)
        done = subprocess.run(["mpirun", "--quiet", "-n", "1", "-wdir", self.folder, *rank, ":", "-n", "1", "-wdir",
                               self.other, *rank], capture_output=True, encoding="utf-8", timeout=60, env=os.environ)
        self.assertEqual(done.returncode, CONFIG, done.stderr)
        self.assertEqual(done.stderr.count(f"caravan: rank 1 and rank 0 do not agree on the {what}; every rank must see "
                                           "the same files"), 1, done.stderr)
        self.assertEqual(snapshot(self.folder), before)

    def test_training_and_verifying(self):
        mesh = overrides(mode="synchronous", parallel__tp=2, tokenizer="tokenizer.json")
        for name, what in [("eval.jsonl", "held-out samples"), ("train.jsonl", "training samples")]:
            self.swap_lines(name)
            for command in ("train", "verify"):
                with self.subTest(f"{command}, {name}"):
                    self.refuse(what, command, "run.yaml", *mesh)

    def test_an_output_folder_of_each_nodes_own(self):
        shutil.rmtree(self.other / "out", ignore_errors=True)
        rank = [PROGRAM, "train", "run.yaml", *overrides(mode="synchronous", training__steps=1)]
        done = subprocess.run(["mpirun", "--quiet", "-n", "1", "-wdir", self.folder, *rank, ":", "-n", "1", "-wdir",
                               self.other, *rank], capture_output=True, encoding="utf-8", timeout=60, env=os.environ)
        self.assertEqual(done.returncode, CONFIG, done.stderr)
        self.assertRegex(done.stderr, r"caravan: rank 1: output.dir out on \S+ is not the folder that rank 0 writes to; all "
                                      "ranks write checkpoints into it: choose one on a file system that all nodes share")
        self.assertEqual(list((self.folder / "out").iterdir()), [])
        self.assertFalse((self.other / "out").exists())

    def test_another_tokenizer(self):
        with open(self.other / "tokenizer.json", "a", encoding="utf-8") as file:
            file.write("\n")
        self.refuse("tokenizer", "train", "run.yaml", *overrides(mode="synchronous", tokenizer="tokenizer.json"))
        self.refuse("tokenizer", "generate", "--checkpoint", "weights", "--tokenizer", "tokenizer.json", "--prompt", "a")

    def test_evaluating(self):
        self.swap_lines("eval.jsonl")
        self.refuse("samples", "eval", "--checkpoint", "weights", "--data", "eval.jsonl")


if __name__ == "__main__":
    unittest.main()
