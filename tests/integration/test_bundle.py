# LABELS slow
# TIMEOUT 600
# A bundle runs where Open MPI, HDF5 and yaml-cpp are hidden, alone and under its own mpirun.
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["CARAVAN_BIN"]).parent.parent
# Run with what they name hidden behind empty files and folders.
HIDE = """
set -e
for place in /usr/lib/x86_64-linux-gnu/openmpi /usr/lib/x86_64-linux-gnu/pmix2 /usr/share/openmpi /etc/openmpi; do
  [ ! -e "$place" ] || mount --bind "$1" "$place"
done
for file in /usr/lib/x86_64-linux-gnu/lib{yaml-cpp,mpi,open-pal,open-rte,hdf5_openmpi,fmt,spdlog}*.so* \
            /usr/bin/orted /usr/bin/orterun /usr/bin/mpirun.openmpi; do
  [ ! -f "$file" ] || mount --bind /dev/null "$file"
done
shift
! "$1" --version 2> /dev/null  # the program of the build does not start here
shift
cd "$1"
bundle=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
"$bundle/bin/caravan" train run.yaml --set output.dir=one
"$bundle/bin/mpirun" -n 2 "$bundle/bin/caravan" train run.yaml --set output.dir=two
"""


class Bundle(unittest.TestCase):
    def test_it_runs_without_the_libraries_it_brings(self):
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
            print("SKIPPED: hiding libraries needs root and mount namespaces")
            sys.exit(77)
        with tempfile.TemporaryDirectory(prefix="caravan-test-") as name:
            folder = pathlib.Path(name)
            made = subprocess.run([SOURCE / "scripts" / "bundle.sh", "--build", BUILD, "--output", folder / "bundle",
                                   "--without-benchmarks"],
                                  capture_output=True, encoding="utf-8", check=False)
            self.assertEqual(made.returncode, 0, made.stderr)
            self.assertLess((folder / "bundle.tar.xz").stat().st_size, 60e6, made.stdout)
            moved = folder / "elsewhere"
            (folder / "bundle").rename(moved)
            # gpu_check.sh finds in the bundle what it finds in the tree.
            checks = (moved / "scripts" / "gpu_check.sh").read_text()
            for name in {*re.findall(r"\$benchmarks/([\w.]+)", checks), "torch_llama.py"}:
                self.assertEqual((moved / "benchmarks/end_to_end" / name).read_bytes(),
                                 (SOURCE / "benchmarks/end_to_end" / name).read_bytes())
            (folder / "empty").mkdir()
            with open(folder / "data.jsonl", "w", encoding="ascii") as file:
                for row in range(8):
                    file.write('{"ids": [%s]}\n' % ", ".join(str((row + i) % 50) for i in range(12)))
            (folder / "run.yaml").write_text("mode: synchronous\ndevice: cpu\nmodel: {preset: tiny}\n"
                                             "data: {train: data.jsonl, eval: data.jsonl, max_seq_len: 13}\n"
                                             "training: {steps: 2, batch_size: 4}\n")
            (folder / "hide.sh").write_text(HIDE)
            kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
            done = subprocess.run(["unshare", "-m", "bash", folder / "hide.sh", folder / "empty",
                                   BUILD / "bin" / "caravan", folder, moved], capture_output=True, encoding="utf-8",
                                  env=kept, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            logs = [next((folder / run).glob("eval_res_*.txt")).read_text() for run in ("one", "two")]
            losses = [[float(line.split()[3]) for line in log.splitlines()] for log in logs]
            self.assertEqual(len(losses[0]), 2)
            for one, two in zip(*losses, strict=True):
                self.assertAlmostEqual(one / two, 1, delta=1e-5)


if __name__ == "__main__":
    unittest.main()
