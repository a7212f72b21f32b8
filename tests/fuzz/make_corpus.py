#!/usr/bin/env python3
"""Writes the seeds under corpus/: small files of every kind, good ones and ones with a lie in them, made here from
nothing. Run it after a change and commit what it writes; inputs found by the fuzzers go to crashes/ by hand."""
import base64
import gzip
import json
import pathlib
import pickle
import struct
import zlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def save(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


# ---- pickles of protocol 2, opcode by opcode

def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module, what):
    return f"c{module}\n{what}\n".encode()


def integer(value):
    if -2**31 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def integers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


ORDERED = name("collections", "OrderedDict") + b")R"


def tensor(key="0", numel=8, offset=0, size=(2, 4), stride=(4, 1), storage="FloatStorage"):
    persistent = b"(" + text("storage") + name("torch", storage) + text(key) + text("cpu") + integer(numel) + b"tQ"
    return (name("torch._utils", "_rebuild_tensor_v2") + b"(" + persistent + integer(offset) + integers(size) +
            integers(stride) + b"\x89" + ORDERED + b"tR")


def tensor_dict(**tensors):
    return b"\x80\x02}(" + b"".join(text(key.replace("__", ".")) + value for key, value in tensors.items()) + b"u."


def pickles():
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + tensor() + b"\x88" + ORDERED + b"tR"
    return {
        "one": tensor_dict(w=tensor()),
        "empty": b"\x80\x02}.",
        "memo": b"\x80\x02}q\x00(" + text("a") + b"q\x01" + tensor() + b"q\x02" + text("b") + b"h\x02u.",
        "long_memo": b"\x80\x02}r\x00\x01\x00\x00(" + text("a") + tensor() + b"u.",
        "types": tensor_dict(a=tensor(storage="BFloat16Storage"), b=tensor(storage="LongStorage"),
                             c=tensor(storage="BoolStorage"), d=tensor(storage="HalfStorage")),
        "parameter": b"\x80\x02" + ORDERED + text("w") + parameter + b"s}" + text("_metadata") + ORDERED + b"sb.",
        "transposed": tensor_dict(w=tensor(size=(4, 2), stride=(1, 4))),
        "scalar": tensor_dict(w=tensor(size=(), stride=(), numel=1)),
        "expanded": tensor_dict(w=tensor(size=(1000, 4), stride=(0, 1))),
        "huge": tensor_dict(w=tensor(size=(2**60, 4), stride=(0, 1))),
        "outside": tensor_dict(w=tensor(offset=2**62, size=(2, 4))),
        "literals": b"\x80\x02}" + text("x") + b"](NG" + bytes(8) + b"\x88K\x01M\x01\x02\x8a\x01\xffU\x01xes.",
        "attack": b"\x80\x02cos\nsystem\n" + text("true") + b"\x85R.",
        "plain": pickle.dumps({"a": [1, 2.5, None, True, ("x",)]}, protocol=2),
    }


# ---- ZIP archives of stored members

def member(where, content, at, zip64, claim=None, place=None):
    """The local header with its content, and the directory's entry, which may claim another size and place."""
    data = where.encode()
    crc = zlib.crc32(content)
    claim = len(content) if claim is None else claim
    place = at if place is None else place
    size = 0xFFFFFFFF if zip64 else claim
    extra = struct.pack("<HHQQQ", 1, 24, claim, claim, place) if zip64 else b""
    offset = 0xFFFFFFFF if zip64 else place
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, 0, crc, size, size, len(data), 0) + data + content
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 45, 45, 0, 0, 0, 0, crc, size, size, len(data), len(extra),
                        0, 0, 0, 0, offset) + data + extra
    return local, entry


def archive(members, zip64=False, comment=b"", count=None, **lies):
    body, directory = b"", b""
    for where, content in members:
        local, entry = member(where, content, len(body), zip64, **lies)
        body += local
        directory += entry
    count = len(members) if count is None else count
    at = len(body)
    end = b""
    if zip64:
        record = len(body) + len(directory)
        end += struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, len(directory), at)
        end += struct.pack("<IIQI", 0x07064B50, 0, record, 1)
    small = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (count, count, len(directory), at)
    end += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *small, len(comment)) + comment
    return body + directory + end


def archives():
    two = [("r/a", b"first"), ("r/data/0", b"second member")]
    return {
        "two": archive(two),
        "zip64": archive(two, zip64=True),
        "comment": archive(two, comment=b"PK\x05\x06 not the end"),
        "empty": archive([]),
        "twice": archive([("a", b"1"), ("a", b"2")]),
        "outside": archive([("../a", b"1")]),
        "many_claimed": archive(two, zip64=True, count=2**60),
        "size_claimed": archive(two, claim=1000),
        "huge_size_claimed": archive(two, zip64=True, claim=2**60),
        "place_claimed": archive(two, place=1000),
        "huge_place_claimed": archive(two, zip64=True, place=2**63),
        "overlapping": archive(two, place=0),
        "cut": archive(two)[:-10],
    }


def torch_files():
    def file(content, storage=struct.pack("<8f", *range(8)), **options):
        return archive([("r/data.pkl", content), ("r/byteorder", b"little"), ("r/data/0", storage),
                        ("r/version", b"3\n")], **options)
    lower = tensor(offset=4, size=(2, 2), stride=(1, 2))
    return {
        "one": file(tensor_dict(w=tensor())),
        "zip64": file(tensor_dict(w=tensor()), zip64=True),
        "views": file(tensor_dict(all=tensor(), lower=lower, gap=tensor(size=(2, 2), stride=(4, 3)))),
        "bfloat16": file(tensor_dict(w=tensor(storage="BFloat16Storage")), bytes(16)),
        "five_dims": file(tensor_dict(w=tensor(size=(1, 1, 1, 2, 4), stride=(8, 8, 8, 4, 1)))),
        "huge": file(tensor_dict(w=tensor(size=(2**60, 4), stride=(0, 1)))),
        "short_storage": file(tensor_dict(w=tensor()), bytes(4)),
        "size_claimed": file(tensor_dict(w=tensor(numel=2**58, size=(2**58,), stride=(1,))), zip64=True, claim=2**60),
        "no_pickle": archive([("r/version", b"3\n")]),
        "script": archive([("r/constants.pkl", b""), ("r/version", b"3\n")]),
        "legacy": b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
    }


# ---- safetensors

def safetensors_file(header, data=b"", size=None):
    encoded = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(encoded) if size is None else size) + encoded + data


def safetensors():
    def entry(dtype="F32", shape=(2, 4), begin=0, end=32):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    data = struct.pack("<8f", *range(8))
    return {
        "one": safetensors_file({"w": entry()}, data),
        "metadata": safetensors_file({"__metadata__": {"format": "pt"}, "w": entry()}, data),
        "types": safetensors_file({"a": entry("BF16", (4,), 0, 8), "b": entry("F16", (4,), 8, 16),
                                   "c": entry("I64", (1,), 16, 24), "d": entry("BOOL", (8,), 24, 32)}, data),
        "scalar_and_empty": safetensors_file({"s": entry("F64", (), 0, 8), "e": entry("U8", (0, 5), 8, 8)}, data[:8]),
        "empty": safetensors_file({}),
        "padded": safetensors_file('{"w":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}      ', data),
        "huge_header": safetensors_file({"w": entry()}, data, size=2**60),
        "huge_tensor": safetensors_file({"w": entry("F32", (2**31, 2**31), 0, 2**62)}, data),
        "overflow": safetensors_file({"w": entry("F64", (2**40, 2**40), 0, 32)}, data),
        "hole": safetensors_file({"w": entry(begin=4, end=36)}, data),
        "twice": safetensors_file('{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                                  '"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "five_dims": safetensors_file({"w": entry("U8", (1, 1, 1, 2, 4), 0, 8)}, data[:8]),
    }


# ---- model shapes

def model_shapes():
    meta = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 256, "multiple_of": 32,
            "ffn_dim_multiplier": 1.5, "norm_eps": 1e-05, "rope_theta": 500000.0}
    hf = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 160,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
          "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True,
          "max_position_embeddings": 4096}
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}
    return {
        "meta": json.dumps(meta),
        "meta_scaled": json.dumps({**meta, "use_scaled_rope": True, "vocab_size": -1}),
        "meta_wrapped": json.dumps({"model": meta}),
        "hf": json.dumps(hf),
        "hf_scaled": json.dumps({**hf, "rope_scaling": scaling}),
        "hf_five": json.dumps({**hf, "rope_parameters": {**scaling, "rope_theta": 5e5}}),
        "huge": json.dumps({**meta, "dim": 2**60}),
        "odd": json.dumps({**meta, "n_heads": 3, "norm_eps": -1}),
        "nested": "[" * 70 + "]" * 70,
    }


# ---- manifests of training checkpoints

def manifests():
    """The checksum in the first line is wrong in all: the target makes it right."""
    sum_ = "0123456789abcdef"
    state = {"step": 3, "optimizer_step": 3, "data_position": 12, "step_records": 3, "history_records": 1, "seed": 7,
             "random_state": "", "commit": "abc", "ranks": 2, "mesh": "tp 2", "config": "mode: synchronous\n",
             "extra": {"model": "{\"dim\": 8}"}}
    # One matrix cut by columns over two files, and a vector and a scalar whole in the first.
    tensors = [["w", "F32", [4, 6]], ["norm", "BF16", [8]], ["t", "F64", []]]
    files = [["shard_00000.safetensors", 72 + 48 + 16 + 8, 72, sum_], ["shard_00001.safetensors", 72 + 48, 72, sum_]]
    pieces = [[0, 0, 72, 120, [0, 4, 0, 3], sum_], [1, 0, 120, 136, [0, 8], sum_], [2, 0, 136, 144, [], sum_],
              [0, 1, 72, 120, [0, 4, 3, 6], sum_]]

    def manifest(tensors=tensors, files=files, pieces=pieces, version=1, **changes):
        return '{"checksum": "0000000000000000",\n' + json.dumps(
            {"format": "caravan training checkpoint", "format_version": version, "id": sum_,
             "state": {**state, **changes}, "tensors": tensors, "files": files, "pieces": pieces})[1:]

    def one(shape, region, size, dtype="U8"):
        """A manifest of one tensor in one piece."""
        return manifest([["w", dtype, shape]], [[files[0][0], 16 + size, 16, sum_]], [[0, 0, 16, 16 + size, region, sum_]])
    boxes = [[0, 2, 0, 2, 0, 1], [0, 2, 0, 2, 1, 2]]
    return {
        "one": manifest(),
        "empty": manifest([], [], []),
        "no_elements": manifest([["e", "I64", [0, 5]]], [[files[0][0], 16, 16, sum_]], []),
        "three_dims": manifest([["w", "U8", [2, 2, 2]]], [[files[0][0], 24, 16, sum_]],
                               [[0, 0, 16 + 4 * i, 20 + 4 * i, box, sum_] for i, box in enumerate(boxes)]),
        "four_dims": one([1, 2, 1, 2], [0, 1, 0, 2, 0, 1, 0, 2], 4),
        "huge": one([2**31, 2**31], [0, 2**31, 0, 2**31], 2**62),
        "overflow": one([2**40, 2**40], [0, 2**40, 0, 2**40], 16, "F64"),
        "outside": one([4], [0, 5], 5),
        "overlapping": manifest(pieces=pieces[:3] + [[0, 1, 72, 120, [0, 4, 2, 5], sum_]]),
        "hole": manifest(pieces=pieces[:3]),
        "gap": manifest(files=[files[0], [files[1][0], 2**62, 72, sum_]]),
        "index": manifest(pieces=[[2**62, 9, 72, 120, [0, 4, 0, 3], sum_]]),
        "path": manifest(files=[files[0], ["../shard_00001.safetensors", 120, 72, sum_]]),
        "twice": manifest(tensors + [["t", "F64", [0]]]),
        "version": manifest(version=2),
        "state": manifest(step=-1, seed=-2**63, ranks=0),
        "escapes": manifest(config="caf\u00e9 \u0000 \U0001f600", commit="\x1b[2J"),
        "nested": manifest()[:-2] + ', "more": ' + "[" * 70 + "]" * 70 + "}",
        "cut": manifest()[:400],
    }


# ---- tokenizers

def byte_alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def tokenizer_model(tokens):
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))


def tokenizer_models():
    single = [bytes([byte]) for byte in range(256)]
    more = [b"he", b"ll", b"hell", b"hello", b" w", b"12", "é".encode(), b"aa", b"aaaa"]
    good = tokenizer_model(single + more)
    return {
        "bytes": tokenizer_model(single),
        "merged": good,
        "crlf": good.replace("\n", "\r\n"),
        "cut": good[:1000],
        "gap": good.replace(" 100\n", " 1000000000000\n"),
        "few": "aGVsbG8= 0\nIQ== 1\n",
        "sentencepiece": b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n",
    }


def tokenizer_jsons():
    letters = byte_alphabet()
    vocab = {letters[byte]: byte for byte in range(256)}
    pairs = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("a", "a"), ("aa", "aa"), ("Ġ", "w")]
    for left, right in pairs:
        vocab.setdefault(left + right, len(vocab))
    special = [{"id": len(vocab) + i, "content": content, "special": True}
               for i, content in enumerate(["<|begin_of_text|>", "<|end_of_text|>"])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    def split(pattern):
        return {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, level]}
    def file(ascii_only=False, **changes):
        model = {"type": "BPE", "dropout": None, "ignore_merges": False, "vocab": vocab,
                 "merges": [f"{left} {right}" for left, right in pairs], **changes.pop("model", {})}
        root = {"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": split(r"\s?\w+|\W"),
                "decoder": level, "model": model, **changes}
        return json.dumps(root, ensure_ascii=ascii_only, separators=(",", ":"))
    return {
        "split": file(),
        "escaped": file(ascii_only=True),
        "gpt2": file(pre_tokenizer={**level, "use_regex": True}),
        "whole": file(pre_tokenizer=level, model={"ignore_merges": True}),
        "pairs": file(model={"merges": [list(pair) for pair in pairs]}),
        "no_merges": file(model={"merges": []}),
        "backtracking": file(pre_tokenizer=split("(a+)+b|(x|a)*c")),
        "normalizer": file(normalizer={"type": "NFC"}),
        "cut": file()[:2000],
        "wordpiece": json.dumps({"model": {"type": "WordPiece", "vocab": {"a": 0}}}),
        "minimal": json.dumps({"pre_tokenizer": level, "model": {"vocab": {"a": 0}, "merges": []}}),
    }


# ---- data

def data_lines():
    return {
        "text": '{"text": "Two plus two"}\n{"text": "equals four", "id": 7}\n',
        "ids": '{"ids": [1, 2, 3]}\n\n{"ids": []}\n{"ids": [999]}\r\n',
        "escapes": r'{"text": "a\n\"\\\/\u00e9\ud83d\ude00\u0000"}' + "\n",
        "ignored": '{"meta": {"a": [1, -2.5e+3, true, null, "x"]}, "text": "kept"}',
        "bom": "\ufeff" + '{"text": "mark"}\n',
        "nested": '{"x": ' + "[" * 130 + "]" * 130 + ', "text": ""}\n',
        "both": '{"text": "a", "ids": [1]}\n',
        "twice": '{"text": "a", "text": "b"}\n',
        "surrogate": r'{"text": "\ud800"}' + "\n",
        "number": '{"ids": [99999999999999999999]}\n',
        "plain": "a line of text\nanother one\n",
        "latin": '{"text": "caf\xe9"}\n'.encode("latin-1"),
        "utf16": "text".encode("utf-16"),
        "blank": "\n \t\n\r\n",
    }


def gzip_files():
    lines = b"".join(b'{"ids": [%d, %d]}\n' % (i, i + 1) for i in range(30))
    whole = gzip.compress(lines, mtime=0)
    named = whole[:3] + b"\x08" + whole[4:10] + b"name.jsonl\x00" + whole[10:]
    return {
        "one": whole,
        "stored": gzip.compress(lines[:100], compresslevel=0, mtime=0),
        "members": gzip.compress(lines, mtime=0) + gzip.compress(b'{"text": "second"}\n', mtime=0),
        "zeros_after": whole + bytes(50),
        "garbage_after": whole + b"garbage",
        "empty_member": gzip.compress(b"", mtime=0),
        "named": named,
        "cut": whole[:-6],
        "wrong_sum": whole[:-8] + bytes(8),
        "bomb": gzip.compress(bytes(2 << 20), mtime=0),
        "plain": lines[:60],
        "magic_only": b"\x1f\x8b",
    }


# ---- configurations

def configurations():
    run = """mode: federated
seed: 7
model: {preset: tiny}
data: {train: [train.jsonl, "*.gz"], eval: eval.jsonl, max_seq_len: 24}
optimizer: {lr: 1.0e-3, betas: [0.9, 0.95]}
federated: {rounds: 2, batch_size: 4, outer: {lr: 0.7, momentum: 0.9}}
output: {dir: out}
"""
    return {
        "run": run,
        "synchronous": "mode: synchronous\nmodel:\n  preset: tiny\ndata:\n  train: ~/x.txt\ntraining:\n  steps: 4\n",
        "unknown": run + "seeed: 1\n",
        "twice": run + "seed: 8\n",
        "types": "seed: 3.5\nthreads: many\noptimizer: 3\ndata: [1]\nmodel: {preset: [x]}\n",
        "anchors": "a: &a {lr: 1}\noptimizer: *a\n<<: *a\n",
        "bomb": "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(f"{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old}]\n"
                                                      for old, new in zip("abcdefg", "bcdefgh")),
        "include": "include: [other.yaml, other.yaml]\nseed: 1\n",
        "tag": "seed: !!int 3\nmodel: !x {preset: tiny}\n",
        "documents": "seed: 1\n---\nseed: 2\n",
        "nested": "[" * 100 + "]" * 100,
        "block": "output:\n  name: |\n    text\n  dir: >-\n    folded\n    text\n",
        "numbers": "seed: 9223372036854775808\noptimizer: {lr: .inf, eps: 1e-400}\n",
        "list": "- a\n- b\n",
    }


def main():
    for target, files in [("pickle", pickles()), ("zip", archives()), ("torch_file", torch_files()),
                          ("safetensors", safetensors()), ("model_json", model_shapes()), ("manifest", manifests()),
                          ("tokenizer_model", tokenizer_models()), ("tokenizer_json", tokenizer_jsons()),
                          ("jsonl", data_lines()), ("gzip", gzip_files()), ("yaml", configurations())]:
        for stem, content in files.items():
            save(target, stem, content)


if __name__ == "__main__":
    main()
