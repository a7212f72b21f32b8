# One rank in one round is plain training: the same batches give the same bits of weights.
# TIMEOUT 120
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, tensors_of_pth, tensors_of_safetensors  # noqa: E402

BATCHES = 5  # 17 samples in batches of 4: the last one is not full


class FederatedEqualsPlain(ProgramTest):
    def weights(self, number, folder):
        checkpoint = self.checkpoint(number, folder)
        self.succeed("convert", "--in", checkpoint, "--out", f"{folder}.hf", "--to", "hf")
        return (tensors_of_pth(checkpoint / "consolidated.00.pth"),
                tensors_of_safetensors(self.folder / f"{folder}.hf" / "model.safetensors"))

    def test_one_round_of_one_rank_is_plain_training(self):
        for preset, dtype, shuffle, epochs, dropout in (("tiny", "float32", "false", 1, 0),
                                                        ("tiny-tied", "float64", "true", 2, 0.1)):
            with self.subTest(preset):
                same = dict(model__preset=preset, dtype=dtype, data__shuffle=shuffle, training__dropout=dropout)
                rounds, plain = f"{preset}-rounds", f"{preset}-plain"
                self.train(federated__rounds=1, federated__local_epochs=epochs, output__dir=rounds, **same)
                self.train(mode="synchronous", training__steps=epochs * BATCHES, output__dir=plain, **same)
                self.assertEqual([row[1:] for row in self.history(rounds)], [row[1:] for row in self.history(plain)])
                ours, theirs = self.weights(1, rounds), self.weights(epochs * BATCHES, plain)
                self.assertEqual(ours, theirs)
                self.assertGreaterEqual(len(ours[1]), 20)
                self.assertEqual({entry[0] for entry in ours[1].values()}, {"F32" if dtype == "float32" else "F64"})

    def test_micro_batches_and_clipping_are_those_of_plain_training(self):
        same = dict(data__shuffle="false", training__micro_batch=2, training__clip_norm=0.3)
        self.train(federated__rounds=1, output__dir="rounds", **same)
        self.train(mode="synchronous", training__steps=BATCHES, output__dir="plain", **same)
        accumulated = self.weights(1, "rounds")
        self.assertEqual(accumulated, self.weights(BATCHES, "plain"))
        for key, value in (("micro_batch", "null"), ("clip_norm", "null")):  # each of them matters to the bits
            self.train(federated__rounds=1, output__dir=key, **{**same, f"training__{key}": value})
            self.assertNotEqual(self.weights(1, key), accumulated, key)

    def test_a_second_round_starts_a_fresh_optimizer(self):
        self.train(federated__rounds=2, data__shuffle="false", output__dir="rounds")
        self.train(mode="synchronous", training__steps=BATCHES, data__shuffle="false", output__dir="first")
        self.train(mode="synchronous", training__steps=BATCHES, data__shuffle="false", output__dir="second",
                   model__preset="null", model__checkpoint=self.checkpoint(BATCHES, "first"))
        self.assertEqual(self.weights(2, "rounds"), self.weights(BATCHES, "second"))


if __name__ == "__main__":
    unittest.main()
