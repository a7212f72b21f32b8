# The same samples in every form that data files take train the same model.
# TIMEOUT 120
import gzip
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from program import ProgramTest, corpus_lines, tensors_of_pth  # noqa: E402


class DataForms(ProgramTest):
    def setUp(self):
        super().setUp()
        self.tokenizer()
        self.texts = corpus_lines("qa.train", 29)
        self.evals = corpus_lines("qa.eval", 7)

    def write(self, name, lines, packed=False):
        data = "".join(line + "\n" for line in lines).encode()
        path = self.folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)
        return path.name

    def ids_of(self, texts):
        out = self.succeed("tokenizer", "encode", "--tokenizer", "tokenizer.json", "--json",
                           text="".join(json.dumps(text) + "\n" for text in texts)).out
        added = {entry["content"]: entry["id"]
                 for entry in json.loads((self.folder / "tokenizer.json").read_text())["added_tokens"]}
        begin, end = added["<|begin_of_text|>"], added["<|end_of_text|>"]
        return [json.dumps({"ids": [begin, *json.loads(line), end]}) for line in out.splitlines()]

    def test_half_a_surrogate_pair_is_encoded_like_other_bytes_that_are_no_text(self):
        lone, mended = ids = self.encode_lines('"a\\ud800b"\n"a\\ufffdb"\n')
        self.assertEqual(lone, mended, ids)
        pairs = self.encode_lines('"\\uD83D\\uDE00"\n"\U0001F600"\n"\\\\uD800"\n"\\\\uD800 "\n"\\uDE00\\uD83D"\n'
                                  '"\\uFFFD\\uFFFD"\n')
        self.assertEqual(pairs[0], pairs[1])
        self.assertNotEqual(pairs[2], lone)
        self.assertEqual(pairs[4], pairs[5])

    def encode_lines(self, text):
        out = self.succeed("tokenizer", "encode", "--tokenizer", "tokenizer.json", "--json", text=text).out
        return [json.loads(line) for line in out.splitlines()]

    def forms(self):
        """name: (train, eval)"""
        as_json = [json.dumps({"id": number, "text": text}) for number, text in enumerate(self.texts)]
        eval_json = [json.dumps({"text": text}) for text in self.evals]
        forms = {}
        for packed in (False, True):
            suffix = " gz" if packed else ""
            forms["plain text" + suffix] = (self.write("a.txt", self.texts, packed),
                                            self.write("b.txt", self.evals, packed))
            forms["JSONL text" + suffix] = (self.write("a.jsonl", as_json, packed),
                                            self.write("b.jsonl", eval_json, packed))
            forms["JSONL ids" + suffix] = (self.write("i.jsonl", self.ids_of(self.texts), packed),
                                           self.write("j.jsonl", self.ids_of(self.evals), packed))
        # Windows line ends, a byte order mark, blank lines, no line end at the end.
        (self.folder / "odd.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(self.texts).encode())
        forms["odd text"] = ("odd.txt", "b.txt")
        for number, part in enumerate((self.texts[:10], self.texts[10:11], self.texts[11:])):
            self.write(f"part-{number}.txt", part, packed=number == 1)
        forms["glob"] = ("part-*", "b.txt")
        forms["list"] = ("[part-0.txt, part-1.txt.gz, part-2.txt]", "b.txt")
        self.write("mixed.jsonl", as_json[:13] + self.ids_of(self.texts)[13:])
        forms["text and ids"] = ("mixed.jsonl", "j.jsonl")
        return forms

    def test_every_form_trains_the_same_model(self):
        expected = None
        for name, (train, evaluation) in self.forms().items():
            with self.subTest(name):
                folder = name.replace(" ", "-")
                self.train(tokenizer="tokenizer.json", data__train=train, data__eval=evaluation, data__max_seq_len=40,
                           output__dir=folder, data__name="same")
                found = (self.rounds_text(folder), tensors_of_pth(self.checkpoint(2, folder) / "consolidated.00.pth"))
                expected = expected or found
                self.assertEqual(found[0], expected[0])
                self.assertEqual(found[1], expected[1])

    def test_the_data_set_is_named_after_its_first_file(self):
        for given, name in (("a.jsonl.gz", "a"), ("b.txt", "b"), ("[c.d.jsonl, b.txt]", "c.d"), ("*.d.js*", "c.d")):
            path = given.strip("[").split(",")[0].replace("*.d.js*", "c.d.jsonl")
            self.write(path.removesuffix(".gz"), self.ids_of(self.texts) if "jsonl" in path else self.texts,
                       packed=path.endswith(".gz"))
            self.train("--overwrite", tokenizer="tokenizer.json", data__train=given, federated__rounds=0)
            self.assertRegex(self.succeed("inspect", "out/results.h5").out, rf"data set +{name}\n")


if __name__ == "__main__":
    unittest.main()
