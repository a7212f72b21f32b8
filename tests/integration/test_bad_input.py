# Bad input that a user makes and that no other test hands to the program itself: broken and hostile weights,
# tokenizers and data, wrong command lines, disks that fill up. The whole table is docs/notes/bad-input.md.
# LABELS mpi
# TIMEOUT 300
import gzip
import json
import os
import pathlib
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import unittest
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import CORPORA, ProgramTest, command, overrides  # noqa: E402

CONFIG, INPUT, USAGE = 2, 1, 2  # exit codes: what the user wrote, what a file holds


class Touch:
    """An object whose unpickling would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class CommandLine(ProgramTest):
    def test_options_that_do_not_exist_or_fit(self):
        for words, arguments in [
            ("The following argument was not expected: --epochs", ["train", "run.yaml", "--epochs"]),
            ("--checkpoint is required", ["eval", "--data", "eval.jsonl"]),
            ("--to: 'wiki' is none of hf, meta", ["convert", "--in", "a", "--out", "b", "--to", "wiki"]),
            ("--dtype: int8 not in", ["eval", "--checkpoint", "a", "--data", "b", "--dtype", "int8"]),
            ("--max-seq-len: Value 1 not in range", ["eval", "--checkpoint", "a", "--data", "b", "--max-seq-len", 1]),
            ("--batch-size 1048576 with --max-seq-len 65536 is more tokens than a batch may have, 2147483647",
             ["eval", "--checkpoint", "a", "--data", "b", "--batch-size", 1 << 20, "--max-seq-len", 1 << 16]),
            ("lie one in the other", ["convert", "--in", ".", "--out", "sub", "--to", "hf"]),
            ("--set optimizer.lr: is not of the form key=value", ["train", "run.yaml", "--set", "optimizer.lr"]),
        ]:
            with self.subTest(words):
                self.expect_failure(USAGE, words, *arguments)

    def test_ranks_that_are_not_there_to_log(self):
        self.expect_failure(CONFIG, "LOG_RANK: there is no rank 5; the ranks are 0 to 1", "train", "run.yaml",
                            "--log-ranks", 5, ranks=2)

    def test_patterns_and_factors_that_fit_no_parameter(self):
        self.refuse(CONFIG, "optimizer.no_decay: '*bias*' matches no parameter", optimizer__no_decay="['*bias*']")
        self.refuse(CONFIG, "but preset llama3-8b has no frequency scaling; leave it out", model__preset="llama3-8b",
                    model__rope_scaling_factor=8)
        self.refuse(CONFIG, "include: unknown key", include="x.yaml")

    def test_files_that_inspect_does_not_know(self):
        (self.folder / "notes.md").write_text("# notes")
        self.expect_failure(INPUT, "notes.md: not a kind of file known here", "inspect", "notes.md")
        self.expect_failure(INPUT, "none.h5", "inspect", "none.h5")

    def test_names_of_files_that_no_system_takes(self):
        self.refuse(INPUT, ": File name too long", output__dir="x" * 300)

    def test_sizes_of_a_vocabulary_to_train(self):
        text = CORPORA / "rhymes.train.txt"
        self.expect_failure(INPUT, "run.yaml/sub: Not a directory", "tokenizer", "train", text, "--vocab-size", 300,
                            "--out", "run.yaml/sub/t.json")
        self.expect_failure(CONFIG, "vocabulary size 10: must be 259 (256 bytes and 3 special tokens) to 1000000",
                            "tokenizer", "train", text, "--vocab-size", 10, "--out", "t.json")

    def test_ids_and_texts_on_standard_input(self):
        self.tokenizer()
        tokenizer = ["--tokenizer", "tokenizer.json"]
        self.expect_failure(INPUT, "standard input, line 2: `x` is not a token id", "tokenizer", "decode", *tokenizer,
                            text="1 2\n3 x\n")
        self.expect_failure(CONFIG, "token id 300 is outside 0 .. 299", "tokenizer", "decode", *tokenizer, text="300\n")
        self.expect_failure(INPUT, "standard input, line 1: `{}` is not a JSON string", "tokenizer", "encode", "--json",
                            *tokenizer, text="{}\n")


class Weights(ProgramTest):
    def setUp(self):
        super().setUp()
        self.train(federated__rounds=1)
        self.succeed("convert", "--in", self.checkpoint(1), "--out", "hf", "--to", "hf")
        self.succeed("convert", "--in", self.checkpoint(1), "--out", "meta", "--to", "meta")
        self.hf = self.folder / "hf"
        self.meta = self.folder / "meta"

    def refuse_weights(self, words, folder):
        self.refuse(INPUT, words, model__preset="null", model__checkpoint=folder, output__dir="out2")

    def header(self, change):
        """model.safetensors with another header before the same data."""
        path = self.hf / "model.safetensors"
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = change(json.loads(data[8:8 + size]))
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])

    def change_json(self, path, **values):
        content = json.loads(path.read_text())
        content.update(values)
        path.write_text(json.dumps(content))

    def test_safetensors_that_are_cut_or_lie(self):
        path = self.hf / "model.safetensors"
        whole = path.read_bytes()
        norm = "model.norm.weight"

        def wrong(entry):
            return lambda header: {**header, norm: {**header[norm], **entry}}

        for words, content in [
            ("model.safetensors: 3 bytes are too few for a safetensors file", b"abc"),
            ("it is cut short or damaged", whole[:-1]),
            ("a header of 1152921504606846976 bytes is impossible", struct.pack("<Q", 2**60) + whole[8:]),
            (f"tensor '{norm}' has dtype 'F8_E4M3', which is not supported", wrong({"dtype": "F8_E4M3"})),
            (f"tensor '{norm}' of shape (1152921504606846976, 64) is impossibly large", wrong({"shape": [2**60, 64]})),
            (f"tensor '{norm}' of shape (65) needs 260 bytes and has 256", wrong({"shape": [65]})),
            ("safetensors header: no valid JSON at byte", lambda header: json.dumps(header).encode()[:-2]),
            (f"'{norm}' occurs twice", lambda header: json.dumps(header).encode()[:-1] + b"," +
             json.dumps({norm: header[norm]}).encode()[1:]),
        ]:
            with self.subTest(words):
                if callable(content):
                    self.header(content)
                else:
                    path.write_bytes(content)
                self.refuse_weights(words, "hf")
                path.write_bytes(whole)

    def test_tensors_that_are_not_the_models(self):
        norm = "model.norm.weight"
        self.header(lambda header: {("model.morm.weight" if key == norm else key): value
                                    for key, value in header.items()})
        self.refuse_weights(["2 differences", "missing: norm.weight [64]", "unknown: model.morm.weight [64]"], "hf")

    def test_shapes_of_models_that_are_not_read(self):
        for words, values in [
            ("config.json: model_type is 'mistral'; only 'llama' is read", {"model_type": "mistral"}),
            ("config.json: 'attention_bias' is true; models with biases are not supported", {"attention_bias": True}),
            ("config.json: 'quantization_config' is {\"bits\":4}; quantised files are not supported",
             {"quantization_config": {"bits": 4}}),
            ("config.json: rope_type 'yarn' is not supported", {"rope_scaling": {"rope_type": "yarn"}}),
            ("config.json: 'vocab_size' is missing", {"vocab_size": None}),
            ("config.json: 'hidden_size' is 1152921504606846976; it must be from 1 to 1048576",
             {"hidden_size": 2**60}),
            ("config.json: 'num_hidden_layers' is 1000000; it must be from 1 to 16384", {"num_hidden_layers": 10**6}),
        ]:
            with self.subTest(words):
                path = self.hf / "config.json"
                whole = path.read_text()
                self.change_json(path, **values)
                self.refuse_weights(words, "hf")
                path.write_text(whole)

    def test_params_json_of_models_that_are_not_read(self):
        for words, values in [
            ("params.json: 'quantization_args' names a quantised or vision variant", {"quantization_args": {}}),
            ("params.json: 'n_heads' is \"8\", not an integer", {"n_heads": "8"}),
            ("params.json: 'norm_eps' is 0; it must be positive", {"norm_eps": 0}),
        ]:
            with self.subTest(words):
                path = self.meta / "params.json"
                whole = path.read_text()
                self.change_json(path, **values)
                self.refuse_weights(words, "meta")
                path.write_text(whole)

    def pth(self, content, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(self.meta / "consolidated.00.pth", "w", compression) as file:
            file.writestr("r/data.pkl", content)
            file.writestr("r/version", "3\n")

    def test_pth_files_that_are_not_a_dict_of_tensors(self):
        trap = self.folder / "trap"
        attack = pickle.dumps({"norm.weight": Touch(trap)}, protocol=2)
        for words, content in [
            ("'posix.system' is not part of a tensor dict; refused, nothing was executed", attack),
            ("protocol 4; only protocol 2 is read", pickle.dumps({}, protocol=4)),
            ("'model' is not a tensor; only a flat dict of tensors is read", pickle.dumps({"model": {}}, protocol=2)),
        ]:
            with self.subTest(words):
                self.pth(content)
                self.refuse_weights(words, "meta")
        self.pth(pickle.dumps({}, protocol=2), zipfile.ZIP_DEFLATED)
        self.refuse_weights("is compressed (method 8); only stored members are read", "meta")
        self.assertFalse(trap.exists())

    def test_containers_that_are_not_read(self):
        path = self.meta / "consolidated.00.pth"
        path.write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
        self.refuse_weights("is not a PyTorch ZIP archive; files saved by PyTorch before 1.6", "meta")
        path.rename(self.meta / "consolidated.01.pth")
        self.refuse_weights("consolidated.01.pth is where consolidated.00.pth was expected", "meta")
        for file in self.meta.iterdir():
            file.unlink()
        (self.meta / "pytorch_model.bin").write_bytes(b"")
        self.refuse_weights("pytorch_model*.bin is not read, save the model again as safetensors", "meta")

    def test_an_index_and_its_files(self):
        (self.hf / "model.safetensors").rename(self.hf / "model-00001-of-00001.safetensors")
        index = self.hf / "model.safetensors.index.json"
        for words, content in [
            ("index.json: has no object 'weight_map'", {}),
            ("'../other' is not a plain file name", {"weight_map": {"model.norm.weight": "../other"}}),
            ("is in another file too, or not in the index",
             {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}),
        ]:
            with self.subTest(words):
                index.write_text(json.dumps(content))
                self.refuse_weights(words, "hf")


class Tokenizers(ProgramTest):
    def setUp(self):
        super().setUp()
        self.good = json.loads(self.tokenizer().read_text())
        (self.folder / "text.txt").write_text("two plus two\n")

    def test_files_that_are_no_tokenizer_of_llama_3(self):
        lines = "".join(f"{word} {rank}\n" for rank, word in enumerate(["AA==", "AQ==", "Ag=="]))

        def changed(**model):
            return json.dumps({**self.good, "model": {**self.good["model"], **model}}).encode()

        vocab = self.good["model"]["vocab"]
        for words, content in [
            ("bad: the file is empty; download it again", b" \n"),
            ("is not `base64 rank`; a tokenizer.model of Llama 3 is text (SentencePiece models",
             b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n"),
            ("bad:2: `!!!!` is not base64; download the file again", lines.replace("AQ==", "!!!!").encode()),
            ("bad:3: rank 5 in a file of 3 tokens; ranks are 0, 1, 2, ... without gaps",
             lines.replace("2\n", "5\n").encode()),
            ("bad: the byte 0x03 is not a token of its own; the file is cut or not byte-level BPE", lines.encode()),
            ("bad: not valid JSON", json.dumps(self.good).encode()[:1000]),
            ("bad: model.type: WordPiece is not BPE", changed(type="WordPiece")),
            ("bad: normalizer: a normalizer would change the text",
             json.dumps({**self.good, "normalizer": {"type": "NFC"}}).encode()),
            ("the id 4000000000 of `a` is not one of 0 .. 299", changed(vocab={**vocab, "a": 4 * 10**9})),
            ("bad: model.merges[0]: `zq` is not in the vocabulary", changed(merges=["zq x"])),
        ]:
            with self.subTest(words):
                (self.folder / "bad").write_bytes(content)
                self.refuse(INPUT, words, tokenizer="bad", data__train="text.txt")

    def test_a_folder_without_a_tokenizer(self):
        (self.folder / "empty").mkdir()
        self.refuse(INPUT, "empty: the folder has neither tokenizer.json nor tokenizer.model", tokenizer="empty")


class Data(ProgramTest):
    def test_lines_that_are_no_sample(self):
        good = b'{"ids": [1, 2, 3]}\n'
        for words, content in [
            ("bad.jsonl:2: column 1: expected a JSON object in one line", b'[1, 2]\n'),
            ("bad.jsonl:2: the object has both \"text\" and \"ids\"; keep one of them", b'{"text": "a", "ids": [1]}\n'),
            ("bad.jsonl:2: the object has neither \"text\" nor \"ids\"", b'{"prompt": "a"}\n'),
            ("bad.jsonl:2: column 22: the key \"ids\" is there twice", b'{"ids": [1], "ids" : [2]}\n'),
            ("bad.jsonl:2: column 11: the line ends within a string", b'{"text": "\n'),
            ("bad.jsonl:2: column 17: \\ud800 is half of a surrogate pair", b'{"text": "\\ud800"}\n'),
            ("bad.jsonl:2: column 14: there is more after the JSON object; one object per line", b'{"ids": [1]} {}\n'),
            ("bad.jsonl:2: column 9: \"ids\" must be a list of integers, found `1`", b'{"ids": 1}\n'),
        ]:
            with self.subTest(words):
                (self.folder / "bad.jsonl").write_bytes(good + content)
                self.refuse(INPUT, words, data__train="bad.jsonl")

    def test_files_that_are_no_text(self):
        (self.folder / "utf16.txt").write_bytes("text".encode("utf-16-le"))
        self.refuse(INPUT, "utf16.txt:1: column 2: a NUL byte in plain text; is this a binary or UTF-16 file?",
                    data__train="utf16.txt")
        packed = gzip.compress(b'{"ids": [1, 2, 3]}\n' * 20)
        for words, content in [
            ("the gzip file is truncated: it ends within compressed data", packed[:-6]),
            ("the gzip file is damaged: incorrect data check", packed[:-8] + bytes(8)),
            ("the gzip file is damaged: incorrect header check", packed + b"garbage"),
        ]:
            with self.subTest(words):
                (self.folder / "bad.jsonl.gz").write_bytes(content)
                self.refuse(INPUT, words, data__train="bad.jsonl.gz")

    def test_a_gzip_file_of_one_endless_line(self):
        with gzip.open(self.folder / "bomb.txt.gz", "wb", compresslevel=1) as file:
            for _ in range(80):
                file.write(b"x" * (1 << 20))
        self.refuse(INPUT, "bomb.txt.gz:1: the line is longer than 67108864 bytes; split the document",
                    data__train="bomb.txt.gz")


class FullDisk(ProgramTest):
    """A limit on the size of files stands for a full disk where nobody may mount one."""

    def limited(self, limit, *arguments):
        def limit_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return subprocess.run(command(*arguments), cwd=self.folder, capture_output=True, encoding="utf-8", timeout=120,
                              preexec_fn=limit_files, check=False)

    def end(self, words, limit, *arguments):
        done = self.limited(limit, *arguments)
        self.assertEqual(done.returncode, INPUT, done.stderr)
        messages = [line for line in done.stderr.splitlines() if line.startswith("caravan:")]
        self.assertEqual(len(messages), 1, done.stderr)
        self.assertIn(words, messages[0])
        return messages[0]

    def test_a_checkpoint_that_does_not_fit_leaves_nothing_behind(self):
        self.end("/consolidated.00.pth: writing at byte 100000 failed: File too large", 100_000, "train", "run.yaml")
        self.assertEqual(list((self.folder / "out").glob("checkpoints/*")), [])
        self.assertIn("round", self.succeed("inspect", "out/results.h5").out)

    def test_a_last_checkpoint_that_does_not_fit_costs_the_state_and_not_the_model(self):
        options = overrides(mode="synchronous", training__steps=2)
        self.succeed("train", "run.yaml", *options)
        model = self.checkpoint(2) / "consolidated.00.pth"
        expected = model.read_bytes()
        shard = self.folder / "out" / "checkpoints" / "step_00000002" / "shard_00000.safetensors"
        self.assertGreater(shard.stat().st_size, 2 * len(expected))
        shutil.rmtree(self.folder / "out")
        for is_async in ("false", "true"):
            with self.subTest(is_async):
                message = self.end("File too large; the model of the end is written, the state of training is not",
                                   len(expected) + 4096, "train", "run.yaml", *options,
                                   *overrides(checkpoint__async=is_async, output__name="out"))
                self.assertIn("shard_00000.safetensors", message)
                self.assertEqual(model.read_bytes(), expected)
                self.assertEqual([path.name for path in model.parent.parent.iterdir()], [model.parent.name])
                shutil.rmtree(self.folder / "out")

    def test_a_converted_checkpoint_that_does_not_fit_leaves_nothing_behind(self):
        self.train(federated__rounds=1)
        self.end("/model.safetensors: writing at byte 100000 failed: File too large", 100_000, "convert", "--in",
                 self.checkpoint(1), "--out", "hf", "--to", "hf")
        self.assertFalse((self.folder / "hf").exists())
        self.assertEqual([path.name for path in self.folder.iterdir() if "tmp" in path.name], [])

    def test_a_tokenizer_that_does_not_fit_leaves_nothing_behind(self):
        self.end("tokenizer.json: cannot write: File too large; check the folder, its permissions and the free space", 1000,
                 "tokenizer", "train", CORPORA / "rhymes.train.txt", "--vocab-size", 400, "--out", "tokenizer.json")
        self.assertEqual(list(self.folder.glob("tokenizer*")), [])

    def test_standard_output_that_is_full(self):
        self.train(federated__rounds=0)
        for arguments in (["train", "--keys"], ["inspect", "out/results.h5"], ["--help"]):
            with self.subTest(arguments), open("/dev/full", "w", encoding="ascii") as full:
                done = subprocess.run(command(*arguments), cwd=self.folder, stdout=full, stderr=subprocess.PIPE,
                                      encoding="utf-8", timeout=60, check=False)
                self.assertEqual(done.returncode, INPUT, done.stderr)
                self.assertTrue(done.stderr.startswith("caravan: "), done.stderr)
                self.assertIn("standard output could not be written to its end", done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()
