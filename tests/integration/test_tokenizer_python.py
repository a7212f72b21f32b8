# The tokenizer commands against Python's `tokenizers` and `tiktoken`.
# TIMEOUT 300
"""Exits with 77 when `tokenizers` is not installed. The tiktoken part needs tiktoken and Llama 3's tokenizer.model
under CARAVAN_SHARED (or ../shared) and is left out, with a line that says so, where one is absent."""
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

try:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError:
    print("SKIPPED: the Python package `tokenizers` is not installed")
    sys.exit(77)

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SOURCE = os.environ["CARAVAN_SOURCE_DIR"]
PROGRAM = os.environ["CARAVAN_BIN"]
SHARED = os.environ.get("CARAVAN_SHARED", os.path.join(SOURCE, "..", "shared"))
CORPORA = [os.path.join(SOURCE, "configs", "quickstart", "data", name + ".train.txt")
           for name in ("general", "math", "qa", "rhymes")]


def caravan(*arguments, text=None):
    run = subprocess.run([PROGRAM, "tokenizer", *arguments], input=text, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return run.stdout


def encode(tokenizer, texts):
    lines = caravan("encode", "--tokenizer", tokenizer, "--json", text="".join(json.dumps(t) + "\n" for t in texts))
    return [json.loads(line) for line in lines.splitlines()]


def decode(tokenizer, ids):
    lines = caravan("decode", "--tokenizer", tokenizer, "--json", text="".join(json.dumps(i) + "\n" for i in ids))
    return [json.loads(line) for line in lines.splitlines()]


def sample_texts():
    """Corpus lines and random text of awkward characters, all assigned in this Python's Unicode version."""
    generator = random.Random(17)
    assigned = [c for c in map(chr, range(0x20000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    awkward = list(" \t\n\r'sStTlLrReEvVmMdD019.,!-_éß中\u0301\u00a0\u3000\u2028\u0085\u180e\u200b\u017f\u0130²½٣😀")
    texts = ["", " ", "a  b\n\n c", "'S 'LL 've", "x" * 500, "ab" * 300, " " * 300, "1234567 89"]
    texts += ["".join(generator.choices(awkward, k=generator.randint(1, 40))) for _ in range(3000)]
    texts += ["".join(generator.choices(assigned, k=generator.randint(1, 30))) for _ in range(3000)]
    for path in CORPORA:
        with open(path, encoding="utf-8") as lines:
            texts += [line.rstrip("\n") for line in lines][:500]
    return texts


def first_difference(texts, ours, theirs, what):
    assert len(ours) == len(theirs) == len(texts), (what, len(ours), len(theirs), len(texts))
    for text, a, b in zip(texts, ours, theirs):
        assert a == b, f"{what}: {text!r}: ours {a}, theirs {b}"


def compare_with_tokenizers(path, texts, what):
    reference = Tokenizer.from_file(path)
    theirs = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    first_difference(texts, encode(path, texts), theirs, what)
    first_difference(texts, decode(path, theirs), texts, what + ", decoded")
    return reference


def reference_trained(vocab_size, ignore_merges, special_tokens):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=special_tokens)
    lines = []
    for path in CORPORA:
        with open(path, encoding="utf-8") as stream:
            lines += [line.rstrip("\n") for line in stream]
    tokenizer.train_from_iterator([line for line in lines if line.strip()], trainer)
    return tokenizer


def check_trained(folder, texts):
    path = os.path.join(folder, "ours.json")
    caravan("train", *CORPORA, "--vocab-size", "1024", "--out", path)
    reference = compare_with_tokenizers(path, texts, "trained by caravan")
    size = reference.get_vocab_size()
    assert reference.token_to_id("<|begin_of_text|>") == size - 3
    assert reference.token_to_id("<|end_of_text|>") == size - 2
    assert reference.token_to_id("<|finetune_right_pad_id|>") == size - 1
    assert reference.encode("a").ids[0] == size - 3, "the file's template puts begin of text in front"
    trained = json.loads(reference_trained(size - 3, True, []).to_str())["model"]
    with open(path, encoding="utf-8") as stream:
        ours = json.load(stream)["model"]
    assert ours["vocab"] == trained["vocab"], "another vocabulary than BpeTrainer's"
    assert ours["merges"] == trained["merges"], "other merges than BpeTrainer's"


def check_foreign(folder, texts):
    path = os.path.join(folder, "foreign.json")
    for ignore_merges in (False, True):
        reference_trained(700, ignore_merges, ["<s>", "</s>"]).save(path)
        compare_with_tokenizers(path, texts, f"trained by tokenizers, ignore_merges {ignore_merges}")
    gpt2 = reference_trained(600, False, [])
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    gpt2.save(path)
    compare_with_tokenizers(path, texts, "GPT-2's own split")


def check_tiktoken(texts):
    path = os.path.join(SHARED, "data", "llama3-tokenizer", "tokenizer.model")
    try:
        import tiktoken
    except ImportError:
        print("SKIPPED the tiktoken part: the Python package `tiktoken` is not installed")
        return
    if not os.path.exists(path):
        print(f"SKIPPED the tiktoken part: {path} is absent")
        return
    with open(path, "rb") as stream:
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in stream)}
    reference = tiktoken.Encoding("llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    theirs = [reference.encode_ordinary(text) for text in texts]
    first_difference(texts, encode(path, texts), theirs, "tiktoken")
    first_difference(texts, decode(path, theirs), texts, "tiktoken, decoded")


texts = sample_texts()
with tempfile.TemporaryDirectory() as folder:
    check_trained(folder, texts)
    check_foreign(folder, texts)
check_tiktoken(texts)
print(f"{len(texts)} texts agree")
