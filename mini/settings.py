"""Every setting of the embedded backbone, in one place.

``Settings()`` is what the shipped weights were trained with; ``Settings.smoke()`` runs every
stage for a few steps and is what the tests use.
"""

from dataclasses import dataclass, field, replace

# npm packages, both MIT: the art (256x256 RGBA) and its English labels and tags.
ART_PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
LABEL_PACKAGE = "emojibase-data@17.0.0"

# emojibase labels (`_` for a space) that are drawn; `label=name` renames one to a word that people
# say, `:word,word` adds other names for it. Names and words are the label's own or emojibase tags.
CONCEPTS = """
monkey dog:puppy wolf fox raccoon cat:kitten,kitty lion tiger horse unicorn zebra deer cow pig
ewe=sheep:lamb goat camel giraffe elephant rhinoceros hippopotamus:hippo mouse hamster rabbit:bunny
hedgehog bat bear:grizzly koala panda sloth kangaroo rooster baby_chick=chick penguin eagle duck
owl flamingo peacock parrot frog crocodile turtle:tortoise snake:serpent dragon
T-Rex:dinosaur,tyrannosaurus whale dolphin seal fish shark octopus jellyfish crab lobster snail
butterfly ant honeybee=bee:bumblebee lady_beetle=ladybug:ladybird spider scorpion
rose sunflower tulip cactus palm_tree evergreen_tree:pine four_leaf_clover=clover
mushroom:toadstool
grapes watermelon tangerine=orange lemon banana pineapple red_apple=apple pear peach cherries:cherry
strawberry kiwi_fruit=kiwi tomato avocado eggplant:aubergine carrot ear_of_corn=corn:maize
bell_pepper:capsicum broccoli onion bread:loaf croissant pretzel pancakes:pancake waffle
cheese_wedge=cheese hamburger:burger french_fries=fries pizza hot_dog:frankfurter sandwich taco egg
popcorn sushi soft_ice_cream=ice_cream:icecream doughnut:donut cookie birthday_cake=cake cupcake pie
chocolate_bar=chocolate hot_beverage=coffee:cafe teapot wine_glass=wine beer_mug=beer:ale
house castle volcano bus fire_engine police_car taxi:cab automobile=car delivery_truck=truck tractor
motorcycle bicycle:bike skateboard anchor sailboat:boat,yacht airplane:plane,aeroplane
helicopter:copter rocket flying_saucer=UFO:saucer alarm_clock:clock full_moon=moon sun star cloud
rainbow snowman fire:flame umbrella
Christmas_tree balloon jack-o-lantern:pumpkin wrapped_gift=gift:present trophy soccer_ball:soccer
baseball basketball american_football=football kite pool_8_ball:billiard game_die=die:dice
teddy_bear:teddy glasses:eyeglasses sunglasses t-shirt:shirt jeans:trousers
backpack:rucksack running_shoe=shoe:sneaker crown top_hat:hat ring gem_stone=diamond:gem bell
microphone:mic headphone radio saxophone:sax trumpet accordion guitar musical_keyboard=piano violin
drum telephone:phone laptop camera television:tv candle light_bulb:bulb,lamp
closed_book=book envelope:letter pencil scissors key hammer axe:hatchet bomb magnet microscope
telescope chair:seat toilet bucket:pail shield robot ghost alien skull
"""

# The ten background colours, sRGB.
COLOURS = {
    "white": (244, 244, 242),
    "gray": (140, 142, 146),
    "black": (26, 26, 28),
    "red": (205, 40, 44),
    "orange": (240, 138, 36),
    "yellow": (246, 212, 60),
    "green": (62, 158, 74),
    "blue": (48, 104, 208),
    "purple": (128, 66, 176),
    "pink": (242, 150, 186),
}


@dataclass(frozen=True)
class Scenes:
    """How labels become captioned pictures. Sizes are fractions of the picture's side."""

    size: int = 128
    pair_share: float = 0.3
    single_extent: tuple[float, float] = (0.82, 0.86)
    pair_extent: tuple[float, float] = (0.42, 0.45)
    jitter: float = 0.012
    colour_jitter: float = 8.0  # standard deviation of the ground colour, of 255
    caption_colour: float = 0.75  # share of captions that name the ground colour
    caption_tag: float = 0.3  # share of labels replaced by one of their tags
    caption_bare: float = 0.15  # share of labels without an article
    held_out: float = 0.1  # share of label pairs, and of (label, colour), never trained on


@dataclass(frozen=True)
class Vae:
    channels: tuple[int, ...] = (16, 32, 64, 128)
    latent_channels: int = 16
    crop: int = 64
    batch: int = 16
    steps: int = 2200
    whole_from: float = 0.75  # from this share of the steps on, whole pictures instead of crops
    lr: float = 2e-3
    kl: float = 3e-4
    seed: int = 11


@dataclass(frozen=True)
class Clip:
    """Two text towers (the pipeline wants two) against one vision tower."""

    vocabulary: int = 3000
    tokens: int = 16
    text_width: int = 128
    text_layers: int = 3
    vision_width: int = 192
    vision_layers: int = 4
    patch: int = 16
    projection: int = 128
    batch: int = 192
    steps: int = 450
    lr: float = 1e-3
    seed: int = 21
    judge_seed: int = 1021
    judge_steps: int = 300
    reward_seed: int = 2021
    reward_steps: int = 600
    reward_drawn: tuple[int, int] = (100, 75)  # mini's pictures of one thing, of two, to score


@dataclass(frozen=True)
class Transformer:
    layers: int = 8
    heads: int = 7
    head_dim: int = 32
    patch: int = 2
    cache: int = 16_384  # compositions whose latents are computed once
    batch: int = 32
    steps: int = 3_380
    warmup: int = 50
    decay: float = 0.45  # share of the steps over which the rate falls to zero
    muon_lr: float = 0.02
    adamw_lr: float = 1e-3
    shift: float = 2.0
    text_dropout: float = 0.1
    ema: float = 0.998
    padding: int = 8  # zero tokens in the place of T5's
    long_every: int = 32  # one step in so many pads with 256, the stock pipeline's default
    pairs_from: int = 3_000  # from this step on, pairs, which take longer to learn, fill …
    pairs_share: float = 0.6  # … this share of every batch
    seed: int = 31


@dataclass(frozen=True)
class Quality:
    """The reward that reads no prompt; ``severities`` are the strongest that it sees, by kind."""

    widths: tuple[int, ...] = (32, 64, 96)
    hidden: int = 64
    severities: dict[str, float] = field(
        default_factory=lambda: {
            "noise": 25.0,  # standard deviation, of 255
            "blur": 2.5,  # standard deviation, pixels
            "ringing": 0.85,  # share of the frequencies up to Nyquist's that is cut away
            "latent": 0.6,  # t of the noise left in mini's latent, of 1
        }
    )
    held_out: float = 0.1  # share of the things that are kept from training
    pool: int = 768  # scenes to degrade
    levels: int = 4  # showings of each with noise in the latent, the first with none
    groups: int = 8  # of a batch: pictures that suffer the same
    bases: int = 4  # scenes in a group, each shown twice
    steps: int = 900
    lr: float = 2e-3
    seed: int = 3021
    measured: int = 150  # held-out scenes that the ordering is measured on
    drawn: int = 40  # trajectories of mini that it is measured on


@dataclass(frozen=True)
class Sampling:
    """What the exported pipeline is configured with and measured at."""

    shift: float = 3.0
    steps: int = 15
    guidance: float = 3.0


@dataclass(frozen=True)
class Settings:
    scenes: Scenes = field(default_factory=Scenes)
    vae: Vae = field(default_factory=Vae)
    clip: Clip = field(default_factory=Clip)
    transformer: Transformer = field(default_factory=Transformer)
    sampling: Sampling = field(default_factory=Sampling)
    quality: Quality = field(default_factory=Quality)

    @classmethod
    def smoke(cls) -> "Settings":
        base = cls()
        return cls(
            vae=replace(base.vae, steps=4, batch=2),
            clip=replace(
                base.clip, steps=3, judge_steps=3, reward_steps=3, reward_drawn=(2, 2), batch=8
            ),
            transformer=replace(
                base.transformer, steps=3, batch=4, cache=32, layers=2, pairs_from=2
            ),
            sampling=replace(base.sampling, steps=2),
            quality=replace(base.quality, steps=3, pool=8, groups=4, measured=4, drawn=2),
        )
