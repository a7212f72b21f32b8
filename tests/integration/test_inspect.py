# `caravan inspect` tells in words what every kind of file holds that the program writes.
# LABELS mpi
# TIMEOUT 300
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, tensors_of_safetensors  # noqa: E402

INPUT = 1  # the exit code when a file is at fault


class Inspect(ProgramTest):
    def setUp(self):
        super().setUp()
        self.train("--set", "federated.enable_swapping=true", ranks=2)

    def inspect(self, path):
        return self.succeed("inspect", path).out

    def test_a_run_folder_shows_history_and_checkpoints(self):
        text = self.inspect("out")
        self.assertIn("\nCheckpoints\n  out/checkpoints/", text)
        self.assertEqual(text.count("  out/checkpoints/"), 2)
        for number, loss, _ in self.history():
            self.assertRegex(text, rf"\n +{number} +{str(loss)[:6]}")

    def test_a_checkpoint_shows_model_tensors_and_run(self):
        text = self.inspect(self.checkpoint(2))
        self.assertIn("checkpoint in Meta's layout", text)
        self.assertRegex(text, r"hidden_size +64\n")
        self.assertIn("is its own (untied)", text)
        self.assertRegex(text, r"layers\.1\.feed_forward\.w2\.weight +float32 +\[64, \d+\]\n")
        self.assertRegex(text, r"after round +2 of 2, 1 local epochs each\n")
        self.assertRegex(text, r"world size +2, swapping on\n")
        # Round 2 is even: every rank has moved to the other slot.
        self.assertRegex(text, r"rank 0 +slot 1\n +rank 1 +slot 0\n")
        self.assertIn("enable_swapping: true", text)

    def test_files_of_a_checkpoint_speak_for_themselves(self):
        folder = self.checkpoint(1)
        weights = self.inspect(folder / "consolidated.00.pth")
        self.assertIn("PyTorch file", weights)
        total = next(line for line in weights.splitlines() if " tensors, " in line)
        self.assertEqual(int(total.split()[0]), len(re.findall(r" float32 +\[", weights)))
        self.assertRegex(self.inspect(folder / "params.json"), r"model configuration\nmodel\n +vocab_size +256\n")
        self.assertRegex(self.inspect(folder / "caravan.json"), r"run\n +after round +1 of 2")
        log = next((self.folder / "out").glob("eval_res_*.txt"))
        self.assertEqual(self.inspect(log), self.rounds_text())

    def test_hugging_face_files_too(self):
        self.succeed("convert", "--in", self.checkpoint(2), "--out", "hf", "--to", "hf")
        text = self.inspect("hf")
        self.assertIn("checkpoint in Hugging Face's layout", text)
        self.assertRegex(self.inspect("hf/config.json"), r"heads +\d+ query, \d+ key/value, \d+ wide")
        listed = self.inspect("hf/model.safetensors")
        tensors = tensors_of_safetensors(self.folder / "hf/model.safetensors")
        for name, (_, shape, _) in tensors.items():
            self.assertRegex(listed, rf"{name} +float32 +\[{', '.join(map(str, shape))}\]\n")
        numbers = sum(len(data) for _, _, data in tensors.values()) // 4
        self.assertIn(f"{len(tensors)} tensors, {numbers} numbers, ", listed)

    def test_other_files_are_refused(self):
        self.expect_failure(INPUT, "not a kind of file known here", "inspect", "run.yaml")
        self.expect_failure(INPUT, "nowhere", "inspect", "nowhere.safetensors")


if __name__ == "__main__":
    unittest.main()
