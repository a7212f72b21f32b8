# A results file as h5py sees it: names, kinds, lengths and values of results/README.md.
# LABELS python
import math
import os
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"SKIPPED: {missing}")
    sys.exit(77)

writer = os.path.join(os.path.dirname(os.environ["CARAVAN_BIN"]), "test_unit_io_results_file")
if not os.path.exists(writer):
    sys.exit(f"{writer} is not built; build the target test_unit_io_results_file")

ATTRIBUTES = {
    "world_size": 4, "lr": 1e-5, "enable_swapping": True, "rounds": 5, "local_epochs": 2, "dataset": "sums",
    "seed": 42, "mode": "federated", "dtype": "float32", "config": "mode: federated\nseed: 42  # größer\n",
    "commit": "0123abc", "versions": "caravan 0.1.0\nhdf5 1.10.8", "hosts": "node1,node2",
    "start_time": "2031-05-04T18:30:05Z", "end_time": "",
}
COLUMNS = {
    "history": {"round": "int64", "loss": "float64", "perplexity": "float64"},
    "steps": {"step": "int64", "loss": "float64", "lr": "float64", "grad_norm": "float64", "tokens": "int64",
              "seconds": "float64"},
}
ROWS = {"history": 6, "steps": 1500}


def check_attributes(file):
    assert set(file.attrs) == set(ATTRIBUTES), sorted(file.attrs)
    for name, value in ATTRIBUTES.items():
        found = file.attrs[name]
        assert found == value, (name, found, value)
        kind = {bool: np.bool_, int: np.int64, float: np.float64, str: str}[type(value)]
        assert isinstance(found, kind), (name, type(found))


def check_tables(file):
    assert set(file) == set(COLUMNS), list(file)
    for table, columns in COLUMNS.items():
        assert set(file[table]) == set(columns), list(file[table])
        for name, dtype in columns.items():
            column = file[table][name]
            assert column.dtype == dtype, (table, name, column.dtype)
            assert column.shape == (ROWS[table],), (table, name, column.shape)
            assert column.maxshape == (None,), (table, name, column.maxshape)
    assert file["history/round"][:].tolist() == list(range(6))
    assert file["history/loss"][2] == 1.0
    assert math.isclose(file["history/perplexity"][2], math.e, rel_tol=1e-15)
    assert file["steps/step"][:].tolist() == list(range(1, 1501))
    assert file["steps/tokens"][-1] == 2500
    assert np.array_equal(file["steps/seconds"][:], 0.25 * np.arange(1, 1501))


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "results.h5")
    done = subprocess.run([writer, "[sample]"], env={**os.environ, "CARAVAN_SAMPLE_FILE": path},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with h5py.File(path, "r") as file:
        check_attributes(file)
        check_tables(file)
    # A file that h5py has changed is still one that h5py reads.
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "looked at"
    with h5py.File(path, "r") as file:
        check_tables(file)
        assert file.attrs["note"] == "looked at"
print("h5py reads what Caravan writes")
