# caravan bench through the program.
import os
import pathlib
import re
import sys
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest  # noqa: E402

CONFIG = 2
SMALL = ["bench", "tp-vs-ddp", "--steps", 3, "--batch", 8, "--hidden"]


class TpVsDdp(ProgramTest):
    def test_a_report_and_a_file_with_every_division(self):
        for workload, hidden, divisions in [("linear", 64, ["TP", "TP+SP", "DDP", "FSDP"]),
                                            ("block", 256, ["TP", "TP+SP", "DDP", "FSDP", "CP", "PP"])]:
            with self.subTest(workload):
                name = f"runs/{workload}.h5"
                self.succeed(*SMALL, hidden, "--workload", workload, "--seq-len", 8, "--output", name, ranks=2)
                report = (self.folder / "runs" / f"{workload}.md").read_text(encoding="utf-8")
                for division in divisions:
                    for ranks in (1, 2):
                        self.assertEqual(report.count(f"| {division} | {ranks} |"), 2, report)
                alone = [line.split("|", 2)[2] for line in report.splitlines()
                         if line.count("|") == 11 and line.split("|")[2] == " 1 "]
                self.assertEqual((len(alone), len(set(alone))), (len(divisions), 1), report)
                for division in ["CP", "PP"]:
                    self.assertEqual(f"| {division} |" in report, workload == "block")
                self.assertEqual("2 Llama blocks" in report, workload == "block")
                self.assertEqual((self.folder / name).read_bytes()[:4], b"\x89HDF")

    def test_fewer_blocks_than_ranks_leave_the_pipeline_out(self):
        result = self.succeed(*SMALL, 256, "--workload", "block", "--seq-len", 8, "--layers", 1, "--output", "x.h5", ranks=2)
        self.assertIn("PP on 2 ranks is left out: parallel.pp is 2: 2 stages, but the model has only 1 layer", result.err)
        report = (self.folder / "x.md").read_text(encoding="utf-8")
        self.assertEqual((report.count("| PP | 1 |"), report.count("| PP | 2 |")), (2, 0))
        self.assertEqual(report.count("| CP | 2 |"), 2)

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "two ranks cannot be bound to one core")
    def test_ranks_that_are_bound_to_a_core_each_have_the_cores_of_both(self):
        def hardware(binding):
            with unittest.mock.patch.dict(os.environ, {"OMPI_MCA_hwloc_base_binding_policy": binding}):
                self.succeed(*SMALL, 64, "--output", f"{binding}.h5", ranks=2)
            report = (self.folder / f"{binding}.md").read_text(encoding="utf-8")
            return re.search(r", (\d+ cores?); 3 steps each", report)[1], "| modelled |" in report

        self.assertEqual(hardware("hwthread"), hardware("none"))

    def test_what_cannot_be_measured(self):
        self.expect_failure(CONFIG, "--hidden 100: must be a multiple of 64", *SMALL, 100)
        self.expect_failure(CONFIG, "give a name that ends in .h5", *SMALL, 64, "--output", "x.txt")
        (self.folder / "x.md").write_text("a report")
        self.expect_failure(CONFIG, "--output x.md: exists already", *SMALL, 64, "--output", "x.h5", ranks=2)
        self.succeed(*SMALL, 64, "--output", "x.h5", "--overwrite")


if __name__ == "__main__":
    unittest.main()
