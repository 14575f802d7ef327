"""What can be named: the things, their colours, and the grounds that they stand on."""

from __future__ import annotations

# emojibase labels (`_` for a space) that are drawn. `label=name` renames one to a word that people
# say, `:word,word` adds other names for it, `/word` is a plural that the rules do not give.
_THINGS = """
monkey dog:puppy wolf/wolves fox raccoon cat:kitten,kitty lion tiger horse unicorn zebra deer/deer
cow pig ewe=sheep:lamb/sheep goat camel giraffe elephant rhinoceros
hippopotamus:hippo/hippopotamuses mouse/mice hamster rabbit:bunny hedgehog bat bear koala panda
sloth kangaroo rooster baby_chick=chick penguin eagle duck owl flamingo peacock parrot frog
crocodile turtle:tortoise snake:serpent dragon T-Rex=dinosaur whale dolphin seal fish/fish shark
octopus/octopuses jellyfish/jellyfish crab lobster snail butterfly ant honeybee=bee:bumblebee
lady_beetle=ladybug:ladybird spider scorpion rose sunflower tulip cactus/cacti palm_tree
evergreen_tree=pine four_leaf_clover=clover mushroom:toadstool watermelon tangerine=orange lemon
banana pineapple red_apple=apple pear peach/peaches cherries=cherry strawberry kiwi_fruit=kiwi
tomato/tomatoes avocado eggplant:aubergine carrot bell_pepper:capsicum onion croissant pretzel
waffle cheese_wedge=cheese hamburger:burger pizza hot_dog:frankfurter sandwich/sandwiches taco egg
soft_ice_cream=ice_cream doughnut:donut cookie birthday_cake=cake cupcake pie teapot beer_mug=beer
house castle volcano/volcanoes bus/buses fire_engine police_car taxi/taxis automobile=car
delivery_truck=truck tractor motorcycle bicycle:bike skateboard anchor sailboat airplane:plane
helicopter:copter rocket flying_saucer=UFO:saucer alarm_clock=clock full_moon=moon sun star cloud
rainbow snowman/snowmen fire=flame umbrella Christmas_tree balloon jack-o-lantern=pumpkin
wrapped_gift=gift:present trophy/trophies soccer_ball=football baseball basketball kite
game_die=die/dice teddy_bear:teddy t-shirt=shirt backpack running_shoe=shoe:sneaker crown
top_hat=hat ring gem_stone=gem:diamond bell microphone headphone radio saxophone trumpet accordion
guitar violin drum telephone=phone laptop camera television candle light_bulb=bulb:lamp
closed_book=book envelope=letter pencil key hammer axe:hatchet bomb magnet microscope telescope
chair toilet bucket shield robot ghost alien skull
"""

COLOURS = {
    "red": (205, 40, 44),
    "orange": (240, 138, 36),
    "yellow": (246, 212, 60),
    "green": (62, 158, 74),
    "blue": (48, 104, 208),
    "purple": (128, 66, 176),
    "pink": (242, 150, 186),
    "white": (244, 244, 242),
    "gray": (140, 142, 146),
    "black": (26, 26, 28),
}
"""Colours of the plain and patterned grounds, sRGB; the first seven are things' colours too."""

HUES = {
    "red": (0.0, 1.0),
    "orange": (27.0, 1.0),
    "yellow": (50.0, 1.0),
    "green": (125.0, 0.9),
    "blue": (214.0, 1.0),
    "purple": (275.0, 0.9),
    "pink": (335.0, 0.5),
}
"""Colours of things: the hue in degrees and what the saturation is multiplied with."""

PATTERNS = ("plain", "gradient", "stripes", "dots", "checks")
MATERIALS = ("grass", "sand", "wood", "brick", "water", "marble", "cloud", "starry night")
GROUNDS = (*PATTERNS, *MATERIALS)
"""Patterns come in each of `COLOURS`; materials have a colour of their own."""

STYLES = ("3d", "flat", "contrast", "noto")


class Thing:
    """A thing that mini can draw: the emojibase label of its art, its name and its other words."""

    def __init__(self, item: str) -> None:
        head, _, plural = item.replace("_", " ").partition("/")
        head, _, others = head.partition(":")
        self.label, _, name = head.partition("=")
        self.name = name or self.label
        self.others = tuple(filter(None, others.split(",")))
        self.plural = plural or pluralise(self.name)

    @property
    def words(self) -> tuple[str, ...]:
        return (self.name, *self.others)


def pluralise(name: str) -> str:
    """The regular plural: "cherries", "foxes", "keys"."""
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def with_article(name: str) -> str:
    """ "a cat", "an octopus", "a UFO"."""
    vowel = name[0] in "aeio" or (name[0] == "u" and not name.startswith("uni"))
    return f"{'an' if vowel else 'a'} {name}"


THINGS = tuple(Thing(item) for item in _THINGS.split())
THING_PLACES = {thing.name: index for index, thing in enumerate(THINGS)}
"""The place of each thing in `THINGS`."""

NATURAL = "natural"
"""The colour of a drawing as it is."""
ITEM_COLOURS = (NATURAL, *HUES)
