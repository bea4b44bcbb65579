"""Say a class name and a transform code in words."""

import random

from tools.embedded_clip.transforms import GROUPS

BEFORE: dict[str, tuple[str, ...]] = {
    "close-up": ("close-up", "cropped", "zoomed"),
    "rotated": ("rotated", "sideways"),
    "upside-down": ("upside down", "flipped"),
    "tiny": ("tiny", "small", "distant"),
    "wide": ("wide", "squashed"),
    "tall": ("tall", "narrow"),
    "scrambled": ("scrambled", "shuffled"),
    "on-black": ("cut out",),
    "on-white": ("isolated",),
    "on-grey": ("masked",),
    "blurred": ("blurred", "blurry", "out of focus"),
    "pixelated": ("pixelated", "low resolution"),
    "sketch": ("sketched", "outlined"),
    "noisy": ("noisy", "grainy"),
    "silhouette": ("silhouetted",),
    "posterised": ("posterised", "flat"),
    "greyscale": ("greyscale", "grayscale", "grey", "black and white", "monochrome"),
    "red": ("red", "reddish"),
    "green": ("green", "greenish"),
    "blue": ("blue", "bluish"),
    "sepia": ("sepia", "brown", "old"),
    "dark": ("dark", "dim", "night"),
    "bright": ("bright", "overexposed", "light"),
    "inverted": ("inverted", "negative"),
    "faded": ("faded", "pale", "foggy"),
    "contrast": ("high contrast", "harsh"),
}
"""What to say before the class name."""

AFTER: dict[str, tuple[str, ...]] = {
    "close-up": ("up close",),
    "upside-down": ("upside down",),
    "tiny": ("far away", "in the distance"),
    "scrambled": ("in pieces",),
    "on-black": ("on black", "on a black background"),
    "on-white": ("on white", "on a white background"),
    "on-grey": ("on grey", "on a grey background"),
    "sketch": ("in outline",),
    "silhouette": ("in silhouette",),
    "greyscale": ("in black and white", "in greyscale"),
    "red": ("in red light",),
    "green": ("in green light",),
    "blue": ("in blue light",),
    "dark": ("in the dark", "at night"),
    "bright": ("in bright light",),
    "faded": ("in fog",),
}
"""What to say after it; a transform without an entry is said before."""

PLAIN = (
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "an image of a {}",
    "a good photo of a {}",
    "a {}",
    "the {}",
    "{}",
)
NOUNS = ("photo", "photo", "photo", "picture", "image")


def member_names(code: list[int]) -> list[str]:
    """Name the transforms of a code."""
    return [GROUPS[group][number - 1][0] for group, number in enumerate(code) if number]


def caption(name: str, code: list[int], draw: random.Random) -> str:
    """Write one caption of a class name under a transform code."""
    stop = draw.choice((".", "", ""))
    before, after = [], []
    for member in member_names(code):
        late = member in AFTER and draw.random() < (0.7 if member.startswith("on-") else 0.3)
        (after if late else before).append(draw.choice((AFTER if late else BEFORE)[member]))
    if not before and not after:
        return draw.choice(PLAIN).format(name) + stop
    draw.shuffle(before)
    adjectives, ending = " ".join(before), " ".join(["", *after])
    form = draw.random()
    if form < 0.45:
        text = f"a {adjectives} {draw.choice(NOUNS)} of a {name}{ending}"
    elif form < 0.65:
        text = f"a photo of a {adjectives} {name}{ending}"
    elif form < 0.9:
        text = f"{adjectives} {name}{ending}"
    else:
        text = f"a photo of a {name}, {adjectives}{ending}"
    return " ".join(text.split()) + stop
