"""The toy world: procedural 32 x 32 images with captions, the embedded stand-in for the papers'
data.

Two products come out of the same painter:

- :func:`scenes`: single objects, then crowded scenes, with captions; the base is trained on these.
- :func:`task_arrays`: six classification tasks of different kinds (shapes, digits, letters,
  textures, signs, colours). Each has a look of its own, and train, dev and test hold out
  generative factors:
  fonts (digits, letters), pairs of colours (all), pattern frequencies (textures), tilt (signs,
  shapes).

Everything is numpy arithmetic from explicit seeds; images are uint8, N x 32 x 32 x 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import numpy_rng
from bvlib.worlds import glyphs

SIZE = 32
COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 138, 25),
    "yellow": (246, 216, 45),
    "green": (44, 150, 60),
    "cyan": (60, 200, 215),
    "blue": (40, 80, 205),
    "purple": (126, 50, 160),
    "pink": (246, 140, 190),
    "brown": (120, 76, 40),
    "grey": (130, 132, 136),
    "white": (245, 245, 245),
    "black": (18, 18, 22),
}
COLOUR_NAMES = list(COLOURS)
RGB = np.array(list(COLOURS.values()), np.float32) / 255
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = "ABCEFGHJKLMNPRTUVWXY"
SHAPES = [
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "diamond",
    "heart",
    "crescent",
    "arrow",
    "hexagon",
]
TEXTURES = [
    "horizontal stripes",
    "vertical stripes",
    "diagonal stripes",
    "checkerboard",
    "dots",
    "grid",
    "waves",
    "rings",
    "zigzag",
    "bricks",
]
SIGNS = {  # outline, border, fill, pictogram, its colour
    "stop": ("octagon", "white", "red", "bar", "white"),
    "no entry": ("disc", "red", "red", "bar", "white"),
    "yield": ("down", "red", "white", None, "white"),
    "warning": ("up", "red", "white", "!", "black"),
    "speed limit 30": ("disc", "red", "white", "30", "black"),
    "speed limit 50": ("disc", "red", "white", "50", "black"),
    "speed limit 80": ("disc", "red", "white", "80", "black"),
    "turn left": ("disc", "white", "blue", "left", "white"),
    "turn right": ("disc", "white", "blue", "right", "white"),
    "ahead only": ("disc", "white", "blue", "up", "white"),
    "parking": ("box", "white", "blue", "P", "white"),
    "priority road": ("kite", "white", "yellow", None, "yellow"),
    "pedestrian crossing": ("box", "white", "blue", "walker", "white"),
}
RUNES = [glyphs.rune_name(i) for i in range(150)]
NUMBERS = [str(n) for n in range(10, 100)]
# Kinds of thing and the class names of each: what the text tower has to tell apart (more than 300
# names).
KINDS = {
    "shapes": SHAPES,
    "digits": NUMBER_WORDS,
    "letters": [c.lower() for c in LETTERS],
    "textures": TEXTURES,
    "signs": list(SIGNS),
    "colours": COLOUR_NAMES,
    "runes": RUNES,
    "numbers": NUMBERS,
}
PROMPTS = {  # "{}" takes the class name; several prompts are averaged into one head
    "shapes": ["a {}", "a photo of a {}"],
    "digits": ["the digit {}", "a photo of the digit {}"],
    "letters": ["the letter {}", "a photo of the letter {}"],
    "textures": ["a pattern of {}", "a photo of {}"],
    "signs": ["a {} sign", "a photo of a {} sign"],
    "colours": ["something {}", "a photo of something {}"],
    "runes": ["the rune {}"],
    "numbers": ["the number {}"],
}
TASKS = ("shapes", "digits", "letters", "textures", "signs", "colours")
NAMES = [(kind, name) for kind, names in KINDS.items() for name in names]
_NAME_INDEX = {pair: i for i, pair in enumerate(NAMES)}


@cache
def _atlas() -> tuple[np.ndarray, dict]:
    """All masks (levels, G, R, R), level k blurred for drawing at 1/2^k size, and (kind, class,
    font) -> index."""
    masks, where = [np.ones((glyphs.RESOLUTION,) * 2, np.float32)], {"full": 0}

    def put(key, mask):
        where[key] = len(masks)
        masks.append(mask)

    for name in SHAPES:
        put(("shapes", name), glyphs.shape(name))
    for split, fonts in glyphs.FONTS.items():
        for f, font in enumerate(fonts):
            for digit, word in enumerate(NUMBER_WORDS):
                put(
                    ("digits", word, split, f),
                    glyphs.write(glyphs.polylines(glyphs.STROKES[str(digit)]), font),
                )
            for letter in LETTERS:
                put(
                    ("letters", letter.lower(), split, f),
                    glyphs.write(glyphs.polylines(glyphs.STROKES[letter]), font),
                )
            if split == "base" and f < 4:
                for number in NUMBERS:
                    put(("numbers", number, split, f), _number(number, font, 1.0))
                for i, name in enumerate(RUNES):
                    put(("runes", name, split, f), glyphs.write(glyphs.rune(i), font))
    plain = glyphs.Font(width=0.95)
    outlines = {
        "octagon": glyphs.regular(8, np.pi / 8, 0.97),
        "disc": glyphs.regular(40, 0, 0.95),
        "down": glyphs.regular(3, np.pi, 1.0) + [0, -0.2],
        "up": glyphs.regular(3, 0, 1.0) + [0, 0.2],
        "box": glyphs.regular(4, np.pi / 4, 1.2),
        "kite": glyphs.regular(4, 0, 0.98),
    }
    for name, (outline, _, _, picture, _) in SIGNS.items():
        centre = np.array([0, {"down": -0.2, "up": 0.2}.get(outline, 0)])
        put(("signs", name, 0), glyphs.fill(outlines[outline]))
        put(("signs", name, 1), glyphs.fill((outlines[outline] - centre) * 0.76 + centre))
        if picture is None:
            mask = glyphs.fill((outlines[outline] - centre) * 0.5 + centre)
        elif picture.isdigit():
            mask = _number(picture, plain, 0.62)
        elif picture == "bar":
            mask = glyphs.write(
                glyphs.polylines("0,3 4,3"), glyphs.Font(width=1.5, aspect=0.7), (-1, -0.8, 1, 0.8)
            )
        else:
            low = 0.25 if outline == "up" else 0
            mask = glyphs.write(
                glyphs.polylines(glyphs.STROKES[picture]),
                plain,
                (-0.7, -0.62 + low, 0.7, 0.62 + low),
            )
        put(("signs", name, 2), mask)
    level0 = np.stack(masks)
    levels = [level0]
    for _ in range(2):
        levels.append(_blur(levels[-1], 2 ** len(levels)))
    return np.stack(levels), where


def _number(text: str, font: glyphs.Font, size: float) -> np.ndarray:
    narrow = glyphs.Font(font.width * 0.9, font.slant, font.aspect * 0.8, font.wobble, font.hand)
    boxes = [(-1.0 * size, -size, 0.06 * size, size), (-0.06 * size, -size, size, size)]
    return np.maximum(
        *[glyphs.write(glyphs.polylines(glyphs.STROKES[c]), narrow, b) for c, b in zip(text, boxes)]
    )


def _blur(masks: np.ndarray, width: int) -> np.ndarray:
    """Box blur of the last two axes by an odd-padded window of ``width`` pixels."""
    for axis in (-1, -2):
        pad = [(0, 0)] * masks.ndim
        pad[axis] = (width // 2, width - 1 - width // 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(masks, pad), width, axis=axis)
        masks = windows.mean(-1)
    return masks.astype(np.float32)


def _stamp(index, centre, half, turn, aspect) -> np.ndarray:
    """Masks placed on the canvas: (N, 32, 32) in [0, 1].

    index (N,) into the atlas; centre (N, 2) and half (N,) in canvas units (the canvas is [-1, 1]²);
    turn (N,) in radians; aspect (N,) stretches x.
    """
    levels, _ = _atlas()
    line = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
    gx, gy = np.meshgrid(line, line)
    x = gx[None] - centre[:, 0, None, None]
    y = gy[None] - centre[:, 1, None, None]
    c, s = (np.round(f(turn), 6).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    h = half[:, None, None]
    r = glyphs.RESOLUTION
    u = ((c * x + s * y) / (h * aspect[:, None, None]) + 1) * (r / 2) - 0.5
    v = ((c * y - s * x) / h + 1) * (r / 2) - 0.5
    level = np.clip(np.floor(np.log2(np.maximum(r / (half * SIZE), 1)) + 0.3), 0, 2).astype(int)
    u0, v0 = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    fu, fv = u - u0, v - v0
    out = np.zeros(u.shape, np.float32)
    base = ((level * levels.shape[1] + index) * r * r)[:, None, None]
    flat = levels.reshape(-1)
    for dv in (0, 1):
        for du in (0, 1):
            uu, vv = u0 + du, v0 + dv
            inside = (uu >= 0) & (uu < r) & (vv >= 0) & (vv < r)
            weight = (fu if du else 1 - fu) * (fv if dv else 1 - fv) * inside
            out += weight * flat[base + np.clip(vv, 0, r - 1) * r + np.clip(uu, 0, r - 1)]
    return out


def _paint(canvas, mask, rgb) -> None:
    """Lay a colour (N, 3) over the canvas (N, 32, 32, 3) through a mask (N, 32, 32), in place."""
    canvas += mask[..., None] * (rgb[:, None, None, :] - canvas)


def _pattern(which, frequency, phase, turn) -> np.ndarray:
    """Textures as fields in [0, 1], (N, 32, 32); frequency in periods a canvas."""
    line = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE - 0.5
    gx, gy = np.meshgrid(line, line)
    f, p = frequency[:, None, None], phase[:, :, None, None]
    c, s = (np.round(g(turn), 6).astype(np.float32)[:, None, None] for g in (np.cos, np.sin))
    x, y = (c * gx + s * gy) * f + p[:, 0], (c * gy - s * gx) * f + p[:, 1]

    def wave(t):  # a soft square wave of period 1, in [0, 1]
        return np.clip(0.5 + 1.6 * np.sin(2 * np.pi * t), 0, 1)

    def near(t, width=0.18):  # a thin line at every integer
        return np.clip((width - np.abs(t - np.round(t))) * 12 + 0.5, 0, 1)

    row = np.floor(y)
    fields = {
        "horizontal stripes": wave(y),
        "vertical stripes": wave(x),
        "diagonal stripes": wave((x + y) * 0.75),
        "checkerboard": np.clip(0.5 + 3 * np.sin(np.pi * x * 1.3) * np.sin(np.pi * y * 1.3), 0, 1),
        "dots": np.clip((0.3 - np.hypot(x - np.round(x), y - np.round(y))) * 10 + 0.5, 0, 1),
        "grid": np.maximum(near(x), near(y)),
        "waves": wave(y + 0.35 * np.sin(2 * np.pi * x * 0.6)),
        "rings": wave(np.hypot(x - p[:, 0], y - p[:, 1])),
        "zigzag": wave(y + 0.9 * np.abs(x * 0.6 - np.round(x * 0.6))),
        "bricks": np.maximum(near(y, 0.12), near(x * 0.5 + 0.5 * (row % 2), 0.07)),
    }
    stack = np.stack([fields[name] for name in TEXTURES])  # (10, N, 32, 32)
    return stack[which, np.arange(len(which))].astype(np.float32)


@dataclass
class Things:
    """What to draw, one entry an image: kind and class as strings, and how."""

    kind: np.ndarray
    name: np.ndarray
    colour: np.ndarray  # (N, 3)
    back: np.ndarray  # (N, 3), used by textures and seen around the object
    centre: np.ndarray
    half: np.ndarray
    turn: np.ndarray
    split: str = "base"


def _draw(
    canvas: np.ndarray, things: Things, rng: np.random.Generator, frequency=(2.5, 5.0)
) -> None:
    """Paint one thing on each image of the canvas, in place."""
    _, where = _atlas()
    n = len(things.kind)
    aspect = rng.uniform(0.85, 1.15, n).astype(np.float32)
    fonts = len(glyphs.FONTS[things.split])
    font = rng.integers(0, fonts, n)
    first, sign = np.zeros(n, int), np.zeros((n, 3), int)
    colour = things.colour.copy()
    layers = [np.zeros((n, 3), np.float32) for _ in range(2)]
    for i, (kind, name) in enumerate(zip(things.kind, things.name)):
        if kind == "signs":
            sign[i] = [where["signs", name, k] for k in range(3)]
            _, border, inside, _, picture = SIGNS[name]
            first[i], colour[i] = sign[i, 0], RGB[COLOUR_NAMES.index(border)]
            layers[0][i], layers[1][i] = (
                RGB[COLOUR_NAMES.index(inside)],
                RGB[COLOUR_NAMES.index(picture)],
            )
        elif kind in ("digits", "letters"):
            first[i] = where[kind, name, things.split, font[i]]
        elif kind in ("numbers", "runes"):
            first[i] = where[kind, name, "base", font[i] % 4]
        elif kind == "colours":  # a coloured anything
            first[i] = where["shapes", SHAPES[rng.integers(len(SHAPES))]]
        elif kind == "shapes":
            first[i] = where["shapes", name]
    textured = things.kind == "textures"
    mask = _stamp(first, things.centre, things.half, things.turn, aspect)
    if textured.any():
        which = np.array([TEXTURES.index(name) for name in things.name[textured]])
        k = len(which)
        field = _pattern(
            which,
            rng.uniform(*frequency, k).astype(np.float32),
            rng.uniform(0, 1, (k, 2)).astype(np.float32),
            things.turn[textured],
        )
        window = _stamp(
            np.zeros(k, int),
            things.centre[textured],
            things.half[textured],
            np.zeros(k),
            np.ones(k, np.float32),
        )
        back = canvas[textured]
        _paint(back, window, things.back[textured])
        _paint(back, window * field, things.colour[textured])
        canvas[textured] = back
        mask[textured] = 0
    _paint(canvas, mask, colour)
    signs = things.kind == "signs"
    if signs.any():
        part = canvas[signs]
        for layer in (1, 2):
            m = _stamp(
                sign[signs, layer],
                things.centre[signs],
                things.half[signs],
                things.turn[signs],
                aspect[signs],
            )
            _paint(part, m, layers[layer - 1][signs])
        canvas[signs] = part


def _pair_split(fore: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Which split a pair of colours belongs to: 0 train, 1 dev, 2 test."""
    code = (6 * fore + 9 * back) % 10  # every colour has a readable partner in every split
    return np.where(code < 6, 0, np.where(code < 7, 1, 2))


def _colours(rng, n, split: str, fore=None) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and background colour indices, distinct and readable, from the split's pairs."""
    count = len(COLOUR_NAMES)
    bright = RGB @ np.array([0.3, 0.59, 0.11], np.float32)
    wanted = {"train": 0, "dev": 1, "test": 2}.get(split)
    f = rng.integers(0, count, n) if fore is None else fore
    ok = np.abs(bright[:, None] - bright[None]) > 0.15
    if wanted is not None:
        ok = ok & (
            _pair_split(*np.meshgrid(np.arange(count), np.arange(count), indexing="ij")) == wanted
        )
    score = rng.random((n, count)) * ok[f]
    best = score.argmax(1)
    lost = ~ok[f, best]
    if lost.any() and fore is None:
        f[lost], best[lost] = _colours(rng, int(lost.sum()), split)
    return f, best


def _background(rng, back, strength: float) -> np.ndarray:
    """A flat colour with a slow gradient and a little grain: (N, 32, 32, 3) float32."""
    n = len(back)
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    slope = rng.uniform(-strength, strength, (n, 2)).astype(np.float32)
    ramp = (
        slope[:, 0, None, None] * line[None, :, None]
        + slope[:, 1, None, None] * line[None, None, :]
    )
    return RGB[back][:, None, None, :] + ramp[..., None] + np.zeros((1, 1, 1, 3), np.float32)


def _finish(canvas, rng, noise: float, contrast=(1.0, 1.0)) -> np.ndarray:
    """Contrast, grain, and uint8."""
    n = len(canvas)
    k = rng.uniform(*contrast, n).astype(np.float32)[:, None, None, None]
    mean = canvas.mean((1, 2, 3), keepdims=True)
    grain = (
        (rng.random(canvas.shape, dtype=np.float32) - 0.5)
        * (2 * noise)
        * rng.random((n, 1, 1, 1), dtype=np.float32)
    )
    return np.clip((mean + k * (canvas - mean) + grain) * 255 + 0.5, 0, 255).astype(np.uint8)


def scenes(
    n: int, rng: np.random.Generator, crowded: bool = False
) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Captioned scenes for training a base.

    Single scenes hold one object near the middle; crowded ones one to four, most of them small,
    anywhere (corners too). Returns images (n, 32, 32, 3) uint8, captions, names (n, 4) as indices
    into
    :data:`NAMES` (−1 where there are fewer objects) and colours (n, 4) likewise into
    :data:`COLOUR_NAMES`.
    """
    kinds = np.array(list(KINDS))
    weights = np.array([0.17, 0.17, 0.17, 0.1, 0.13, 0.06, 0.14, 0.06])
    f, b = _colours(rng, n, "base")
    canvas = _background(rng, b, 0.12)
    count = np.minimum(rng.integers(1, 5, n), rng.integers(1, 5, n)) if crowded else np.ones(n, int)
    names, colours = -np.ones((n, 4), int), -np.ones((n, 4), int)
    for k in range(4):
        on = np.flatnonzero(count > k)
        if not len(on):
            break
        m = len(on)
        kind = rng.choice(kinds, m, p=weights)
        if crowded:
            kind[(kind == "textures") & (k > 0)] = "shapes"
        fk = f[on] if k == 0 else rng.integers(0, len(COLOUR_NAMES), m)
        same = fk == b[on]
        fk[same] = (fk[same] + 1 + rng.integers(0, len(COLOUR_NAMES) - 1, same.sum())) % len(
            COLOUR_NAMES
        )
        index = np.array([rng.integers(len(KINDS[x])) for x in kind])
        name = np.array([KINDS[x][j] for x, j in zip(kind, index)], dtype=object)
        fk = np.where(kind == "colours", index, fk)
        small = crowded & ((count[on] > 1) | (rng.random(m) < 0.4))
        half = np.where(small, rng.uniform(0.16, 0.45, m), rng.uniform(0.5, 0.95, m)).astype(
            np.float32
        )
        reach = np.where(small, 1.0 - half, np.minimum(0.18, 1.02 - half))
        centre = (rng.uniform(-1, 1, (m, 2)) * reach[:, None]).astype(np.float32)
        full = (kind == "textures") & ~small
        half, centre = (
            np.where(full, 1.05, half).astype(np.float32),
            np.where(full[:, None], 0, centre).astype(np.float32),
        )
        part = canvas[on]
        _draw(
            part,
            Things(kind, name, RGB[fk], RGB[b[on]], centre, half, rng.uniform(-0.2, 0.2, m)),
            rng,
            (2.2, 5.5),
        )
        canvas[on] = part
        names[on, k] = [_NAME_INDEX[x, y] for x, y in zip(kind, name)]
        colours[on, k] = np.where(kind == "signs", -1, fk)
    images = _finish(canvas, rng, 0.12, (0.6, 1.0))
    return images, [_caption(names[i], colours[i], b[i], rng) for i in range(n)], names, colours


def stickers(
    images: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Images (N, 32, 32, 3) uint8 with a small named sticker on each: 5 to 8 px, anywhere, often
    in a corner.

    A sticker is an opaque square of one colour with one object on it. Returns the new images,
    words for each sticker, and names (N,) as indices into :data:`NAMES`. Captions that name the
    sticker teach a base to read small things.
    """
    n = len(images)
    kind = rng.choice(np.array(list(_STICKERS)), n, p=list(_STICKERS.values()))
    index = np.array([rng.integers(len(KINDS[k])) for k in kind], int)
    name = np.array([KINDS[k][i] for k, i in zip(kind, index)], dtype=object)
    fore, back = _colours(rng, n, "base")
    fore = np.where(kind == "colours", index, fore)
    same = fore == back
    back[same] = (back[same] + 1 + rng.integers(0, len(COLOUR_NAMES) - 1, same.sum())) % len(
        COLOUR_NAMES
    )
    half = rng.uniform(0.16, 0.26, n).astype(np.float32)
    centre = rng.uniform(-1, 1, (n, 2))
    centre = np.where(rng.random((n, 2)) < 0.5, np.sign(centre), centre)
    centre = (centre * (1 - half)[:, None]).astype(np.float32)
    canvas = images.astype(np.float32) / 255
    _paint(
        canvas,
        _stamp(np.zeros(n, int), centre, half, np.zeros(n), np.ones(n, np.float32)),
        RGB[back],
    )
    _draw(
        canvas,
        Things(kind, name, RGB[fore], RGB[back], centre, 0.86 * half, rng.uniform(-0.1, 0.1, n)),
        rng,
    )
    coloured = (rng.random(n) < 0.4) & (kind != "signs")
    words = [
        phrase(k, x, COLOUR_NAMES[c] if on else None)
        for k, x, c, on in zip(kind, name, fore, coloured)
    ]
    names = np.array([_NAME_INDEX[pair] for pair in zip(kind, name)], int)
    return np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8), words, names


_STICKERS = {
    "shapes": 0.2,
    "digits": 0.22,
    "letters": 0.22,
    "colours": 0.06,
    "runes": 0.14,
    "numbers": 0.06,
    "signs": 0.1,
}


def phrase(kind: str, name: str, colour: str | None = None) -> str:
    """Words for one object: ``phrase("digits", "seven", "red")`` is "a red digit seven"."""
    if kind == "colours":
        return f"something {name}"
    noun = {
        "shapes": name,
        "digits": f"digit {name}",
        "letters": f"letter {name}",
        "textures": f"pattern of {name}",
        "signs": f"{name} sign",
        "runes": f"rune {name}",
        "numbers": f"number {name}",
    }[kind]
    if colour:
        noun = f"{colour} {noun}"
    elif kind in ("digits", "letters", "runes", "numbers"):
        return f"the {noun}"
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def _caption(names, colours, back, rng) -> str:
    """A caption of the objects in random order; colour and background are named half of the
    time."""
    there = [i for i in range(4) if names[i] >= 0]
    rng.shuffle(there)
    style = rng.random(3)
    said = [
        phrase(
            *NAMES[names[i]],
            COLOUR_NAMES[colours[i]] if style[0] < 0.5 and colours[i] >= 0 else None,
        )
        for i in there
    ]
    text = " and ".join(said)
    if style[1] < 0.3:
        text = "a photo of " + text
    if style[2] < 0.3:
        text += f" on {COLOUR_NAMES[back]}"
    return text


# the tasks are seen through a soft lens, this share of a 3 px box blur: the base's scenes are sharp
LENS = 0.6
# noise, contrast, gradient, half-size range, tilt of the tasks: noisier than the base's scenes
LOOKS = {
    "shapes": (0.2, (0.45, 0.9), 0.3, (0.4, 0.8), 0.5),
    "digits": (0.22, (0.45, 0.95), 0.3, (0.5, 0.85), 0.25),
    "letters": (0.22, (0.45, 0.9), 0.3, (0.5, 0.9), 0.2),
    "textures": (0.3, (0.3, 0.8), 0.25, (1.05, 1.1), 0.15),
    "signs": (0.3, (0.35, 0.8), 0.3, (0.5, 0.9), 0.2),
    "colours": (0.3, (0.3, 0.7), 0.4, (0.35, 0.8), 0.6),
}
_TILT = {"train": (0.0, 0.7), "dev": (0.7, 0.85), "test": (0.85, 1.0)}
_FREQUENCY = {"train": (2.6, 4.4), "dev": (4.4, 4.8), "test": (4.8, 5.4)}


def task_arrays(task: str, split: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int64 of one toy task, classes balanced to one.

    ``split`` is train, dev or test: each has its own fonts, colour pairs, tilts and frequencies.
    Raises BvError for an unknown task or split.
    """
    if task not in TASKS:
        raise unknown("toy task", task, TASKS)
    if split not in _TILT:
        raise BvError(f"unknown split {split!r}: use train, dev or test")
    rng = numpy_rng(seed, "toyworld", task, split)
    classes = KINDS[task]
    labels = rng.permutation(np.arange(n) % len(classes))
    noise, contrast, gradient, sizes, tilt = LOOKS[task]
    name = np.array([classes[i] for i in labels], dtype=object)
    fore, back = _colours(rng, n, split, labels.copy() if task == "colours" else None)
    canvas = _background(rng, back, gradient)
    half = rng.uniform(*sizes, n).astype(np.float32)
    centre = (rng.uniform(-1, 1, (n, 2)) * np.maximum(1.0 - half, 0.05)[:, None]).astype(np.float32)
    if task == "textures":
        centre[:] = 0
    turn = rng.uniform(*_TILT[split], n) * tilt * rng.choice([-1, 1], n)
    _draw(
        canvas,
        Things(np.full(n, task), name, RGB[fore], RGB[back], centre, half, turn, split),
        rng,
        _FREQUENCY[split],
    )
    blurred = _blur(canvas.transpose(0, 3, 1, 2), 3).transpose(0, 2, 3, 1)
    return _finish((1 - LENS) * canvas + LENS * blurred, rng, noise, contrast), labels.astype(
        np.int64
    )
