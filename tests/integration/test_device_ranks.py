# Ranks whose devices differ: by an emulated device that each rank is told about (tests/host_runner/emulated_environment.h).
# LABELS mpi
# TIMEOUT 300
import json
import pathlib
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from device_runs import EMULATED, SHORT, TINY, DeviceTest  # noqa: E402
from program import children_of, command, is_gone, overrides, wait_for  # noqa: E402

FAILURE, CONFIG = 1, 2
FAULT = "(CARAVAN_EMULATED_FAULT): an illegal memory access was encountered"
SECONDS = 60  # from the start to the end of a run that fails: one or two, on a machine that does other things more


class OnEmulatedDevices(DeviceTest):
    def setUp(self):
        super().setUp()
        self.on(EMULATED)
        self.values = {**SHORT, "device": "cuda", "comm__backend": "mpi"}


class SharedGpu(OnEmulatedDevices):
    """Every process counts one device: whether it is another's too, its bus id says, and its memory's UUID."""

    ROOM = 1740 << 10  # for the 1.14 MiB of one rank's plan, and not for those of two

    def arguments(self, *bus_ids, room=ROOM, uuids=None, **values):
        ranks = [{"CARAVAN_EMULATED_BUS_ID": bus_id, "CARAVAN_EMULATED_BYTES": room, "CARAVAN_EMULATED_UUID": uuid}
                 for bus_id, uuid in zip(bus_ids, uuids or bus_ids, strict=True)]
        values = {**self.values, "comm__backend": "auto", **values}
        return ["train", "run.yaml", *overrides(**values)], {"rank_env": ranks, "env": {"CARAVAN_NCCL": "/nowhere"}}

    def test_ranks_with_a_gpu_each_need_room_for_one(self):
        words, options = self.arguments("0000:1b", "0000:43")
        self.assertIn("(rank 0 found no NCCL that can be used", self.succeed(*words, **options).err)

    def test_ranks_on_one_gpu_need_room_for_all_of_them(self):
        words, options = self.arguments("0000:1b", "0000:1b")
        self.expect_failure(FAILURE, ["caravan: rank 0 on ", "are free of 1.70 MiB, and its 2 ranks will hold ",
                                      " on it, this one 1.14 MiB (", "); lower training.micro_batch"], *words, **options)
        words, options = self.arguments("0000:1b", "0000:1b", room=2 * self.ROOM)
        self.assertIn("(ranks share a GPU; comm.backend: nccl tries", self.succeed(*words, **options).err)

    def test_ranks_with_an_instance_each_of_a_divided_gpu_need_room_for_one(self):
        # They have one bus id, and NCCL refuses them; their memories are two.
        words, options = self.arguments("0000:1b", "0000:1b", uuids=("MIG-1", "MIG-1"))
        self.expect_failure(FAILURE, "and its 2 ranks will hold ", *words, **options)
        words, options = self.arguments("0000:1b", "0000:1b", uuids=("MIG-1", "MIG-2"))
        self.assertIn("(ranks share a GPU; comm.backend: nccl tries", self.succeed(*words, **options).err)

    def test_graphs_of_ranks_that_exchange_through_the_host(self):
        words, options = self.arguments("0000:1b", "0000:1b", room=2 * self.ROOM, cuda_graphs="always")
        self.expect_failure(CONFIG, ["cuda_graphs is always, but tensors travel by MPI through pinned host memory (ranks share a",
                                     "the host takes part in a step; set comm.backend to nccl, or cuda_graphs to auto"],
                            *words, **options)
        words, options = self.arguments("0000:1b", "0000:1b", room=2 * self.ROOM, cuda_graphs="never")
        self.succeed(*words, **options)

    def test_of_three_ranks_two_share(self):
        words, options = self.arguments("0000:1b", "0000:43", "0000:43", training__batch_size=3)
        self.expect_failure(FAILURE, ["caravan: rank 1 on ", "and its 2 ranks will hold "], *words, **options)


class BrokenDriver(OnEmulatedDevices):
    """No rank can use its driver: no GPU is found, and that is not as it should be."""

    REASON = "no usable GPU: system not yet initialized (cudaErrorSystemNotReady)"

    def run_with(self, device):
        values = overrides(**{**self.values, "device": device, "comm__backend": "auto"})
        return self.caravan("train", "run.yaml", *values, ranks=2, env={"CARAVAN_EMULATED_BROKEN": self.REASON})

    def test_auto_goes_on_with_cpus_and_says_why(self):
        result = self.run_with("auto")
        self.assertEqual(result.code, 0, result.err)
        warning = "device: auto: all ranks compute on CPUs, since not every rank has a GPU; "
        self.assertEqual(result.err.count(warning), 1, result.err)
        self.assertIn(self.REASON, result.err)

    def test_cuda_ends_with_the_reason(self):
        result = self.run_with("cuda")
        self.assertEqual(result.code, FAILURE, result.err)
        self.assertRegex(result.err, f"(?m)^caravan: device: cuda: rank 0 on .*: {re.escape(self.REASON)}$")


class FederatedRanksOnOneGpu(OnEmulatedDevices):
    """Rank 0 has the whole model beside its slice; what the ranks hold together is not twice that."""

    def arguments(self, room):
        (self.folder / "tiny.json").write_text(json.dumps({**TINY, "n_kv_heads": 2}))
        values = {**self.values, "mode": "federated", "federated__rounds": 1, "federated__batch_size": 2}
        return (["train", "run.yaml", *overrides(**values)],
                {"rank_env": 2 * [{"CARAVAN_EMULATED_BUS_ID": "0000:1b", "CARAVAN_EMULATED_BYTES": room}]})

    def plans(self):
        """The bytes of rank 0 and of the other, by the refusal of each."""
        words, options = self.arguments(1 << 10)
        said = self.expect_failure(FAILURE, "and its 2 ranks will hold ", *words, **options).err
        found = re.search(r"will hold ([0-9.]+) (\w+) on it, this one ([0-9.]+) (\w+)", said).groups()
        both, first = (float(size) * {"KiB": 1 << 10, "MiB": 1 << 20}[unit] for size, unit in (found[:2], found[2:]))
        return first, both - first

    def test_need_room_for_what_each_of_them_holds(self):
        first, other = self.plans()
        self.assertGreater(first, 1.2 * other)
        words, options = self.arguments(int(first + other) + (10 << 10))  # beyond the rounding of what was read
        self.succeed(*words, **options)


class DifferentGpus(OnEmulatedDevices):
    def test_the_first_rank_with_another_type_is_named(self):
        for other, names in ((1, ("NVIDIA H100", "NVIDIA A100")), (2, ("NVIDIA H100", "NVIDIA H100", "NVIDIA A100"))):
            with self.subTest(names):
                text = (f"caravan: rank 0 computes on 'NVIDIA H100' and rank {other} on 'NVIDIA A100': all ranks of a run need "
                        "GPUs of one type; choose them with CUDA_VISIBLE_DEVICES")
                begin = time.monotonic()
                self.expect_failure(FAILURE, text, "train", "run.yaml",
                                    *overrides(**{**self.values, "training__batch_size": len(names)}),
                                    rank_env=[{"CARAVAN_EMULATED_NAME": name} for name in names])
                self.assertLess(time.monotonic() - begin, SECONDS)

    def test_commands_without_a_configuration(self):
        self.train(output__dir="out", **SHORT)
        checkpoint = self.checkpoint(3)
        for words in (("generate", "--checkpoint", checkpoint, "--ids", "1,2,3", "-n", 4),
                      ("eval", "--checkpoint", checkpoint, "--data", "eval.jsonl", "--max-seq-len", 10)):
            self.expect_failure(FAILURE, "caravan: rank 0 computes on 'one' and rank 1 on 'another'", *words, "--device", "cuda",
                                rank_env=[{"CARAVAN_EMULATED_NAME": name} for name in ("one", "another")])


class FailingGpu(OnEmulatedDevices):
    MESHES = {"tp": dict(parallel__tp=2), "fsdp": {}, "ddp": dict(parallel__dp_replicate=2), "pp": dict(parallel__pp=2),
              "cp": dict(parallel__cp=2)}

    def end(self, faulty, launch, words, **values):
        """Both ranks have ended, soon, and only the one whose device fails has spoken, in these words."""
        rank_env = [{}, {}]
        rank_env[faulty] = {"CARAVAN_EMULATED_FAULT": launch}
        begin = time.monotonic()
        with subprocess.Popen(command("train", "run.yaml", *overrides(**values), rank_env=rank_env), cwd=self.folder,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8") as job:
            try:
                wait_for(lambda: len(children_of(job.pid)) == 2 or job.poll() is not None, SECONDS, "two ranks")
                ranks = children_of(job.pid)
                errors = job.communicate(timeout=SECONDS)[1]
            finally:
                job.kill()
        self.assertEqual(job.returncode, FAILURE, errors)
        self.assertLess(time.monotonic() - begin, SECONDS)
        said = [line for line in errors.splitlines() if line.startswith("caravan:")]
        self.assertEqual(len(said), 1, errors)
        self.assertEqual(said[0], f"caravan: rank {faulty}: emulated fault of launch {launch} {words}")
        for pid in ranks:
            wait_for(lambda pid=pid: is_gone(pid), 10, f"the end of rank with pid {pid}")

    def test_a_fault_on_one_rank_ends_all_of_them(self):
        # The other one waits for it in a collective, a message or a gather of weights, for 1800 s if it has to.
        many = {**self.values, "training__batch_size": 4, "training__steps": 100000}
        for name, mesh in self.MESHES.items():
            for faulty in (0, 1):
                with self.subTest(mesh=name, faulty=faulty):
                    self.end(faulty, 60, "(CARAVAN_EMULATED_FAULT): an illegal memory access was encountered",
                             output__dir=f"{name}-{faulty}", **many, **mesh)

    def test_a_fault_in_a_recorded_step(self):
        # An evaluation after every step shows how far it came: beyond the first, whose passes are being recorded.
        many = {**self.values, "training__batch_size": 4, "training__steps": 100000, "training__eval_every": 1}
        self.end(1, 600, FAULT, output__dir="later", **many)
        self.assertGreater(len(self.history("later")), 1)

    def test_a_fault_in_a_federated_round(self):
        rounds = dict(mode="federated", device="cuda", comm__backend="mpi", model__config="tiny.json", model__preset="null",
                      data__max_seq_len=10, federated__rounds=100000, federated__batch_size=2)
        (self.folder / "tiny.json").write_text(json.dumps({**TINY, "n_kv_heads": 2}))
        for faulty in (0, 1):
            self.end(faulty, 60, FAULT, output__dir=f"rounds-{faulty}", **rounds)


if __name__ == "__main__":
    unittest.main()
