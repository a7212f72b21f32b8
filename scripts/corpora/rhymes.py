"""Short rhymes: two or four lines, every line ends on a thing and the lines of a pair rhyme."""

from corpora.common import Rng, Sample, draw, part_of

HELD_OUT_IN = 9
SAMPLES = {"train": 2400, "eval": 280}
SHORTEST, LONGEST = 60, 150

# One group per sound; all are things with "the", so every word fits every line.
SOUNDS = [
    group.split()
    for group in (
        "hat cat mat bat rat", "bear chair pear stair hare fair", "bell shell well", "boat goat coat moat",
        "moon spoon balloon raccoon", "tree bee sea key pea flea", "star car jar guitar",
        "house mouse blouse",
        "ring king swing string", "clock sock rock lock block flock", "cake lake snake rake", "pen hen den",
        "pig wig twig fig", "dog log frog", "bed shed sled thread", "nest vest chest guest", "fish dish",
        "nail snail whale tail pail sail", "train crane plane chain lane", "book brook hook cook",
        "fan pan van man can",
        "rose nose hose", "boot flute fruit suit", "door floor drawer store", "fox box ox", "bug mug jug rug",
        "hill mill quill", "crown gown town clown", "ball wall hall stall", "pie fly tie",
        "stone throne bone",
        "truck duck", "bread head", "knight kite light",
    )
]
VOCABULARY = {
    "adj": (
        "little merry sleepy silly golden gentle noisy tiny happy lonely dusty clever hungry jolly shiny "
        "furry speckled wobbly velvet rosy frosty snowy misty sunny"
    ).split(),
    "who": (
        "squirrel rabbit kitten puppy piglet sparrow donkey pony tailor sailor baker miller farmer fairy "
        "giant dragon hedgehog robin badger monkey penguin turtle"
    ).split(),
    "did": "jumped hopped skipped danced tumbled wandered tiptoed scampered galloped rolled".split(),
    "where": "over behind under beside across around above".split(),
    "when": "morning evening winter summer autumn Monday Sunday springtime".split(),
    "saw": "saw heard met found kissed tickled painted followed carried polished".split(),
    "thing": "button bucket pepper lantern feather pebble biscuit ribbon basket trumpet".split(),
}
FIRST = [
    "a(n) {adj} {who} {did} {where} the {rhyme}",
    "the {adj} {who} {saw} the {adj2} {rhyme}",
    "one {when} a(n) {who} {did} {where} the {rhyme}",
    "there once was a(n) {who} who {saw} the {rhyme}",
    "up {did} the {who} and {saw} the {rhyme}",
    "who {did} with the {who} {where} the {rhyme}",
    "the {who} and the {who2} {saw} the {rhyme}",
]
SECOND = [
    "and hid the {adj} {thing} {where} the {rhyme}",
    "and sang to the {who} {where} the {rhyme}",
    "then {did} on the {thing} and {saw} the {rhyme}",
    "but nobody {saw} the {adj} {rhyme}",
    "and gave the {thing} to the {adj} {rhyme}",
    "and all through the {when} it {saw} the {rhyme}",
    "while the {thing} {did} {where} the {rhyme}",
]
TRIES = 400


def line(templates, rhyme, part, rng):
    """A line of `part` that ends on `rhyme`."""
    for _ in range(TRIES):
        text, key = draw(rng.choice(templates), VOCABULARY, {"rhyme": rhyme}, rng)
        if part_of(text, HELD_OUT_IN) == part:
            return text[0].lower() + text[1:], key
    raise RuntimeError(f"no {part} line ends on {rhyme}: its templates have too few fills")


def couplet(part, rng):
    first, second = rng.shuffled(rng.choice(SOUNDS))[:2]
    lines = [line(FIRST, first, part, rng), line(SECOND, second, part, rng)]
    return ", ".join(text for text, _ in lines), tuple(key for _, key in lines)


def build(seed):
    """{part: samples}; no line occurs twice."""
    rng = Rng(seed)
    samples, used = {"train": [], "eval": []}, set()
    for part, wanted in SAMPLES.items():
        while len(samples[part]) < wanted:
            text, keys = couplet(part, rng)
            text = text[0].upper() + text[1:] + "."
            if SHORTEST <= len(text) <= LONGEST and used.isdisjoint(keys):
                used.update(keys)
                samples[part].append(Sample(text, keys))
    return {part: rng.shuffled(lines) for part, lines in samples.items()}
