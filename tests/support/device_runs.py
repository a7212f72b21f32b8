"""Tiny runs of the program on a device, for tests over the emulated one."""
import json
import pathlib

import program
from program import ProgramTest, write_ids

CPU = program.PROGRAM
EMULATED = str(pathlib.Path(CPU).parent / "caravan_emulated")
# Kernels on the host runner take their time: short rows, few steps.
SHORT = dict(mode="synchronous", training__steps=3, training__batch_size=2, data__max_seq_len=10, model__config="tiny.json",
             model__preset="null", optimizer__lr="3e-3")
TINY = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 67, "ffn_hidden_size": 48,
        "norm_eps": 1e-5, "rope_theta": 10000.0}


class DeviceTest(ProgramTest):
    def setUp(self):
        super().setUp()
        for name, rows, seed in (("train", 7, 1), ("eval", 3, 2)):
            write_ids(self.folder / f"{name}.jsonl", rows, seed=seed, vocab=67, lengths=(4, 10))
        (self.folder / "tiny.json").write_text(json.dumps(TINY))
        self.addCleanup(setattr, program, "PROGRAM", CPU)

    def on(self, path):
        program.PROGRAM = path
