# The program reads both layouts of the reference models and finds the reference's loss before training.
# TIMEOUT 200
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import SHARED, ProgramTest  # noqa: E402

GOLDENS = SHARED / "goldens"
if not GOLDENS.is_dir():
    print(f"SKIPPED: no reference models at {GOLDENS}; set CARAVAN_SHARED")
    sys.exit(77)

NAMES = ("tiny-llama3", "tiny-llama3-tied")
TOLERANCE = 1e-9  # relative, float64 against float64


class Goldens(ProgramTest):
    def open_golden(self, name):
        """Writes the rows without their padding and returns the folder and its reference."""
        rows = json.loads((GOLDENS / name / "tokens.json").read_text())
        for part in ("train", "test"):
            with open(self.folder / f"{part}.jsonl", "w", encoding="ascii") as file:
                for row in rows[part]:
                    while row and row[-1] == rows["pad_id"]:
                        row.pop()
                    file.write(json.dumps({"ids": row}) + "\n")
        return GOLDENS / name, json.loads((GOLDENS / name / "reference.json").read_text())

    def close(self, found, expected):
        self.assertLessEqual(abs(found - expected), TOLERANCE * abs(expected), f"{found} for {expected}")

    def run_golden(self, folder, ranks=1, **values):
        self.train(ranks=ranks, model__preset="null", model__checkpoint=folder, dtype="float64",
                   data__train="train.jsonl", data__eval="test.jsonl", data__max_seq_len=48, data__shuffle="false",
                   **values)
        return self.history(values["output__dir"])

    def test_eval_of_either_layout_gives_the_reference_loss(self):
        for name in NAMES:
            folder, reference = self.open_golden(name)
            for layout in ("meta", "hf"):
                with self.subTest(name=name, layout=layout):
                    result = self.succeed("eval", "--checkpoint", folder / layout, "--data", "test.jsonl",
                                          "--max-seq-len", 48, "--dtype", "float64", "--json")
                    self.close(json.loads(result.out)["loss"], reference["adamw_20_steps"]["test_loss_before"])

    def test_twenty_steps_give_the_reference_loss(self):
        for name in NAMES:
            folder, reference = self.open_golden(name)
            golden = reference["adamw_20_steps"]
            history = self.run_golden(folder / "hf", mode="synchronous", output__dir=name, training__steps=20,
                                      training__batch_size=4, optimizer__lr=golden["lr"],
                                      optimizer__weight_decay=golden["weight_decay"])
            self.assertEqual([row[0] for row in history], [0, 20])
            self.close(history[0][1], golden["test_loss_before"])
            self.close(history[1][1], golden["test_loss_after"])

    def test_federated_rounds_on_two_ranks_give_the_reference_history(self):
        for name, swapping in zip(NAMES, ("true", "false")):
            folder, reference = self.open_golden(name)
            golden = reference["federated"]
            history = self.run_golden(folder / "meta", ranks=2, output__dir=name, optimizer__lr=golden["lr"],
                                      optimizer__weight_decay=golden["weight_decay"],
                                      federated__rounds=golden["rounds"],
                                      federated__local_epochs=golden["epochs"], federated__batch_size=golden["bs"],
                                      federated__enable_swapping=swapping)
            expected = golden["history"][f"world_size=2,swap={swapping}"]
            self.assertEqual(len(history), len(expected))
            for row, loss in zip(history, expected):
                self.close(row[1], loss)


if __name__ == "__main__":
    unittest.main()
