# Ranks whose devices differ: by an emulated device that each rank is told about (tests/host_runner/emulated_environment.h).
# LABELS mpi
# TIMEOUT 300
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from device_runs import EMULATED, SHORT, DeviceTest  # noqa: E402
from program import overrides  # noqa: E402

FAILURE = 1


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


if __name__ == "__main__":
    unittest.main()
