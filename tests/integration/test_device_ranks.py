# Ranks whose devices differ: by an emulated device that each rank is told about (tests/host_runner/emulated_environment.h).
# LABELS mpi
# TIMEOUT 300
import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from device_runs import EMULATED, SHORT, DeviceTest  # noqa: E402
from program import overrides  # noqa: E402

FAILURE = 1
SECONDS = 30  # from the start to the end of a run that fails, on a machine that does other things too


class OnEmulatedDevices(DeviceTest):
    def setUp(self):
        super().setUp()
        self.on(EMULATED)
        self.values = {**SHORT, "device": "cuda", "comm__backend": "mpi"}


class SharedGpu(OnEmulatedDevices):
    """Every process counts one device: whether it is another's too, its bus id says."""

    ROOM = 1740 << 10  # for the 1.14 MiB of one rank's plan, and not for those of two

    def arguments(self, *bus_ids, room=ROOM, **values):
        ranks = [{"CARAVAN_EMULATED_BUS_ID": bus_id, "CARAVAN_EMULATED_BYTES": room} for bus_id in bus_ids]
        values = {**self.values, "comm__backend": "auto", **values}
        return ["train", "run.yaml", *overrides(**values)], {"rank_env": ranks, "env": {"CARAVAN_NCCL": "/nowhere"}}

    def test_ranks_with_a_gpu_each_need_room_for_one(self):
        words, options = self.arguments("0000:1b", "0000:43")
        self.assertIn("(rank 0 found no NCCL that can be used", self.succeed(*words, **options).err)

    def test_ranks_on_one_gpu_need_room_for_all_of_them(self):
        words, options = self.arguments("0000:1b", "0000:1b")
        self.expect_failure(FAILURE, ["caravan: rank 0 on ", "are free of 1.70 MiB, and its 2 ranks will hold ",
                                      " each); lower training.micro_batch"], *words, **options)
        words, options = self.arguments("0000:1b", "0000:1b", room=2 * self.ROOM)
        self.assertIn("(ranks share a GPU; comm.backend: nccl tries", self.succeed(*words, **options).err)

    def test_of_three_ranks_two_share(self):
        words, options = self.arguments("0000:1b", "0000:43", "0000:43", training__batch_size=3)
        self.expect_failure(FAILURE, ["caravan: rank 1 on ", "and its 2 ranks will hold "], *words, **options)


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


if __name__ == "__main__":
    unittest.main()
