"""Words and sentence templates of the general corpus (scripts/corpora/stories.py).

A kind of story is a list of steps; a step is a list of sentence templates of which one is taken. The slots in
`bound` keep their word for the whole story; every template has two or more free slots beside them, so that a
step can be filled anew for thousands of stories.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of story: the slots that stay the same and the steps in order."""

    bound: tuple
    steps: list


VOCABULARY = {
    "hero": (
        "Anselm Beatrix Clement Dorothea Edwin Frida Gerard Helena Isidor Johanna Konrad Leonie Matthias "
        "Norbert Ottilie Paulina Rupert Sabine Theodor Ursula Valentin Winifred Barnaby Cordelia Desmond "
        "Estelle Fergus Gwendolyn Humphrey Imogen Jerome Lavinia Mortimer Nadine Percival Rosalind "
        "Sylvester Tabitha Vivian Wallace"
    ).split(),
    "kin": (
        "mother|father|aunt|uncle|grandmother|grandfather|sister|brother|cousin|neighbour|old friend|landlady"
    ).split("|"),
    "place": (
        "harbour|orchard|old bridge|market square|railway station|library|lighthouse|churchyard|vineyard|"
        "quarry|empty barn|river bank|village green|stone tower|ferry landing|beech wood|castle garden|"
        "post office|fishing pier|hillside|chapel|canal|greenhouse|courtyard"
    ).split("|"),
    "adj": (
        "quiet|narrow|ancient|pleasant|crooked|splendid|modest|weathered|handsome|gloomy|curious|cheerful|"
        "faded|elegant|rusty|fragrant|solid|lonely|peculiar|charming|shabby|graceful|mysterious|comfortable"
    ).split("|"),
    "mood": (
        "tired|proud|worried|grateful|nervous|content|restless|relieved|puzzled|hopeful|homesick|excited|"
        "ashamed|calm|impatient|delighted"
    ).split("|"),
    "how": (
        "slowly|carefully|without a word|in a hurry|with a smile|at once|with great care|patiently|silently|"
        "eagerly|after a while|with some trouble|politely|gladly"
    ).split("|"),
    "time": (
        "on a foggy evening|late in the afternoon|before sunrise|during the long winter|after the harvest|"
        "on the last day of the holidays|one rainy night|at the end of the week|early in spring|around noon|"
        "when the bells rang|in the middle of the night|shortly before supper|on a windy morning"
    ).split("|"),
    "weather": (
        "rain|snow|fog|sunshine|a cold wind|a warm breeze|thunder|hail|frost|mist|moonlight|a grey sky"
    ).split("|"),
    "item": (
        "letter|map|umbrella|violin|suitcase|compass|photograph|silver watch|notebook|woollen scarf|"
        "brass key|wooden chest|teapot|picture frame|walking stick|leather bag|telescope|music box|"
        "fountain pen|hat box|candlestick|diary|ticket|parcel|travelling coat|bicycle|lamp|mirror"
    ).split("|"),
    "room": (
        "kitchen|attic|cellar|hallway|parlour|study|pantry|stable|garden shed|bedroom|laundry|workshop"
    ).split("|"),
    "furniture": (
        "cupboard|writing desk|bookshelf|armchair|mantelpiece|window seat|wardrobe|bench|dresser|piano"
    ).split("|"),
    "food": (
        "lentil soup|roast chicken|apple tart|fresh cheese|honey cakes|potato pie|smoked trout|pancakes|"
        "mushroom stew|gingerbread|cherry jam|onion bread|baked pears|cold ham"
    ).split("|"),
    "drink": "tea|coffee|cider|hot milk|lemonade|cocoa|cold water|apple juice".split("|"),
    "animal": (
        "a grey heron|a stray dog|two swans|a herd of cows|a flock of geese|a thin cat|a pair of horses|"
        "an old donkey|a family of ducks|a swarm of bees|a tame jackdaw|a shy hedgehog"
    ).split("|"),
    "person": (
        "postman|captain|innkeeper|doctor|schoolmaster|farmer|clockmaker|ferryman|gardener|musician|"
        "librarian|shepherd|widow|stranger|soldier|watchman|merchant|photographer"
    ).split("|"),
    "walked": "walked|hurried|strolled|cycled|wandered|limped|marched|drove|rode".split("|"),
    "found": "found|noticed|discovered|picked up|caught sight of|came across|spotted".split("|"),
    "thought": (
        "that the journey had been worth the trouble|that nobody would believe it|that there was still time|"
        "that it was better to wait|that something had changed|that the winter would be long|"
        "that an honest answer was needed|that the house felt smaller than before|that it must be a mistake|"
        "that old friends are hard to replace|that tomorrow would be easier|that luck comes to the patient"
    ).split("|"),
    "news": (
        "the roof has been repaired|the river has risen again|the new teacher has arrived|"
        "the harvest was good|the mill has been sold|the road to the coast is closed|"
        "the choir sang very well|the baby has a tooth|the storm broke the fence|the shop has a new owner|"
        "the roses are in bloom|the ferry runs again|the old oak fell down|the well has run dry"
    ).split("|"),
    "plan": (
        "visit the museum|repair the boat|plant a hedge|learn to swim|paint the shutters|"
        "write to the council|travel to the coast|sell the wagon|take lessons in drawing|clean the chimney|"
        "bring the sheep home|sort the old papers|build a shelf|listen to the band"
    ).split("|"),
    "colour": "red green blue yellow brown white black grey golden silver violet crimson".split(),
    "building": (
        "cottage|farmhouse|inn|town hall|windmill|boathouse|school|theatre|bakery|warehouse|manor|gatehouse"
    ).split("|"),
    "plant": (
        "roses|ivy|lavender|sunflowers|nettles|apple trees|tall grass|ferns|tulips|bramble|moss|willows"
    ).split("|"),
    "sound": (
        "the ticking of a clock|a distant train|footsteps on the gravel|children at play|"
        "the wind in the chimney|a fiddle|the creak of a door|church bells|the splash of oars|"
        "somebody singing|rain on the roof|a saw"
    ).split("|"),
    "smell": (
        "fresh bread|wood smoke|wet earth|paint|salt and seaweed|old books|soap|hay|pine needles|burnt sugar|"
        "leather|coffee"
    ).split("|"),
}

OPENING = [
    "{hero} {walked} to the {place} {time}, with {weather} all around.",
    "{time}, {hero} {walked} past the {place} and thought of {sound}.",
    "There was {weather} over the {place} when {hero} left the {building} {time}.",
    "{hero} had lived near the {place} for years and knew every {adj} {building} there.",
    "{hero} woke {time} because of {sound} and could not sleep for the smell of {smell}.",
    "Nobody at the {place} expected {hero} to come {time} in a {adj} {colour} coat.",
    "{time}, the {person} asked {hero} to bring a(n) {item} to the {place}.",
]
MEETING = [
    "A(n) {adj} {person} was waiting there {time} with a(n) {item}.",
    "Near the {building}, {hero} met a(n) {mood} {person} who was carrying a(n) {adj} {item}.",
    "The {person} greeted {hero} {how} and pointed to the {adj} {building}.",
    "Beside the {place} stood a(n) {person}, {mood} and {mood2}, next to {animal}.",
    "{animal} crossed the road, and the {person} laughed {how} about the {adj} {item}.",
    "From the {building} came the smell of {smell}, and a(n) {mood} {person} opened the door {how}.",
]
EVENT = [
    "Behind the {furniture} in the {room}, {hero} {found} a(n) {adj} {item}.",
    "{hero} {how} opened the {colour} {item} and {found} a(n) {adj} {item2} inside.",
    "Suddenly they heard {sound}, and the {person} dropped the {adj} {item}.",
    "They sat down in the {room} and shared {food} and {drink} with the {person}.",
    "The {item} had been lying under the {adj} {furniture} since the {person} left.",
    "{hero} told the {person} about the {adj} {item} and the {building} by the {place}.",
    "Then {weather} came up, and they carried the {item} {how} into the {room}.",
]
FEELING = [
    "{hero} felt {mood} and believed {thought}.",
    "The {person} looked {mood} and said {how} {thought}.",
    "It seemed to {hero} {thought}, and the {person} agreed {how}.",
    "For a moment the {person} was {mood}, yet {hero} remained {mood2} and looked at the {item}.",
]
ENDING = [
    "In the end {hero} went home {how} and put the {item} on the {furniture}.",
    "Since then the {adj} {item} has been kept in the {room} beside the {furniture}.",
    "That night {hero} drank {drink} in the {room} and listened to {sound}.",
    "When {weather} returned, {hero} gave the {item} to the {person} {how}.",
    "Years later the {person} still talked about {hero} and the {adj} {item}.",
    "At home there were {food} and {drink}, and {hero} slept {how} until {sound} began.",
]
GREETING = [
    "Dear {hero}, we thank you {how} for the {adj} {item} and the {food}.",
    "Dear {hero}, your {item} arrived {time}, and the {person} brought it {how}.",
    "Dear {hero}, I am writing from the {place}, where there is {weather} and the smell of {smell}.",
    "Dear {hero}, I feel {mood} as I write this in the {room}, with {sound} outside.",
]
TIDINGS = [
    "You will be {mood} to hear that {news} and that the {person} is well.",
    "Here {news}, and your {kin} is {mood} about it.",
    "The {person} says that {news}, but the {kin} does not believe it.",
    "Since you left, {news}, and the {building} has a(n) {colour} door.",
]
WISH = [
    "Next month I want to {plan}, if the {person} lends me a(n) {item}.",
    "Your {kin} hopes to {plan} and asks you {how} for the {adj} {item}.",
    "Please come {time}, so that we can {plan} with the {kin}.",
    "We would like to {plan}, and then have {food} with the {person} in the {room}.",
]
FAREWELL = [
    "With love from the {building}, your {mood} {kin} {hero2}.",
    "Please greet the {person} and do not forget the {item}, your {kin} {hero2}.",
    "I remain your {mood} friend {hero2}, {how} looking after the {item}.",
]
VIEW = [
    "The {building} near the {place} is {adj} and {adj2}, with a(n) {colour} roof.",
    "Beyond the {place} stands a(n) {adj} {building} with {colour} shutters and {plant} by the gate.",
    "Between the {place} and the {place2} there is a(n) {adj} path lined with {plant}.",
    "Visitors to the {place} remember the {colour} {building} and the {plant} around it.",
]
DETAIL = [
    "In the {room} hangs a(n) {adj} {item} above a(n) {colour} {furniture}.",
    "{plant} and {plant2} grow along the wall, and in the yard there is often {animal}.",
    "The {room} smells of {smell}, and from the {furniture} one can hear {sound}.",
    "A(n) {person} keeps a(n) {colour} {item} on the {adj} {furniture}.",
    "On some days {weather} hides the {place}, and only {sound} reaches the {room}.",
]
CUSTOM = [
    "The {person} comes {time} and brings {food} for everybody in the {building}.",
    "{time}, people meet in the {room} to eat {food} and drink {drink}.",
    "It is said that a(n) {mood} {person} once hid a(n) {item} in the {room}.",
    "Children believe that {animal} will bring a(n) {item} {time}.",
    "Whoever stays {time} should ask the {person} for {drink} and {food}.",
]
TASK = [
    "The {kin} of {hero} wanted to {plan}, although there was {weather} at the {place}.",
    "{hero} promised the {person} to {plan} {time}.",
    "{hero} had wanted to {plan} for years, as the {kin} and the {person} knew.",
    "{hero} and the {kin} decided {how} to {plan} and to {plan2}.",
]
WORK = [
    "First they fetched a(n) {item} and a(n) {adj} {item2} from the {room}.",
    "The {kin} worked {how} while {hero} carried the {furniture} out of the {room}.",
    "The {person} lent them a(n) {colour} {item} and offered {drink} with {food}.",
    "By the time they reached the {place}, there was {weather} and everyone was {mood}.",
    "{hero} stopped {how} when {animal} appeared in front of the {building}.",
]

KINDS = [
    Kind(("hero", "place", "person"), [OPENING, MEETING, EVENT, ENDING]),
    Kind(("hero", "place", "person"), [OPENING, EVENT, FEELING, ENDING]),
    Kind(("hero", "place", "person"), [OPENING, MEETING, EVENT, FEELING]),
    Kind(("hero", "kin", "hero2"), [GREETING, TIDINGS, WISH, FAREWELL]),
    Kind(("building", "place"), [VIEW, DETAIL, CUSTOM]),
    Kind(("building", "place"), [VIEW, DETAIL, DETAIL, CUSTOM]),
    Kind(("hero", "kin", "place", "person"), [TASK, WORK, EVENT, ENDING]),
    Kind(("hero", "kin", "place", "person"), [TASK, WORK, FEELING]),
]
