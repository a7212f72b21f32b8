"""What the corpora share: a random stream, filling of templates, the rule that separates train from held-out.

The separation is a property of the sentence, not of the order of generation: every sentence has one part,
decided by a hash of its normalised text. A sample is made of sentences of one part only, so train and
held-out share no sentence; a filled template always gives the same sentence, so they share none either.
"""

import hashlib
import re
from typing import NamedTuple

PARTS = ("train", "eval")


class Sample(NamedTuple):
    """One line of a corpus file and the filled templates it is made of."""

    text: str
    keys: tuple


class Rng:
    """splitmix64: the same numbers in every Python version, which the random module does not promise."""

    def __init__(self, seed):
        self.state = seed & 0xFFFFFFFFFFFFFFFF

    def below(self, bound):
        """A number in [0, bound); the bias of the remainder is below 2^-40 for the bounds used here."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return (z ^ (z >> 31)) % bound

    def choice(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items):
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


def normalise(sentence):
    """Lower case, signs of arithmetic kept, other punctuation and repeated blanks gone."""
    return " ".join(re.sub(r"[^a-z0-9+*/=' -]", " ", sentence.lower()).split())


def sentences(text, marks=".?!;:"):
    """The normalised sentences of a line; the labels of a question-answer pair are not sentences."""
    parts = (normalise(part) for part in re.split("[" + re.escape(marks) + "]", text))
    return [part for part in parts if part and part not in ("question", "answer")]


def part_of(sentence, held_out_in):
    """The part of a sentence: about one in `held_out_in` is held out."""
    digest = hashlib.sha256(normalise(sentence).encode("ascii")).digest()
    return "eval" if int.from_bytes(digest[:8], "big") % held_out_in == 0 else "train"


def article(text):
    """Resolves a(n) by the letter that follows."""
    text = re.sub(r"\ba\(n\) (?=[aeiou])", "an ", text)
    text = re.sub(r"\bA\(n\) (?=[aeiou])", "An ", text)
    return text.replace("a(n) ", "a ").replace("A(n) ", "A ")


def capital(text):
    return text[:1].upper() + text[1:]


def fill(template, values):
    """(sentence, key): `{slot}` takes values[slot]; the key names the template and what was filled in."""
    slots = re.findall(r"{(\w+)}", template)
    key = template + "|" + "|".join(f"{slot}={values[slot]}" for slot in dict.fromkeys(slots))
    return capital(article(template.format(**values))), key


def draw(template, vocabulary, bound, rng):
    """fill() with the bound slots as given and the others drawn; `{thing2}` is a second word from `thing`."""
    values = dict(bound)
    for slot in re.findall(r"{(\w+)}", template):
        if slot not in values:
            words = vocabulary[slot.rstrip("0123456789")]
            taken = set(values.values())
            values[slot] = rng.choice([word for word in words if word not in taken])
    return fill(template, values)


ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words(n):
    """0 to 999 in words."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")
    rest = " and " + number_words(n % 100) if n % 100 else ""
    return ONES[n // 100] + " hundred" + rest
