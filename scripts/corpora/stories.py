"""The general corpus: short stories, letters and descriptions in simple English, several sentences a line.

Nothing here counts, asks and answers, or rhymes: a base model learns words, grammar and the thread of a story
from it and leaves the three tasks to be learned.
"""

from corpora.common import Rng, Sample, draw, part_of
from corpora.story_words import KINDS, VOCABULARY

HELD_OUT_IN = 8
BYTES = {"train": 820_000, "eval": 42_000}
SHORTEST, LONGEST = 140, 460
TRIES = 60


class NoFill(Exception):
    """Every try to fill a step fell into the other part or was used before: begin another story."""


def sentence(step, bound, part, used, rng):
    """An unused sentence of `part` from one of the step's templates."""
    for _ in range(TRIES):
        text, key = draw(rng.choice(step), VOCABULARY, bound, rng)
        if part_of(text, HELD_OUT_IN) == part and key not in used:
            return text, key
    raise NoFill


def story(part, used, rng):
    """One line: the steps of a kind in order, its hero, friend and place the same throughout."""
    kind = rng.choice(KINDS)
    bound = {}
    for slot in kind.bound:
        taken = set(bound.values())
        words = VOCABULARY[slot.rstrip("0123456789")]
        bound[slot] = rng.choice([word for word in words if word not in taken])
    texts, keys = [], []
    for step in kind.steps:
        text, key = sentence(step, bound, part, used, rng)
        texts.append(text)
        keys.append(key)
    return Sample(" ".join(texts), tuple(keys))


def build(seed):
    """{part: samples}; no sentence occurs twice."""
    rng = Rng(seed)
    samples, used = {"train": [], "eval": []}, set()
    for part, wanted_bytes in BYTES.items():
        size = 0
        while size < wanted_bytes:
            try:
                sample = story(part, used, rng)
            except NoFill:
                continue
            if SHORTEST <= len(sample.text) <= LONGEST:
                used.update(sample.keys)
                samples[part].append(sample)
                size += len(sample.text) + 1
    return {part: rng.shuffled(lines) for part, lines in samples.items()}
