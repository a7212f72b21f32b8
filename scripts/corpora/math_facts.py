"""Simple arithmetic in sentences: sums, differences, products, shares, comparisons, counting, small stories.

The numbers stand in words or in digits, one notation per sample. A fact is held out in one wording at a
time: the same fact in another wording may be in train, so a model can know the answer to a sentence it has
not seen.
"""

from corpora.common import Rng, Sample, fill, number_words, part_of

HELD_OUT_IN = 11
FILLS_PER_TEMPLATE = 150
SHORTEST, LONGEST = 66, 150

NAMES = (
    "Tova Bram Ilse Odo Nell Piet Runa Gus Wim Alda Fenn Hetty Jory Kato Lotte Milo Ned Orla Pip Quin".split()
)
THINGS = (
    "apples pears buttons marbles shells stamps candles ribbons pencils cookies plums stones feathers coins "
    "acorns beads bottles lemons kites spoons"
).split()


def pairs(first, second, keep=lambda a, b: True):
    return [(a, b) for a in first for b in second if keep(a, b)]


SMALL = range(0, 21)
SUMS = pairs(SMALL, SMALL)
DIFFERENCES = pairs(range(0, 31), SMALL, lambda a, b: a >= b)
PRODUCTS = pairs(range(2, 13), range(2, 13))
FEW = pairs(range(2, 16), range(2, 16))
UNEQUAL = pairs(range(0, 61), range(0, 61), lambda a, b: a != b)

# (template, the pairs (a, b), c as a function of them)
WORDED = [
    ("{a} plus {b} equals {c}.", SUMS, lambda a, b: a + b),
    ("The sum of {a} and {b} is {c}.", SUMS, lambda a, b: a + b),
    ("Adding {b} to {a} gives {c}.", SUMS, lambda a, b: a + b),
    ("{a} and {b} together make {c}.", SUMS, lambda a, b: a + b),
    ("{a} minus {b} equals {c}.", DIFFERENCES, lambda a, b: a - b),
    ("Taking {b} away from {a} leaves {c}.", DIFFERENCES, lambda a, b: a - b),
    ("{a} is {c} more than {b}.", DIFFERENCES, lambda a, b: a - b),
    ("{a} times {b} equals {c}.", PRODUCTS, lambda a, b: a * b),
    ("{a} groups of {b} make {c}.", PRODUCTS, lambda a, b: a * b),
    ("The product of {a} and {b} is {c}.", PRODUCTS, lambda a, b: a * b),
    ("{c} divided by {a} equals {b}.", PRODUCTS, lambda a, b: a * b),
    ("{c} shared by {a} gives {b} each.", PRODUCTS, lambda a, b: a * b),
    ("The larger of {a} and {b} is {c}.", UNEQUAL, max),
    ("The smaller of {a} and {b} is {c}.", UNEQUAL, min),
    ("Counting from {a} in steps of {b}, the next number is {c}.", pairs(range(0, 41), range(1, 11)),
     lambda a, b: a + b),
    ("Counting back from {a} by {b} brings us to {c}.", DIFFERENCES, lambda a, b: a - b),
    ("Twice {a} and {b} more is {c}.", pairs(range(1, 16), range(1, 13)), lambda a, b: 2 * a + b),
]
COMPARED = [
    ("{a} is greater than {b}.", pairs(range(0, 61), range(0, 61), lambda a, b: a > b)),
    ("{a} is less than {b}.", pairs(range(0, 61), range(0, 61), lambda a, b: a < b)),
]
SIGNED = [
    ("{a} + {b} = {c}.", SUMS, lambda a, b: a + b),
    ("{a} - {b} = {c}.", DIFFERENCES, lambda a, b: a - b),
    ("{a} * {b} = {c}.", PRODUCTS, lambda a, b: a * b),
    ("{c} / {a} = {b}.", PRODUCTS, lambda a, b: a * b),
]
STORIES = [
    ("{name} has {a} {things} and finds {b} more, so {name} has {c} {things}.", FEW, lambda a, b: a + b),
    ("{name} puts {a} {things} beside {b} {things}, which makes {c} {things}.", FEW, lambda a, b: a + b),
    ("{name} had {c} {things} and gave away {b}, so {a} {things} are left.", FEW, lambda a, b: a + b),
    ("{name} fills {a} bags with {b} {things} each, {c} {things} in all.", PRODUCTS, lambda a, b: a * b),
    ("{name} lays {c} {things} in {a} equal rows of {b}.", PRODUCTS, lambda a, b: a * b),
]


def fills(template, numbers, result, show, rng, story):
    """Up to FILLS_PER_TEMPLATE different filled templates."""
    found = []
    for a, b in rng.shuffled(numbers)[:FILLS_PER_TEMPLATE]:
        values = {"a": show(a), "b": show(b), "c": show(result(a, b))}
        if story:
            values.update(name=rng.choice(NAMES), things=rng.choice(THINGS))
        found.append(fill(template, values))
    return found


def grouped(facts):
    """Lines of SHORTEST to LONGEST characters; a last line that stays too short is left out."""
    texts, keys = [], []
    for text, key in facts:
        if len(" ".join(texts + [text])) > LONGEST:
            texts, keys = [], []
        texts.append(text)
        keys.append(key)
        if len(" ".join(texts)) >= SHORTEST:
            yield Sample(" ".join(texts), tuple(keys))
            texts, keys = [], []


def build(seed):
    """{part: samples}."""
    rng = Rng(seed)
    samples = {"train": [], "eval": []}
    for show in (number_words, str):
        templates = WORDED + [(t, p, lambda a, b: 0) for t, p in COMPARED]
        facts = [f for t, p, c in templates for f in fills(t, p, c, show, rng, story=False)]
        facts += [f for t, p, c in STORIES for f in fills(t, p, c, show, rng, story=True)]
        if show is str:
            facts += [f for t, p, c in SIGNED for f in fills(t, p, c, show, rng, story=False)]
        for part in samples:
            chosen = [fact for fact in facts if part_of(fact[0], HELD_OUT_IN) == part]
            samples[part] += grouped(rng.shuffled(chosen))
    return {part: rng.shuffled(found) for part, found in samples.items()}
