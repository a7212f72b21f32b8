# The program on a device: over the emulated one (tests/host_runner/emulated_device.h) it trains, stops, goes on,
# evaluates and generates as on the CPU; where there is none, it says why.
# TIMEOUT 600
import json
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

import program  # noqa: E402
from device_runs import CPU, EMULATED, SHORT, TINY, DeviceTest  # noqa: E402
from program import results_columns, state_of_training, tensors_of_pth  # noqa: E402
from program import tensors_of_safetensors, write_ids  # noqa: E402

FAILURE, CONFIG = 1, 2
FAKE_CUDNN = str(pathlib.Path(CPU).parent.parent / "fake_cudnn" / "libcudnn.so.9")


class OnTheEmulatedDevice(DeviceTest):
    def setUp(self):
        super().setUp()
        self.on(EMULATED)

    def test_the_history_is_that_of_the_cpu(self):
        self.train(output__dir="device", device="cuda", **SHORT)
        self.train(output__dir="half", device="cuda", dtype="bfloat16", **SHORT)
        self.train(output__dir="float16", device="cuda", dtype="float16", training__loss_scale__initial=1024, **SHORT)
        self.train(output__dir="cpu", device="cpu", **SHORT)
        # float32 in another order, over three steps; bfloat16 rounds each value to 2^-9 relative, float16 to 2^-12.
        for folder, tolerance in (("device", 1e-5), ("half", 5e-3), ("float16", 5e-3 / 8)):
            for row, wanted in zip(self.history(folder), self.history("cpu"), strict=True):
                self.assertEqual(row[0], wanted[0])
                self.assertAlmostEqual(row[1] / wanted[1], 1, delta=tolerance, msg=folder)
        self.assertEqual(2 * sum(map(len, tensors_of_pth(self.checkpoint(3, "half") / "consolidated.00.pth").values())),
                         sum(map(len, tensors_of_pth(self.checkpoint(3, "device") / "consolidated.00.pth").values())))

    def test_a_run_that_was_stopped_goes_on_to_the_same_bits(self):
        # In float16 the first step overflows: its gradients are those of a mean over some fourteen tokens.
        for name, values in (("float32", {}), ("bfloat16", dict(dtype="bfloat16")),
                             ("float16", dict(dtype="float16", training__loss_scale__initial=1 << 21)),
                             ("chance", dict(dtype="bfloat16", optimizer__master_weights="false"))):
            with self.subTest(name):
                done = self.train(output__dir=f"whole-{name}", device="cuda", **values, **SHORT)
                overflow = "step 1: the gradients overflowed with loss scale 2097152: the update is skipped, the scale is 1048576 now"
                self.assertEqual(overflow in done.err, name == "float16", done.err)
                first = {**SHORT, "training__steps": 1}
                self.train(output__dir=f"parts-{name}", device="cuda", **values, **first)
                self.train(output__dir=f"parts-{name}", device="cuda", resume="latest", **values, **SHORT)
                states = [state_of_training(self.folder / f"{part}-{name}" / "checkpoints" / "step_00000003")
                          for part in ("whole", "parts")]
                self.assertEqual(states[0], states[1])
                columns = [results_columns(self.folder / f"{part}-{name}" / "results.h5") for part in ("whole", "parts")]
                self.assertEqual(columns[0]["/steps/loss"], columns[1]["/steps/loss"])

    def test_a_run_with_masters_does_not_go_on_without(self):
        half = {**SHORT, "training__steps": 1, "dtype": "bfloat16"}
        self.train(output__dir="out", device="cuda", **half)
        self.expect_failure(CONFIG, "optimizer.master_weights was true and is false now; put the old value back", "train",
                            "run.yaml", *program.overrides(output__dir="out", device="cuda", resume="latest",
                                                           optimizer__master_weights="false", **half))

    def test_eval_and_generate(self):
        self.train(output__dir="out", device="cuda", **SHORT)
        checkpoint = self.checkpoint(3)
        texts = {}
        for path, device in ((EMULATED, "cuda"), (CPU, "cpu")):
            self.on(path)
            ids = self.succeed("generate", "--checkpoint", checkpoint, "--ids", "1,2,3", "-n", 5, "--device", device)
            loss = self.succeed("eval", "--checkpoint", checkpoint, "--data", "eval.jsonl", "--max-seq-len", 10,
                                "--device", device, "--json")
            texts[device] = ids.out, json.loads(loss.out)["loss"]
        self.assertEqual(texts["cuda"][0], texts["cpu"][0])
        self.assertAlmostEqual(texts["cuda"][1] / texts["cpu"][1], 1, delta=1e-5)

    def test_a_model_that_a_device_is_too_small_for(self):
        self.train(output__dir="out", device="cuda", **SHORT)
        checkpoint = self.checkpoint(3)
        evaluate = ("eval", "--checkpoint", checkpoint, "--data", "eval.jsonl", "--max-seq-len", 10)
        generate = ("generate", "--checkpoint", checkpoint, "--ids", "1,2,3", "-n", 5)
        for words, text in ((evaluate, "); lower --batch-size or --max-seq-len, give --dtype bfloat16, or start more ranks"),
                            (generate, "); lower --max-new-tokens, give --dtype bfloat16, or start more ranks")):
            with self.subTest(words[0]):
                room = {"env": {"CARAVAN_EMULATED_BYTES": str(20 << 10)}}
                said = self.expect_failure(FAILURE, ["is too small: 20.00 KiB are free", "and this rank will hold ",
                                                     "(weights ", text], *words, "--device", "cuda", **room).err
                wanted = float(re.search(r"will hold ([0-9.]+) KiB", said)[1])
                # What was said is all that it takes, but for what ops take beside it (docs/notes/memory-plan.md).
                room = {"env": {"CARAVAN_EMULATED_BYTES": str(int((wanted + 8) * 1024))}}
                self.succeed(*words, "--device", "cuda", **room)
        self.expect_failure(FAILURE, ["rank 0 on ", "keys and values "], *generate, "--device", "cuda", ranks=2,
                            env={"CARAVAN_EMULATED_BYTES": str(10 << 10), "COMM_BACKEND": "mpi"})

    def test_verifying_a_mesh(self):
        four = {**SHORT, "training__batch_size": 4, "comm__backend": "mpi"}
        for dtype in ("float32", "bfloat16"):
            with self.subTest(dtype):
                done = self.succeed("verify", "run.yaml", "--steps", 2, "--output", f"{dtype}.h5",
                                    *program.overrides(device="cuda", dtype=dtype, parallel__tp=2, **four), ranks=2)
                self.assertIn("result: the mesh computes the model of one rank", done.out)
                self.assertIn("weights: all 21 tensors", done.out)
                self.assertEqual((self.folder / f"{dtype}.h5").read_bytes()[:4], b"\x89HDF")

    def test_verifying_a_mesh_with_attention_of_cudnn(self):
        values = program.overrides(device="cuda", dtype="bfloat16", attention="cudnn", parallel__tp=2,
                                   **{**SHORT, "training__batch_size": 4, "comm__backend": "mpi"})
        words = ("verify", "run.yaml", "--steps", 1, *values)
        done = self.succeed(*words, ranks=2, env={"CARAVAN_CUDNN": FAKE_CUDNN})
        self.assertIn(f"attention: cuDNN 9.19.0 ({FAKE_CUDNN})\n", done.err)
        self.assertIn("result: the mesh computes the model of one rank", done.out)
        result = self.caravan(*words, "--output", "other.h5", ranks=2,
                              env={"CARAVAN_CUDNN": FAKE_CUDNN, "FAKE_CUDNN_FAIL": "BackendExecute"})
        self.assertEqual(result.code, FAILURE, result.err)
        self.assertIn("cudnnBackendExecute (", result.err)
        self.expect_failure(FAILURE, "attention is cudnn, but rank 0 on ", *words, "--output", "third.h5", ranks=2,
                            env={"CARAVAN_CUDNN": "/nowhere"})

    def test_verifying_where_a_device_is_too_small(self):
        # The mesh's own part would fit: 256 KiB of it and the same again for one rank.
        self.expect_failure(FAILURE, ["is too small: ", "weights in place of the one-rank model "], "verify", "run.yaml",
                            *program.overrides(device="cuda", **SHORT),
                            env={"CARAVAN_EMULATED_BYTES": str(400 << 10)})

    def test_ranks_with_a_device_each(self):
        one = {**SHORT, "training__batch_size": 4}
        self.train(output__dir="cpu", device="cpu", **one)
        for name, mesh in (("tp", dict(parallel__tp=2)), ("fsdp", {}), ("pp", dict(parallel__pp=2))):
            with self.subTest(name):
                done = self.train(output__dir=name, device="cuda", ranks=2, comm__backend="mpi", **mesh, **one)
                self.assertIn("tensors between GPUs: MPI through pinned host memory", done.err)
                for row, wanted in zip(self.history(name), self.history("cpu"), strict=True):
                    self.assertAlmostEqual(row[1] / wanted[1], 1, delta=1e-5, msg=name)
        checkpoint = self.checkpoint(3, "tp")
        texts = [self.succeed("generate", "--checkpoint", checkpoint, "--ids", "1,2,3", "-n", 4, "--device", "cuda",
                              ranks=ranks, env={"COMM_BACKEND": "mpi"}).out for ranks in (1, 2)]
        self.assertEqual(*texts)

    def test_federated_rounds_of_ranks_with_a_device_each(self):
        rounds = dict(mode="federated", model__config="tiny.json", model__preset="null", data__max_seq_len=10,
                      federated__rounds=1, federated__batch_size=2, optimizer__lr="1e-4")
        tiny = {**TINY, "n_kv_heads": 2}
        (self.folder / "tiny.json").write_text(json.dumps(tiny))
        self.train(output__dir="device", device="cuda", ranks=2, comm__backend="mpi", **rounds)
        self.on(CPU)
        self.train(output__dir="host", device="cpu", ranks=2, **rounds)
        for row, wanted in zip(self.history("device"), self.history("host"), strict=True):
            self.assertAlmostEqual(row[1] / wanted[1], 1, delta=1e-5)

    def federated(self, **values):
        (self.folder / "tiny.json").write_text(json.dumps({**TINY, "n_heads": 4, "n_kv_heads": 4}))
        write_ids(self.folder / "train.jsonl", 12, seed=1, vocab=67, lengths=(4, 10))
        return dict(mode="federated", device="cuda", dtype="bfloat16", model__config="tiny.json", model__preset="null",
                    data__max_seq_len=10, federated__rounds=2, federated__batch_size=2, optimizer__lr="1e-3", **values)

    def test_federated_rounds_in_bfloat16(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                run = {**self.federated(federated__enable_swapping="true"), "ranks": ranks}
                if ranks > 1:
                    run["comm__backend"] = "mpi"
                self.train(output__dir=f"half-{ranks}", **run)
                self.train(output__dir=f"single-{ranks}", **{**run, "dtype": "float32"})
                # A loss rounds as in the synchronous test above; the steps of two rounds are few and small.
                for row, wanted in zip(self.history(f"half-{ranks}"), self.history(f"single-{ranks}"), strict=True):
                    self.assertEqual(row[0], wanted[0])
                    self.assertAlmostEqual(row[1] / wanted[1], 1, delta=5e-3)
                losses = [row[1] for row in self.history(f"half-{ranks}")]
                self.assertLess(losses[2], losses[0])
                half, single = (tensors_of_pth(self.checkpoint(2, f"{name}-{ranks}") / "consolidated.00.pth")
                                for name in ("half", "single"))
                self.assertEqual(2 * sum(map(len, half.values())), sum(map(len, single.values())))

    def test_federated_bfloat16_goes_on_to_the_same_bits(self):
        kept = dict(federated__enable_swapping="true", federated__optimizer_state="keep", federated__outer__momentum=0.9,
                    federated__delta_scale=0.5)
        for name, ranks, options in (("plain", 1, {}), ("moving", 2, dict(federated__enable_swapping="true")),
                                     ("kept", 2, kept)):
            with self.subTest(name):
                run = {**self.federated(**options), "ranks": ranks}
                if ranks > 1:
                    run["comm__backend"] = "mpi"
                self.train(output__dir=f"whole-{name}", **run)
                self.train(output__dir=f"parts-{name}", **{**run, "federated__rounds": 1})
                self.train(output__dir=f"parts-{name}", resume="latest", **run)
                whole, parts = (self.checkpoint(2, f"{which}-{name}") for which in ("whole", "parts"))
                self.assertEqual(*(tensors_of_pth(each / "consolidated.00.pth") for each in (whole, parts)))
                masters, again = (tensors_of_safetensors(f"{each}.state/masters.safetensors") for each in (whole, parts))
                self.assertEqual(masters, again)
                self.assertEqual({dtype for dtype, _, _ in masters.values()}, {"F32"})
                self.assertEqual(*(self.history(f"{which}-{name}") for which in ("whole", "parts")))
                # The masters are not the roundings that the model file has: resuming from those would lose bits.
                self.assertTrue(any(any(data[i] for i in range(0, len(data), 4)) for _, _, data in masters.values()))

    def test_federated_bfloat16_on_one_rank_is_synchronous_training(self):
        run = self.federated(federated__local_epochs=1, data__shuffle="false")
        self.train(output__dir="rounds", **{**run, "federated__rounds": 1})
        plain = {key: value for key, value in run.items() if not key.startswith("federated__")}
        self.train(output__dir="steps", **{**plain, "mode": "synchronous", "training__batch_size": 2, "training__epochs": 1,
                                          "training__steps": "null"})
        losses = [results_columns(self.folder / name / "results.h5")["/steps/loss"] for name in ("rounds", "steps")]
        self.assertEqual(*losses)
        self.assertEqual(*(tensors_of_pth(self.checkpoint(number, name) / "consolidated.00.pth")
                           for number, name in ((1, "rounds"), (6, "steps"))))

    def test_a_state_without_its_masters(self):
        run = self.federated()
        self.train(output__dir="out", **{**run, "federated__rounds": 1})
        pathlib.Path(f"{self.checkpoint(1)}.state/masters.safetensors").unlink()
        self.refuse(FAILURE, "masters.safetensors", resume="latest", **run)

    def test_nccl_that_is_not_there(self):
        text = ("comm.backend is nccl, but rank 0 found no NCCL that can be used; tried /nowhere (no such file); "
                "set CARAVAN_NCCL to libnccl.so.2 or its folder, or comm.backend to mpi")
        self.expect_failure(FAILURE, text, "train", "run.yaml",
                            *program.overrides(device="cuda", comm__backend="nccl", **SHORT), ranks=2,
                            env={"CARAVAN_NCCL": "/nowhere"})

    def test_attention_of_cudnn(self):
        # Of values rounded to 2^-9 relative, in another order.
        tolerance = 5e-3
        half = {**SHORT, "device": "cuda", "dtype": "bfloat16"}
        own = self.train(output__dir="own", **half)
        self.assertIn("attention: Caravan's own kernels\n", own.err)
        values = program.overrides(output__dir="cudnn", attention="cudnn", **half)
        done = self.succeed("train", "run.yaml", *values, env={"CARAVAN_CUDNN": FAKE_CUDNN})
        self.assertIn(f"attention: cuDNN 9.19.0 ({FAKE_CUDNN})\n", done.err)
        self.assertRegex(done.err, r"scratch of cuDNN +1\.\d\d KiB")
        for row, wanted in zip(self.history("cudnn"), self.history("own"), strict=True):
            self.assertEqual(row[0], wanted[0])
            self.assertAlmostEqual(row[1] / wanted[1], 1, delta=tolerance)
        self.assertNotEqual(results_columns(self.folder / "cudnn" / "results.h5")["/steps/loss"],
                            results_columns(self.folder / "own" / "results.h5")["/steps/loss"])
        # A run may go on with the other attention, like with another device.
        longer = {**half, "training__steps": 4}
        self.train(output__dir="cudnn", resume="latest", **longer)

    def test_attention_of_a_cudnn_that_is_not_there(self):
        half = {**SHORT, "device": "cuda", "dtype": "bfloat16", "attention": "cudnn"}
        text = ("attention is cudnn, but rank 0 on ", ": no cuDNN that can be used; tried /nowhere (no such file); install "
                "cuDNN 9, name its folder in CARAVAN_CUDNN, or set attention to own")
        self.expect_failure(FAILURE, text, "train", "run.yaml", *program.overrides(**half), ranks=2,
                            env={"CARAVAN_CUDNN": "/nowhere"})
        self.expect_failure(FAILURE, "libcudnn.so.9 is cuDNN 8.9.7; versions from 9.10 up to, but without, 10 can be used",
                            "train", "run.yaml", *program.overrides(**half),
                            env={"CARAVAN_CUDNN": FAKE_CUDNN, "FAKE_CUDNN_VERSION": "80907"})

    def test_heads_that_cudnn_does_not_take(self):
        (self.folder / "tiny.json").write_text(json.dumps({**TINY, "dim": 24}))
        self.refuse(CONFIG, "attention is cudnn, which takes heads of up to 128 in multiples of 8, but this model's are of 12",
                    **{**SHORT, "device": "cuda", "dtype": "bfloat16", "attention": "cudnn"})

    def test_an_error_of_cudnn_in_the_middle(self):
        half = {**SHORT, "device": "cuda", "dtype": "bfloat16", "attention": "cudnn"}
        result = self.caravan("train", "run.yaml", *program.overrides(**half),
                                  env={"CARAVAN_CUDNN": FAKE_CUDNN, "FAKE_CUDNN_FAIL": "BackendExecute"})
        self.assertEqual(result.code, FAILURE, result.err)
        self.assertRegex(result.messages()[-1], r"cudnnBackendExecute \(graph\.cpp:\d+\), attention: CUDNN_STATUS_BAD_PARAM")

    def test_a_device_that_is_too_small(self):
        self.expect_failure(FAILURE, ["is too small: 400.00 KiB are free", "(weights in place 465.25 KiB, gradients in place", "lower training.micro_batch"],
                            "train", "run.yaml", *program.overrides(device="cuda", **{**SHORT, "model__config": "null",
                                                                                      "model__preset": "tiny"}),
                            env={"CARAVAN_EMULATED_BYTES": str(400 << 10)})


    def test_what_products_take_is_in_the_plan(self):
        self.train(output__dir="out", device="cuda", **SHORT)
        checkpoint = self.checkpoint(3)
        room = {"env": {"CARAVAN_EMULATED_WORKSPACE": str(8 << 20), "CARAVAN_EMULATED_BYTES": str(8 << 20)}}
        values = program.overrides(device="cuda", output__dir="other", **SHORT)
        plan = self.succeed("train", "run.yaml", *values, "--dry-run", **room).out
        self.assertIn("workspace of products          8.00 MiB\n", plan)
        for words in (("train", "run.yaml", *values), ("verify", "run.yaml", *values),
                      ("eval", "--checkpoint", checkpoint, "--data", "eval.jsonl", "--max-seq-len", 10, "--device", "cuda"),
                      ("generate", "--checkpoint", checkpoint, "--ids", "1,2,3", "-n", 5, "--device", "cuda")):
            with self.subTest(words[0]):
                self.expect_failure(FAILURE, ["is too small: 8.00 MiB are free", "workspace of products 8.00 MiB); lower"],
                                    *words, **room)


class WithoutGpu(DeviceTest):
    def test_nccl_for_what_is_on_cpus(self):
        self.refuse(CONFIG, "comm.backend is nccl, which carries tensors of GPUs, but the ranks compute on CPUs",
                    comm__backend="nccl", **SHORT)

    def test_graphs_for_what_is_on_cpus(self):
        self.refuse(CONFIG, "cuda_graphs is always, but the ranks compute on CPUs, which have none; set it to auto",
                    cuda_graphs="always", **SHORT)

    def test_cudnn_for_what_is_on_cpus(self):
        self.refuse(FAILURE, "dtype: bfloat16 is for GPUs; no usable GPU: ", attention="cudnn", dtype="bfloat16", **SHORT)

    def test_a_library_that_carries_nothing(self):
        self.expect_failure(CONFIG, "COMM_BACKEND is 'nvshmem'; tensors travel by nccl or mpi", "train", "run.yaml",
                            *program.overrides(**SHORT), env={"COMM_BACKEND": "nvshmem"})

    def test_verifying_without_a_gpu(self):
        for values, text in ((dict(device="cuda"), "device: cuda: no usable GPU: "),
                             (dict(dtype="bfloat16"), "dtype: bfloat16 is for GPUs; no usable GPU: ")):
            self.expect_failure(FAILURE, text, "verify", "run.yaml", *program.overrides(**values, **SHORT))
        self.expect_failure(CONFIG, "dtype: is bfloat16, which GPUs compute in", "verify", "run.yaml",
                            *program.overrides(dtype="bfloat16", device="cpu", **SHORT))

    def test_a_gpu_that_is_not_there(self):
        self.refuse(FAILURE, "device: cuda: no usable GPU: ", device="cuda", **SHORT)
        self.refuse(FAILURE, "device: cuda: rank 0 on ", device="cuda", ranks=2, **SHORT)

    def test_bfloat16_where_no_gpu_is(self):
        for dtype in ("bfloat16", "float16"):
            self.refuse(FAILURE, f"dtype: {dtype} is for GPUs; no usable GPU: ", dtype=dtype, **SHORT)

    def test_commands_with_a_device_that_does_not_fit(self):
        self.train(output__dir="out", **SHORT)
        for dtype, device in (("bfloat16", "cpu"), ("float16", "cpu"), ("float64", "cuda")):
            self.expect_failure(CONFIG, f"--dtype {dtype} with --device {device}: bfloat16 and float16 are for GPUs, "
                                "float64 for CPUs",
                                "generate", "--checkpoint", self.checkpoint(3), "--ids", "1,2", "--dtype", dtype,
                                "--device", device)


if __name__ == "__main__":
    unittest.main()
