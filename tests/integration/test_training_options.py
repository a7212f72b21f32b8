# training.recompute, training.dropout and optimizer.schedule through the program: plan, both modes, refusals.
# TIMEOUT 180
import os
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, overrides, tensors_of_pth  # noqa: E402

try:
    import h5py
except ImportError:
    h5py = None

CONFIG = 2  # exit code: what the user wrote
MODES = ("federated", "synchronous")
STEPS = 5  # of 17 samples in batches of 4: one epoch


class TrainingOptions(ProgramTest):
    def weights(self, folder, number):
        return tensors_of_pth(self.checkpoint(number, folder) / "consolidated.00.pth")


class KeysOfTheOtherMode(TrainingOptions):
    def test_one_warning_lists_those_that_are_set(self):
        used = dict(training__steps="null", training__batch_size="null", federated__rounds=5)
        for mode, words in (("federated", "training.batch_size (64), checkpoint.every (10)"),
                            ("synchronous", "federated.rounds (1)")):
            with self.subTest(mode):
                values = {**used, "training__batch_size": 64, "checkpoint__every": 10, "federated__rounds": 1}
                said = self.train("--dry-run", mode=mode, ranks=2, **values).err
                lines = [line for line in said.splitlines() if "does not use" in line]
                self.assertEqual(len(lines), 1, said)
                self.assertTrue(lines[0].endswith(f"mode: {mode} does not use {words}"), said)
                self.assertNotIn("does not use", self.train("--dry-run", mode=mode, **used).err)


class ThreadsKey(TrainingOptions):
    def threads(self, wanted, environment="", ranks=1):
        folder = f"{wanted}-{environment}-{ranks}-{len(os.sched_getaffinity(0))}"
        values = overrides(threads=wanted, federated__rounds=1, output__dir=folder)
        result = self.succeed("train", "run.yaml", *values, ranks=ranks, env={"OPENBLAS_NUM_THREADS": environment})
        return int(re.search(r", (\d+) threads? per rank", result.out + result.err)[1])

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one core")
    def test_without_it_the_ranks_share_the_cores_they_may_use(self):
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, sorted(before)[:2])
        self.assertEqual([self.threads("null", ranks=ranks) for ranks in (1, 2, 4)], [2, 1, 1])
        os.sched_setaffinity(0, sorted(before)[:1])
        self.assertEqual(self.threads("null"), 1)

    def test_it_wins_over_the_environment_and_that_over_the_cores(self):
        self.assertEqual(self.threads("null", "3"), 3)
        self.assertEqual(self.threads(2, "3"), 2)


class RecomputeKey(TrainingOptions):
    def test_changes_no_bit(self):
        for mode in MODES:
            found = {}
            for recompute in ("none", "selective", "full"):
                folder = f"{mode}-{recompute}"
                self.train(mode=mode, training__recompute=recompute, federated__rounds=1, output__dir=folder)
                found[recompute] = (self.history(folder) if mode == "federated" else None,
                                    self.weights(folder, 1 if mode == "federated" else 4))
            self.assertEqual(found["selective"], found["none"], mode)
            self.assertEqual(found["full"], found["none"], mode)

    def test_the_plan_shows_what_it_saves(self):
        for mode in MODES:
            activations = {}
            for recompute in ("none", "selective", "full"):
                plan = self.train("--dry-run", mode=mode, training__recompute=recompute).out
                self.assertIn(f"recomputed in backward: {recompute}\n", plan)
                value, unit = re.search(r"activations +([0-9.]+) (\w+)", plan).groups()
                activations[recompute] = float(value) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
            self.assertLess(activations["selective"], 0.8 * activations["none"], mode)
            self.assertLess(activations["full"], 0.5 * activations["selective"], mode)


class DropoutKey(TrainingOptions):
    def test_the_plan_shows_it_where_there_is_some(self):
        for mode in MODES:
            plan = self.train("--dry-run", mode=mode, training__dropout=0.1).out
            self.assertIn("dropout: 0.1 of what each attention and MLP adds\n", plan)
            without = self.train("--dry-run", mode=mode, training__dropout=0).out
            self.assertNotIn("dropout", without)
            self.assertEqual(without, self.train("--dry-run", mode=mode).out)

    def test_what_no_run_can_have(self):
        for value, words in [("1", "training.dropout: is 1; it must be at least 0 and less than 1"),
                             ("-0.1", "training.dropout: is -0.1; it must be at least 0 and less than 1"),
                             (".nan", "training.dropout: got .nan; expected a number at least 0 and less than 1"),
                             ("most", "training.dropout: got most; expected a number")]:
            for mode in MODES:
                with self.subTest(f"{value}, {mode}"):
                    self.refuse(CONFIG, words, mode=mode, training__dropout=value)

    def test_zero_changes_no_bit_and_more_does(self):
        for mode in MODES:
            found = {}
            for name, values in [("absent", {}), ("zero", dict(training__dropout=0.0)),
                                 ("some", dict(training__dropout=0.1))]:
                folder = f"{mode}-{name}"
                self.train(mode=mode, federated__rounds=1, output__dir=folder, **values)
                found[name] = self.weights(folder, 1 if mode == "federated" else 4)
            self.assertEqual(found["zero"], found["absent"], mode)
            self.assertNotEqual(found["some"], found["absent"], mode)


class ScheduleKeys(TrainingOptions):
    WARM_COSINE = dict(optimizer__schedule__name="cosine", optimizer__schedule__warmup_steps=2,
                       optimizer__schedule__final_factor=0.1)

    def test_both_modes_follow_the_same_schedule(self):
        self.train(federated__rounds=1, output__dir="rounds", **self.WARM_COSINE)
        self.train(mode="synchronous", training__steps=STEPS, output__dir="plain", **self.WARM_COSINE)
        self.train(mode="synchronous", training__steps=STEPS, output__dir="constant")
        self.assertEqual(self.weights("rounds", 1), self.weights("plain", STEPS))
        self.assertNotEqual(self.weights("constant", STEPS), self.weights("plain", STEPS))

    @unittest.skipIf(h5py is None, "no h5py")
    def test_the_rates_are_in_the_results(self):
        # lr 1e-3: half, whole, then 0.1 + 0.9 (1 + cos πp)/2 with p = 0, 1/3, 2/3.
        expected = [0.5e-3, 1e-3, 1e-3, 0.775e-3, 0.325e-3]
        for mode in MODES:
            self.train(mode=mode, federated__rounds=1, training__steps=STEPS, output__dir=mode, **self.WARM_COSINE)
            with h5py.File(self.folder / mode / "results.h5") as file:
                found = file["steps/lr"][:].tolist()
            self.assertEqual(len(found), STEPS)
            for rate, wanted in zip(found, expected):
                self.assertAlmostEqual(rate, wanted, delta=1e-15 * wanted + 1e-18)

    def test_the_plan_names_it(self):
        self.assertIn("learning rate: 0.001, cosine after 2 warm-up steps, down to 0.0001\n",
                      self.train("--dry-run", **self.WARM_COSINE).out)

    def test_what_no_run_can_follow(self):
        for words, values in [
            ("optimizer.schedule.name: got cosin; expected one of constant, linear, cosine, wsd", {"name": "cosin"}),
            ("optimizer.schedule.warmup_steps: is -1", {"warmup_steps": -1}),
            ("optimizer.schedule.final_factor: is 1.5; it must be from 0 to 1", {"name": "wsd", "final_factor": 1.5}),
            ("optimizer.schedule.decay_steps: is 3, which only wsd has", {"name": "linear", "decay_steps": 3}),
            ("optimizer.schedule.final_factor: is 0.1, but a constant rate has no decay", {"final_factor": 0.1}),
            ("did you mean optimizer.schedule.warmup_steps?", {"warmup_step": 3}),
        ]:
            with self.subTest(words):
                self.refuse(CONFIG, words, **{f"optimizer__schedule__{key}": value for key, value in values.items()})

    def test_a_schedule_longer_than_the_run(self):
        wanted = dict(optimizer__schedule__name="wsd", optimizer__schedule__warmup_steps=8,
                      optimizer__schedule__decay_steps=3)
        words = "8 warm-up steps and 3 decay steps do not fit in a run of 10 steps"
        self.refuse(CONFIG, words, mode="synchronous", training__steps=10, **wanted)
        self.refuse(CONFIG, words, federated__rounds=2, **wanted)  # 2 rounds of 5 local steps
        self.train(federated__rounds=3, **wanted)


if __name__ == "__main__":
    unittest.main()
