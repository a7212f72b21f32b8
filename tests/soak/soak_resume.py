#!/usr/bin/env python3
"""Kills synchronous runs at random moments and goes on with each on another random mesh, until each has come to its
end; compares what it left with the run of one rank that nobody disturbed: every step's loss and norm, every
evaluation, the final weights. In float64, where another order of sums shows in the last digits only. One run in four
stays on its mesh: it must have the bits of the undisturbed run on that mesh.

  CARAVAN_BIN=build/release/bin/caravan CARAVAN_SOURCE_DIR=. tests/soak/soak_resume.py --seconds 1200 --kills 100

Ends with the first loss of anything, else when both the seconds are over and the kills are made, and prints a summary.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import RUN, command, kill_ranks, overrides, results_columns, wait_for, write_ids  # noqa: E402

TOLERANCE = 1e-10  # of the largest value of a column or tensor; as in test_mesh_training, float64
STEPS = 400
LAYERS = 4  # stages need one each
SHAPE = dict(dim=64, n_layers=LAYERS, n_heads=8, n_kv_heads=2, vocab_size=256, multiple_of=32, norm_eps=1e-5,
             rope_theta=500000.0, use_scaled_rope=True, rope_scaling_factor=32.0)
# At 1e-3 the run learns its few rows by heart, and of 4 layers accumulation on one rank alone moves norms by 4e-10.
COMMON = dict(mode="synchronous", dtype="float64", model__preset="null", model__config="params.json",
              training__steps=STEPS, training__batch_size=12, training__eval_every=30, training__clip_norm=0.8,
              optimizer__lr=3e-4, optimizer__schedule__name="cosine", optimizer__schedule__warmup_steps=10,
              data__shuffle_buffer=16, output__name="run")
RECIPES = {
    "plain": {},
    "packed": dict(data__pack="true"),
    "dropout": dict(training__dropout=0.1),
    "tied, recomputed": dict(model__tie_embeddings="true", training__recompute="full"),
}


def random_layout(numbers, most_ranks):
    """(ranks, keys): the axes' sizes and what of training may differ between layouts."""
    while True:
        tp, cp, pp = numbers.choice((1, 1, 2, 4, 8)), numbers.choice((1, 1, 2)), numbers.choice((1, 1, 2, 4))
        replicate, shard = numbers.choice((1, 1, 2)), numbers.choice((1, 2, 3, 4))
        schedule = numbers.choice(("gpipe", "1f1b", "interleaved", "zero_bubble"))
        stages_per_rank = 2 if schedule == "interleaved" else 1
        ranks = tp * cp * replicate * shard * pp
        has_stages = stages_per_rank == 1 or 1 < pp <= LAYERS // stages_per_rank
        if ranks <= most_ranks and has_stages and 12 % (replicate * shard) == 0:
            break
    rows = 12 // (replicate * shard)
    return ranks, dict(parallel__tp=tp, parallel__cp=cp, parallel__pp=pp, parallel__dp_replicate=replicate,
                       parallel__dp_shard=shard, parallel__pipeline_schedule=schedule,
                       parallel__stages_per_rank=stages_per_rank,
                       parallel__zero_stage=numbers.choice((1, 2, 3)),
                       parallel__cpu_offload=numbers.choice(("none", "none", "optimizer")),
                       parallel__context=numbers.choice(("gather", "ring")),
                       parallel__sequence_parallel=numbers.choice(("true", "false")),
                       training__micro_batch=numbers.choice([n for n in range(1, rows + 1) if rows % n == 0]))


def name_of(layout):
    sizes = [(key.removeprefix("parallel__"), layout[key]) for key in layout if isinstance(layout[key], int)]
    return ", ".join(f"{key} {size}" for key, size in sizes if size > 1 and "_stage" not in key and "micro" not in key)


def weights(folder):
    """{storage: numbers} of the model that a run wrote at its end."""
    found = list((folder / "checkpoints").glob(f"run_ws*_round{STEPS}"))
    if len(found) != 1:
        raise AssertionError(f"{folder} holds the models {found}")
    with zipfile.ZipFile(found[0] / "consolidated.00.pth") as archive:
        names = sorted(name for name in archive.namelist() if "/data/" in name)
        return {name.split("/", 1)[1]: struct.unpack(f"<{len(data) // 8}d", data)
                for name in names for data in [archive.read(name)]}


def difference(ours, theirs, what, tolerance):
    """The largest one, of the largest value."""
    if len(ours) != len(theirs):
        raise AssertionError(f"{what}: {len(ours)} values where {len(theirs)} are expected")
    largest = max(map(abs, theirs))
    worst = max(abs(one - other) for one, other in zip(ours, theirs)) / largest
    if not worst <= tolerance:
        raise AssertionError(f"{what}: differs by {worst:.2e} of the largest value")
    return worst


def kill(job, ranks):
    if ranks == 1:
        job.kill()
        job.wait(timeout=20)
    else:
        kill_ranks(job, patience=3)


class Soak:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.numbers = random.Random(options.seed)
        self.begin = time.monotonic()
        self.counts = collections.Counter()
        self.meshes = collections.Counter()
        self.worst = 0.0
        write_ids(folder / "train.jsonl", 61, seed=options.seed)
        write_ids(folder / "eval.jsonl", 7, seed=options.seed + 1)
        (folder / "run.yaml").write_text(RUN)
        (folder / "params.json").write_text(json.dumps(SHAPE))
        self.references = {}

    def is_over(self):
        return (time.monotonic() - self.begin >= self.options.seconds and self.counts["kills"] >= self.options.kills)

    def start(self, output, values, ranks):
        log = open(self.folder / "log.txt", "w", encoding="utf-8")
        return subprocess.Popen(command("train", "run.yaml", *overrides(**values, output__dir=output), ranks=ranks),
                                cwd=self.folder, stdout=log, stderr=log)

    def log(self):
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def reference(self, recipe, mesh):
        """Results and weights of a run that nobody disturbs, on one rank where `mesh` is None."""
        key = f"{recipe} {mesh}"
        if key not in self.references:
            output = f"reference-{len(self.references)}"
            ranks, layout = mesh or (1, {})
            job = self.start(output, {**COMMON, **RECIPES[recipe], **layout}, ranks)
            if job.wait(timeout=300) != 0:
                raise AssertionError(self.log())
            self.references[key] = (results_columns(self.folder / output / "results.h5"),
                                    weights(self.folder / output))
        return self.references[key]

    def newest(self, output):
        found = (self.folder / output / "checkpoints").glob("step_????????/manifest.json")
        return max((int(path.parent.name[5:]) for path in found), default=None)

    def wait_for_moment(self, job, output):
        """Any time in the life of a start, or, in one of three, the middle of a write."""
        if self.numbers.randrange(3) == 0:
            checkpoints = self.folder / output / "checkpoints"
            wait_for(lambda: job.poll() is not None or any(checkpoints.glob("step_*.tmp-*")), 300, "a write")
            time.sleep(self.numbers.uniform(0.0, 0.01))
        else:
            end = time.monotonic() + self.numbers.uniform(0.1, self.options.life)
            while time.monotonic() < end and job.poll() is None:
                time.sleep(0.005)

    def check_start(self, newest):
        """The start that was just killed, or has ended, went on with what the one before it had finished."""
        text = self.log()
        resumed = re.search(r"resume: step (\d+) is finished", text)
        if resumed and int(resumed[1]) != newest:
            raise AssertionError(f"went on with step {resumed[1]}, but step {newest} was complete\n{text}")
        if "starting afresh" in text and newest is not None:
            raise AssertionError(f"started afresh, but step {newest} was complete\n{text}")
        self.counts["resumed starts"] += bool(resumed)
        self.counts["fresh starts"] += "starting afresh" in text

    def check_end(self, output, recipe, mesh):
        columns, final = self.reference(recipe, mesh)
        tolerance = 0.0 if mesh else TOLERANCE
        found = results_columns(self.folder / output / "results.h5")
        for name in ("/steps/step", "/steps/tokens", "/steps/lr", "/history/round"):
            if found[name] != columns[name]:
                raise AssertionError(f"{name}: {found[name]} where {columns[name]} is expected")
        for name in ("/steps/loss", "/steps/grad_norm", "/history/loss"):
            self.worst = max(self.worst, difference(found[name], columns[name], name, tolerance))
        ours = weights(self.folder / output)
        if ours.keys() != final.keys():
            raise AssertionError(f"tensors {sorted(ours)} where {sorted(final)} are expected")
        for name, values in final.items():
            self.worst = max(self.worst, difference(ours[name], values, f"weights {name}", tolerance))

    def soak_one(self, number):
        output, recipe = f"run-{number}", self.numbers.choice(sorted(RECIPES))
        stays = self.numbers.randrange(4) == 0
        mesh = random_layout(self.numbers, self.options.ranks) if stays else None
        self.reference(recipe, mesh)
        kills_left = self.numbers.randint(3, 9)
        while True:
            ranks, layout = mesh or random_layout(self.numbers, self.options.ranks)
            self.meshes[name_of(layout)] += 1
            newest = self.newest(output)
            job = self.start(output, {**COMMON, **RECIPES[recipe], **layout, "resume": "latest",
                                      "checkpoint__every": self.numbers.randint(1, 20),
                                      "checkpoint__keep": self.numbers.randint(1, 3),
                                      "checkpoint__async": self.numbers.choice(("true", "false"))}, ranks)
            if kills_left > 0:
                self.wait_for_moment(job, output)
            else:
                job.wait(timeout=600)
            if job.poll() is None:
                kill(job, ranks)
                self.counts["kills"] += 1
                kills_left -= 1
            elif job.returncode != 0:
                raise AssertionError(f"on {ranks} ranks, {layout}: exit code {job.returncode}\n{self.log()}")
            self.check_start(newest)
            if job.returncode == 0:
                break
            if (self.folder / output / "results.h5").exists():
                results_columns(self.folder / output / "results.h5")
        self.check_end(output, recipe, mesh)
        self.counts["ends with the bits of their mesh" if stays else "ends with the numbers of one rank"] += 1

    def run(self):
        number = 0
        while not self.is_over():
            number += 1
            self.soak_one(number)
            print(f"{time.monotonic() - self.begin:6.0f} s: {dict(self.counts)}, worst {self.worst:.1e}", flush=True)
        print(f"{len(self.meshes)} meshes; the largest difference from one rank: {self.worst:.2e} of the largest value")
        for mesh, count in self.meshes.most_common():
            print(f"  {count:4} starts on {mesh or 'one rank'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=8, help="at most so many at a time")
    parser.add_argument("--life", type=float, default=2.5, help="seconds after which a start is killed, at most")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="caravan-soak-") as folder:
        try:
            Soak(options, pathlib.Path(folder)).run()
        except AssertionError as loss:
            kept = pathlib.Path(tempfile.mkdtemp(prefix="caravan-soak-failed-"))
            subprocess.run(["cp", "-r", f"{folder}/.", kept], check=False)
            sys.exit(f"{loss}\nThe files are in {kept}.")


if __name__ == "__main__":
    main()
