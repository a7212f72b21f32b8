# A short soak: synchronous runs killed at random and gone on with on other meshes lose nothing (tests/soak).
# LABELS mpi slow
# TIMEOUT 900
import os
import pathlib
import subprocess
import sys
import unittest

SOAK = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"]) / "tests" / "soak" / "soak_resume.py"


class Soak(unittest.TestCase):
    def test_killed_runs_come_to_the_end_of_the_undisturbed_one(self):
        seed = os.environ.get("CARAVAN_TEST_SEED", "")
        done = subprocess.run([sys.executable, SOAK, "--seconds", "0", "--kills", "8", *(["--seed", seed] if seed else [])],
                              capture_output=True, encoding="utf-8")
        print(done.stdout, file=sys.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"'kills': ([89]|[1-9][0-9])")


if __name__ == "__main__":
    unittest.main()
