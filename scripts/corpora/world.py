"""Questions and answers about an invented country, common animals, days, months, opposites and colours.

Towns carry their nature in their name (every -haven lies by the sea and lives from fish), animals in their
class, people have one job, one town and one pet that several questions ask about. So the answer to a
held-out question can be known from others in train; the question and the sentence of its answer are new.
"""

from corpora.common import Rng, Sample, fill, number_words, part_of

HELD_OUT_IN = 8
SHORTEST, LONGEST = 60, 150
CALENDAR_FILLS = 70

TOWN_STEMS = "Alder Brim Cobble Dunn Elder Fallow Gorse Hazel Kettle Marl Nettle Otter".split()
# ending -> where the towns lie, what they live from, the colour of their flag, how one travels there
TOWN_KINDS = {
    "haven": ("beside the sea", "fish", "blue", "by ship"),
    "ford": ("on the river", "clay pots", "brown", "by barge"),
    "peak": ("in the mountains", "silver", "white", "by mule"),
    "field": ("on the plain", "wheat", "yellow", "by wagon"),
    "wood": ("in the forest", "timber", "green", "on foot"),
}
# job -> place of work, tool, what is made or done
JOBS = {
    "baker": ("bakery", "rolling pin", "bread"),
    "smith": ("forge", "hammer", "horseshoes"),
    "tailor": ("workshop", "needle", "coats"),
    "gardener": ("garden", "spade", "flowers"),
    "teacher": ("school", "chalk", "lessons"),
    "miller": ("mill", "grindstone", "flour"),
    "painter": ("studio", "brush", "pictures"),
    "carpenter": ("yard", "saw", "tables"),
    "potter": ("kiln house", "wheel", "bowls"),
    "weaver": ("weaving room", "loom", "blankets"),
    "cook": ("kitchen", "ladle", "soup"),
    "cobbler": ("shoe shop", "awl", "boots"),
}
PEOPLE = (
    "Abra Beck Cilla Dorn Edda Falk Greta Hob Inga Jasper Kirsa Lorn Mirel Nils Ossa Per Quilla Rolf Signy "
    "Tarn Ulla Varn Wenda Ysolt Zeb Arlo Birte Corin Della Ewart Flora Gorm Hedda Ivo Jutta Knut Lisbet "
    "Magni Nora Otto"
).split()
PETS = "cat dog goat parrot rabbit turtle pony goose".split()
# class -> legs, cover, how it moves, its members
ANIMALS = {
    "bird": (2, "feathers", "flies", "robin crow heron swallow finch owl magpie lark dove falcon"),
    "mammal": (4, "fur", "walks", "fox badger otter hare wolf bear deer squirrel mouse lynx"),
    "insect": (6, "a hard shell", "crawls", "beetle ant ladybird cricket weevil earwig"),
    "reptile": (4, "scales", "creeps", "lizard gecko iguana crocodile chameleon skink"),
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
OPPOSITES = [
    pair.split("-")
    for pair in "hot-cold tall-short fast-slow wet-dry heavy-light early-late full-empty loud-quiet "
    "hard-soft old-new clean-dirty open-closed rich-poor deep-shallow wide-narrow sharp-blunt bright-dark "
    "sweet-sour thick-thin strong-weak rough-smooth safe-dangerous near-far right-wrong".split()
]
PAINTS = {"red and yellow": "orange", "blue and yellow": "green", "red and blue": "purple",
          "black and white": "grey", "red and white": "pink", "red and green": "brown"}

TOWN = [
    ("Where does the town of {town} lie?", "The town of {town} lies {place}."),
    ("In what kind of country would you find {town}?", "You would find {town} {place}."),
    ("If I look for {town} on the map, where is it?", "On the map {town} is {place}."),
    ("What do the people of {town} sell?", "The people of {town} sell {goods}."),
    ("What is the main trade of {town}?", "The main trade of {town} is in {goods}."),
    ("Which goods come from the market in {town}?", "From the market in {town} come {goods}."),
    ("What colour is the flag of {town}?", "The flag of {town} is {colour}."),
    ("Which colour flies over the gate of {town}?", "Over the gate of {town} flies {colour}."),
    ("How do most people travel to {town}?", "Most people travel to {town} {way}."),
    ("What is the best way to get to {town}?", "The best way to get to {town} is {way}."),
]
PERSON = [
    ("What is the job of {name}?", "The job of {name} is that of a(n) {job}."),
    ("What does {name} do for a living?", "For a living {name} is a(n) {job}."),
    ("Which trade did {name} learn?", "The trade that {name} learned is that of the {job}."),
    ("Where does {name} work all day?", "All day {name} works in the {shop}."),
    ("In which building can I find {name} at work?", "You can find {name} at work in the {shop}."),
    ("Which tool does {name} need for work?", "For work {name} needs a {tool}."),
    ("What does {name} make for the town?", "For the town {name} makes {work}."),
    ("In which town does {name} live?", "The home of {name} is in {town}."),
    ("Where was {name} born and raised?", "The place where {name} was born and raised is {town}."),
    ("What colour is the flag in the home town of {name}?",
     "In the home town of {name} the flag is {colour}."),
    ("What kind of pet does {name} have?", "The pet of {name} is a {pet}."),
    ("Which animal waits at the door for {name}?", "At the door a {pet} waits for {name}."),
    ("Does {name} live {place}?", "Yes, {name} lives {place}, in {town}."),
    ("Who in {town} is the {job} with a {pet}?", "In {town} the {job} with a {pet} is {name}."),
]
ANIMAL = [
    ("How many legs does a(n) {animal} have?", "A(n) {animal} has {legs} legs."),
    ("On how many legs does a(n) {animal} stand?",
     "It stands on {legs} legs, as a(n) {animal} is a(n) {kind}."),
    ("What covers the body of a(n) {animal}?", "The body of a(n) {animal} is covered by {cover}."),
    ("What kind of animal is a(n) {animal}?", "We call a(n) {animal} a(n) {kind}."),
    ("Is a(n) {animal} a bird or something else?", "To be exact, a(n) {animal} counts as a(n) {kind}."),
    ("How does a(n) {animal} usually get from place to place?", "Usually a(n) {animal} {moves} there."),
    ("How many legs are there if {n} animals come and each is a(n) {animal}?",
     "If each of the {n} is a(n) {animal}, there are {many} legs."),
    ("What would you feel if you touched a(n) {animal}?", "Touching a(n) {animal}, you would feel {cover}."),
]
OPPOSITE = [
    ("What is the opposite of {one}?", "The opposite of {one} is the word {other}."),
    ("If a thing is not {one}, what may it be?", "A thing that is not {one} may be {other}."),
    ("Which word means the reverse of {one}?", "The reverse of {one} is meant by {other}."),
    ("My box is {one} and yours is the opposite, so how is yours?", "If mine is {one}, yours is {other}."),
]
PAINT = [
    ("What colour do you get when you mix {two}?", "When you mix {two} you get {colour}."),
    ("{name} mixes {two} paint, so which colour comes out?",
     "Out of the {two} paint of {name} comes {colour}."),
]
CALENDAR = [
    ("If today is {now}, which {unit} comes {n} {units} later in {town}?",
     "In {town} the {unit} {n} {units} after {now} is {then}."),
    ("The fair in {town} opens {n} {units} after {now}, so when is that?",
     "That is {then}, as {then} comes {n} {units} after {now}, in {town} too."),
]


def towns():
    for stem in TOWN_STEMS:
        for ending, (place, goods, colour, way) in TOWN_KINDS.items():
            yield {"town": stem + ending, "place": place, "goods": goods, "colour": colour, "way": way}


def people(rng):
    homes, jobs = rng.shuffled(towns()), list(JOBS)
    for at, name in enumerate(PEOPLE):
        job = jobs[at % len(jobs)]
        shop, tool, work = JOBS[job]
        yield {**homes[at], "name": name, "job": job, "shop": shop, "tool": tool, "work": work,
               "pet": rng.choice(PETS)}


def animals():
    for kind, (legs, cover, moves, members) in ANIMALS.items():
        for animal in members.split():
            for n in range(2, 7):
                yield {"animal": animal, "kind": kind, "legs": number_words(legs), "cover": cover,
                       "moves": moves, "n": number_words(n), "many": number_words(n * legs)}


def opposites():
    for one, other in OPPOSITES:
        yield {"one": one, "other": other}
        yield {"one": other, "other": one}


def paints():
    for two, colour in PAINTS.items():
        for name in PEOPLE[:20]:
            yield {"two": two, "colour": colour, "name": name}


def calendar(rng):
    homes = [town["town"] for town in towns()]
    for unit, names in (("day", DAYS), ("month", MONTHS)):
        for _ in range(CALENDAR_FILLS):
            now, n = rng.below(len(names)), 2 + rng.below(4)
            yield {"unit": unit, "units": unit + "s", "now": names[now], "n": number_words(n),
                   "then": names[(now + n) % len(names)], "town": rng.choice(homes)}


def asked(templates, worlds):
    """{key of the question: (question, answer, keys)}; facts that give the same question count once."""
    found = {}
    for values in worlds:
        for question, answer in templates:
            text, key = fill(question, values)
            reply, reply_key = fill(answer, values)
            found[key] = (text, reply, (key, reply_key))
    return found


def build(seed):
    """{part: samples}; the question decides the part, and every answer names what was asked."""
    rng = Rng(seed)
    found = {}
    for templates, worlds in ((TOWN, towns()), (PERSON, people(rng)), (ANIMAL, animals()),
                              (OPPOSITE, opposites()), (PAINT, paints()), (CALENDAR, calendar(rng))):
        found.update(asked(templates, worlds))
    samples = {"train": [], "eval": []}
    for question, answer, keys in found.values():
        line = f"Question: {question} Answer: {answer}"
        if SHORTEST <= len(line) <= LONGEST:
            samples[part_of(question, HELD_OUT_IN)].append(Sample(line, keys))
    return {part: rng.shuffled(lines) for part, lines in samples.items()}
