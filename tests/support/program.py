"""Drives the program in tests: runs commands, makes data and configurations of tiny runs, reads what is left."""
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import tempfile
import time
import unittest
import zipfile
from typing import NamedTuple

PROGRAM = os.environ["CARAVAN_BIN"]
SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
SHARED = pathlib.Path(os.environ.get("CARAVAN_SHARED", SOURCE.parent / "shared"))
CORPORA = SOURCE / "configs" / "quickstart" / "data"

RUN = """mode: federated
seed: 7
threads: 1
model: {preset: tiny}
data: {train: train.jsonl, eval: eval.jsonl, max_seq_len: 24}
optimizer: {lr: 1.0e-3}
federated: {rounds: 2, batch_size: 4}
training: {steps: 4, batch_size: 4}
output: {dir: out}
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    def messages(self):
        """What the program said about its failure: one line per message, whichever rank spoke."""
        return [line for line in self.err.splitlines() if line.startswith("caravan:")]


def command(*arguments, ranks=1, rank_env=()):
    """`rank_env`: in the place of `ranks`, what each rank has in its environment beside the rest."""
    program = [PROGRAM, *map(str, arguments)]
    if not rank_env:
        return program if ranks == 1 else ["mpirun", "--quiet", "-n", str(ranks), *program]
    words = ["mpirun", "--quiet"]
    for env in rank_env:
        exports = [word for name, value in env.items() for word in ("-x", f"{name}={value}")]
        words += ["-n", "1", *exports, *program, ":"]
    return words[:-1]


def overrides(**values):
    """optimizer__lr=1 as --set optimizer.lr=1."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def snapshot(folder):
    """Every path below `folder` with a digest of its content."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in sorted(folder.rglob("*"))}


def write_ids(path, rows, seed, vocab=256, lengths=(2, 24)):
    numbers = random.Random(seed)
    with open(path, "w", encoding="ascii") as file:
        for _ in range(rows):
            ids = [numbers.randrange(vocab // 4) for _ in range(numbers.randint(*lengths))]
            file.write(json.dumps({"ids": ids}) + "\n")


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not seen within {seconds} s")
        time.sleep(0.001)


def is_gone(pid):
    """Ended, though perhaps nobody has asked for its exit status yet."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def stands_still(pid):
    try:
        return all((thread / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
                   for thread in pathlib.Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
        return False


def freeze(pid):
    """Stops a process, all threads: one that is within a system call, a write to the disk, ends that first."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stands_still(pid), 20, f"that process {pid} stands still")


def children_of(pid):
    """The processes that `pid` started: of mpirun the ranks."""
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def kill_ranks(job, patience=20):
    """True when the launcher had to be killed too."""
    kill(children_of(job.pid))
    try:
        job.wait(timeout=patience)
        return False
    except subprocess.TimeoutExpired:
        # Open MPI's launcher can hang when its ranks die while they start up: as a user would, kill it as well.
        # Stopped first, it starts no rank in between.
        os.kill(job.pid, signal.SIGSTOP)
        ranks = children_of(job.pid)
        kill(ranks)
        job.kill()
        job.wait(timeout=20)
        for pid in ranks:
            wait_for(lambda pid=pid: is_gone(pid), 20, f"the end of rank with pid {pid}")
        return True


def tensors_of_pth(path):
    """The storages of a Meta checkpoint file as bytes, by their place in the archive."""
    with zipfile.ZipFile(path) as archive:
        return {re.sub(r"^[^/]*/", "", name): archive.read(name) for name in archive.namelist() if "/data/" in name}


def tensors_of_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"],
                   data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]])
            for name, entry in header.items()}


COLUMNS = {"/history/round": "q", "/history/loss": "d", "/history/perplexity": "d", "/steps/step": "q",
           "/steps/loss": "d", "/steps/lr": "d", "/steps/grad_norm": "d", "/steps/tokens": "q"}


def results_columns(path):
    """Every column of a results.h5 but the seconds, to the last bit; without h5py read by h5dump."""
    try:
        import h5py
        with h5py.File(path, "r") as file:
            return {name: file[name][:].tolist() for name in COLUMNS}
    except ImportError:
        pass
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in COLUMNS.items():
            raw = pathlib.Path(folder) / "column"
            raw.unlink(missing_ok=True)
            subprocess.run(["h5dump", "-d", name, "-b", "LE", "-o", raw, path], check=True, capture_output=True)
            data = raw.read_bytes() if raw.exists() else b""
            found[name] = list(struct.unpack(f"<{len(data) // 8}{kind}", data))
    return found


def state_of_training(folder):
    """{(tensor, region): checksum} of a training checkpoint: equal for equal bits in the same layout."""
    manifest = json.loads((pathlib.Path(folder) / "manifest.json").read_text())
    names = [tensor[0] for tensor in manifest["tensors"]]
    return {(names[piece[0]], str(piece[4])): piece[5] for piece in manifest["pieces"]}


class ProgramTest(unittest.TestCase):
    """A temporary folder per test with train.jsonl, eval.jsonl and run.yaml; the program runs in it."""

    maxDiff = None

    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="caravan-test-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        write_ids(self.folder / "train.jsonl", 17, seed=1)
        write_ids(self.folder / "eval.jsonl", 5, seed=2)
        (self.folder / "run.yaml").write_text(RUN)

    def caravan(self, *arguments, ranks=1, rank_env=(), timeout=120, env=None, text=None):
        done = subprocess.run(command(*arguments, ranks=ranks, rank_env=rank_env), cwd=self.folder, input=text, capture_output=True,
                              encoding="utf-8", timeout=timeout, env={**os.environ, **(env or {})})
        return Result(done.returncode, done.stdout, done.stderr)

    def succeed(self, *arguments, **options):
        result = self.caravan(*arguments, **options)
        self.assertEqual(result.code, 0, f"caravan {' '.join(map(str, arguments))}\n{result.err}")
        return result

    def train(self, *arguments, ranks=1, **values):
        return self.succeed("train", "run.yaml", *overrides(**values), *arguments, ranks=ranks)

    def expect_failure(self, code, words, *arguments, **options):
        """Ends with `code`, says one thing once, and leaves every file as it was."""
        before = snapshot(self.folder)
        result = self.caravan(*arguments, **options)
        what = f"caravan {' '.join(map(str, arguments))}\n{result.out}{result.err}"
        self.assertEqual(result.code, code, what)
        self.assertEqual(len(result.messages()), 1, what)
        for word in [words] if isinstance(words, str) else words:
            self.assertEqual(result.err.count(word), 1, f"'{word}' once in: {what}")
        self.assertEqual(snapshot(self.folder), before, what)
        return result

    def refuse(self, code, words, *arguments, ranks=1, **values):
        """A run that must not start."""
        return self.expect_failure(code, words, "train", "run.yaml", *overrides(**values), *arguments, ranks=ranks)

    def rounds_text(self, folder="out"):
        """The log of rounds: numbers in the shortest form that reads back to the same bits."""
        found = sorted((self.folder / folder).glob("eval_res_llama32_ws*_r*.txt"))
        self.assertEqual(len(found), 1, found)
        return found[0].read_text()

    def history(self, folder="out"):
        """[(round, loss, perplexity)] of the log of rounds."""
        words = [line.split() for line in self.rounds_text(folder).splitlines()]
        return [(int(line[1]), float(line[3]), float(line[5])) for line in words]

    def checkpoint(self, number, folder="out"):
        found = [path for path in (self.folder / folder / "checkpoints").glob(f"*_round{number}")]
        self.assertEqual(len(found), 1, found)
        return found[0]

    def tokenizer(self, name="tokenizer.json", vocab=300):
        """Trains a small tokenizer on one of the repository's corpora."""
        self.succeed("tokenizer", "train", CORPORA / "rhymes.train.txt", "--vocab-size", vocab, "--out", name)
        return self.folder / name


def corpus_lines(name, count):
    return (CORPORA / f"{name}.txt").read_text(encoding="utf-8").splitlines()[:count]
