# eval and generate from a checkpoint that a run wrote: the run's own loss, the same tokens with and without cache.
# TIMEOUT 200
import json
import math
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import CORPORA, ProgramTest, corpus_lines  # noqa: E402


class WithIds(ProgramTest):
    def setUp(self):
        super().setUp()
        self.train()
        self.weights = self.checkpoint(2)

    def evaluate(self, *arguments):
        return json.loads(self.succeed("eval", "--checkpoint", self.weights, "--data", "eval.jsonl", "--json",
                                       "--max-seq-len", 24, *arguments).out)

    def generate(self, *arguments):
        out = self.succeed("generate", "--checkpoint", self.weights, "--ids", "17,4,9", *arguments).out
        return [int(word) for word in out.split()]

    def test_eval_gives_the_loss_of_the_last_round(self):
        result = self.evaluate()
        self.assertEqual((2, result["loss"], result["perplexity"]), self.history()[-1])
        rows = [json.loads(line)["ids"] for line in (self.folder / "eval.jsonl").read_text().splitlines()]
        self.assertEqual(result["tokens"], sum(len(row) - 1 for row in rows))
        self.assertAlmostEqual(self.evaluate("--batch-size", 1)["loss"], result["loss"], delta=1e-6)
        self.assertAlmostEqual(self.evaluate("--dtype", "float64")["loss"], result["loss"], delta=1e-6)
        words = self.succeed("eval", "--checkpoint", self.weights, "--data", "eval.jsonl").out.split()
        self.assertEqual(words[0::2], ["loss", "perplexity", "tokens"])

    def test_the_unigram_loss_is_that_of_the_counts(self):
        counts = [1] * 256
        for line in (self.folder / "train.jsonl").read_text().splitlines():
            for target in json.loads(line)["ids"][1:]:
                counts[target] += 1
        targets = [target for line in (self.folder / "eval.jsonl").read_text().splitlines()
                   for target in json.loads(line)["ids"][1:]]
        expected = -sum(math.log(counts[target] / sum(counts)) for target in targets) / len(targets)
        self.assertAlmostEqual(self.evaluate("--unigram", "train.jsonl")["unigram_loss"], expected, places=12)

    def test_wrong_questions_to_eval(self):
        self.expect_failure(1, "none.jsonl: there is no such data file", "eval", "--checkpoint", self.weights, "--data",
                            "none.jsonl")
        self.expect_failure(1, "none: the checkpoint folder cannot be read", "eval", "--checkpoint", "none", "--data",
                            "eval.jsonl")
        (self.folder / "text.txt").write_text("some words\n")
        self.expect_failure(2, "text.txt:1: this sample is text, and no tokenizer is given", "eval", "--checkpoint",
                            self.weights, "--data", "text.txt")
        self.expect_failure(2, "3 ranks cannot share this model: parallel.tp is 3, which does not divide the model's 8",
                            "eval", "--checkpoint", self.weights, "--data", "eval.jsonl", ranks=3)
        self.expect_failure(2, "3 ranks cannot make 2 equal stages; start a multiple of 2, or give another --pp",
                            "eval", "--checkpoint", self.weights, "--data", "eval.jsonl", "--pp", 2, ranks=3)
        self.expect_failure(1, "none: the checkpoint folder cannot be read", "eval", "--checkpoint", "none", "--data",
                            "eval.jsonl", ranks=2)

    def test_ranks_share_the_model_and_answer_once(self):
        how = ["-n", 20, "--temperature", 1, "--dtype", "float64"]
        loss, ids = self.evaluate("--dtype", "float64"), self.generate(*how)
        for ranks, pp in ((2, 1), (8, 1), (2, 2), (8, 2)):
            result = self.succeed("eval", "--checkpoint", self.weights, "--data", "eval.jsonl", "--json", "--max-seq-len",
                                  24, "--dtype", "float64", "--pp", pp, ranks=ranks)
            found = json.loads(result.out)
            self.assertEqual(found["tokens"], loss["tokens"])
            self.assertAlmostEqual(found["loss"] / loss["loss"], 1, delta=1e-12)
            out = self.succeed("generate", "--checkpoint", self.weights, "--ids", "17,4,9", *how, "--pp", pp,
                               ranks=ranks).out
            self.assertEqual([int(word) for word in out.split()], ids)

    def test_the_cache_changes_no_token(self):
        for how in ([], ["--temperature", 1, "--seed", 3], ["--temperature", 2, "--top-k", 20, "--top-p", 0.9]):
            with self.subTest(how):
                ids = self.generate("-n", 40, *how)
                self.assertEqual(len(ids), 40)
                self.assertEqual(self.generate("-n", 40, "--no-cache", *how), ids)
                self.assertEqual(self.generate("-n", 40, *how), ids)
                self.assertEqual(self.generate("-n", 7, *how), ids[:7])

    def test_sampling_options_mean_what_they_say(self):
        greedy = self.generate("-n", 20)
        self.assertEqual(self.generate("-n", 20, "--temperature", 3, "--top-k", 1), greedy)
        self.assertEqual(self.generate("-n", 20, "--temperature", 3, "--top-p", 1e-9), greedy)
        self.assertNotEqual(self.generate("-n", 20, "--temperature", 3, "--seed", 1),
                            self.generate("-n", 20, "--temperature", 3, "--seed", 2))

    def test_wrong_questions_to_generate(self):
        for words, arguments in [
            ("--ids: 256 is outside the model's vocabulary of 256", ["--ids", 17, 256]),
            ("--ids: -1 is outside", ["--ids", -1]),
            ("--ids", ["--ids", "a"]),
            ("an empty text is no id", ["--ids", ""]),
            ("--prompt needs a tokenizer", ["--prompt", "hello"]),
            ("give either --prompt TEXT or --ids", []),
            ("give either --prompt TEXT or --ids", ["--prompt", "hello", "--ids", 1]),
            ("--max-new-tokens: Value 0 not in range", ["--ids", 1, "-n", 0]),
            ("--top-p: Value 0 not in range", ["--ids", 1, "--top-p", 0]),
            ("nan is no number to sample with", ["--ids", 1, "--temperature", "nan"]),
            ("3 ranks cannot share this model", ["--ids", 1]),
            ("1 rank cannot make 2 equal stages", ["--ids", 1, "--pp", 2]),
            ("3 stages, but the model has only 2 layers", ["--ids", 1, "--pp", 3]),
        ]:
            with self.subTest(words):
                self.expect_failure(2, words, "generate", "--checkpoint", self.weights, *arguments,
                                    ranks=3 if words.startswith("3 ") else 1)


class WithText(ProgramTest):
    def setUp(self):
        super().setUp()
        self.tokenizer()
        (self.folder / "rhymes.txt").write_text("\n".join(corpus_lines("rhymes.train", 12)) + "\n")
        self.train(tokenizer="tokenizer.json", mode="synchronous", training__steps=60, optimizer__lr=1e-2,
                   data__train="rhymes.txt", data__eval=CORPORA / "rhymes.eval.txt", data__max_seq_len=96)
        self.weights = self.checkpoint(60)

    def generate(self, *arguments):
        return self.succeed("generate", "--checkpoint", self.weights, *arguments).out

    def test_the_checkpoint_brings_its_tokenizer_and_its_text(self):
        text = corpus_lines("rhymes.train", 1)[0]
        prompt = text[:len(text) // 2]
        out = self.generate("--prompt", prompt, "-n", 30)
        self.assertTrue(out.startswith(prompt) and len(out) > len(prompt) + 2, out)
        self.assertEqual(self.generate("--prompt", prompt, "-n", 30, "--no-cache"), out)
        self.assertEqual(self.generate("--prompt", prompt, "-n", 30, "--tokenizer", "tokenizer.json"), out)

    def test_an_empty_prompt_continues_the_begin_token(self):
        begin = json.loads((self.folder / "tokenizer.json").read_text())["added_tokens"][0]["id"]
        made = self.generate("--ids", begin, "-n", 12, "--ignore-stop")
        decoded = self.succeed("tokenizer", "decode", "--tokenizer", "tokenizer.json", "--json",
                               text=json.dumps([int(word) for word in made.split()]) + "\n").out
        self.assertEqual(self.generate("--prompt", "", "-n", 12, "--ignore-stop"), json.loads(decoded) + "\n")

    def test_streamed_text_is_the_decoded_ids(self):
        prompt = "The gr\u00fc\u00dfe \U0001F600"
        encoded = self.succeed("tokenizer", "encode", "--tokenizer", "tokenizer.json", "--json",
                               text=json.dumps(prompt) + "\n").out
        begin = json.loads((self.folder / "tokenizer.json").read_text())["added_tokens"][0]["id"]
        ids = [begin, *json.loads(encoded)]
        how = ["-n", 60, "--temperature", 1.5, "--seed", 4, "--ignore-stop"]
        made = self.generate("--ids", ",".join(map(str, ids)), *how)
        decoded = self.succeed("tokenizer", "decode", "--tokenizer", "tokenizer.json", "--json",
                               text=json.dumps([int(word) for word in made.split()]) + "\n").out
        self.assertEqual(self.generate("--prompt", prompt, *how), prompt + json.loads(decoded) + "\n")


if __name__ == "__main__":
    unittest.main()
