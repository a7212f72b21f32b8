# caravan verify through the program: the table, the file, the exit code, and what it refuses.
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, overrides  # noqa: E402

CONFIG = 2
FAILURE = 1
MESH = dict(mode="synchronous", parallel__tp=2)


class Verify(ProgramTest):
    def verify(self, *arguments, ranks=2, **values):
        return self.succeed("verify", "run.yaml", *overrides(**{**MESH, **values}), *arguments, ranks=ranks)

    def test_a_sound_mesh_passes_and_leaves_a_table_and_a_file(self):
        for case, (ranks, values) in enumerate([
            (2, {}), (4, dict(dtype="float64", data__pack="true", parallel__zero_stage=2)), (1, dict(parallel__tp=1)),
            (4, dict(parallel__pp=2, parallel__pipeline_schedule="zero_bubble")),
        ]):
            with self.subTest(ranks=ranks, values=values):
                result = self.verify("--steps", 3, ranks=ranks, output__dir=f"out{case}", **values)
                for line in ["weights: all 21 tensors are each rank's exact part of the whole", "layers.*.attention.wq.weight",
                             "next tokens that agree: top 1 100.00 %", "result: the mesh computes the model of one rank"]:
                    self.assertIn(line, result.out)
                self.assertNotIn("DIFFERS", result.out)
                self.assertEqual((self.folder / f"out{case}" / "verify.h5").read_bytes()[:4], b"\x89HDF")

    def test_a_file_of_ones_own_choice(self):
        self.verify("--steps", 0, "--output", "proof.h5")
        self.assertTrue((self.folder / "proof.h5").exists())
        self.assertFalse((self.folder / "out").exists())

    def test_losses_that_part_end_with_an_error_and_the_file(self):
        # Steps this large are chaotic: rounding grows until the two curves part.
        result = self.caravan("verify", "run.yaml", "--steps", 40, *overrides(**MESH, optimizer__lr=3), ranks=2)
        self.assertEqual(result.code, FAILURE, result.out + result.err)
        self.assertEqual(len(result.messages()), 1, result.err)
        self.assertIn("of step", result.messages()[0])
        self.assertIn("differs from the one-rank model: relative difference", result.messages()[0])
        self.assertIn("DIFFERS", result.out)
        self.assertTrue((self.folder / "out" / "verify.h5").exists())


class Refused(ProgramTest):
    def refuse_verify(self, code, words, *arguments, ranks=2, **values):
        self.expect_failure(code, words, "verify", "run.yaml", *overrides(**{**MESH, **values}), *arguments, ranks=ranks)

    def test_what_cannot_be_compared(self):
        self.refuse_verify(CONFIG, "compares a mesh of mode: synchronous with one rank, but mode is federated",
                           mode="federated", parallel__tp=1)
        self.refuse_verify(CONFIG, "compares in float32, float64 and bfloat16, but dtype is float16", dtype="float16")
        self.refuse_verify(CONFIG, "which does not divide the model's 8 heads", parallel__tp=3, ranks=3)
        self.refuse_verify(CONFIG, "3 stages, but the model has only 2 layers", parallel__tp=1, parallel__pp=3, ranks=3)

    def test_a_model_too_large_for_one_rank(self):
        self.refuse_verify(FAILURE, "caravan verify holds the whole model a second time on rank 0: the ranks on",
                           model__preset="llama3.1-70b", dtype="float64")

    def test_files_that_cannot_be_written(self):
        (self.folder / "proof.h5").write_text("a file")
        self.refuse_verify(CONFIG, "proof.h5: exists already; give --output another name", "--output", "proof.h5")
        self.refuse_verify(CONFIG, "there is no folder none; create it first", "--output", "none/proof.h5")
        self.refuse_verify(CONFIG, "is a folder; give a file's name", "--output", ".", "--overwrite")
        self.refuse_verify(FAILURE, "run.yaml is not a folder", output__dir="run.yaml")
        self.succeed("verify", "run.yaml", *overrides(**MESH), "--steps", 0, "--output", "proof.h5", "--overwrite", ranks=2)
        self.assertNotEqual((self.folder / "proof.h5").read_bytes(), b"a file")


if __name__ == "__main__":
    unittest.main()
