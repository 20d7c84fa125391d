"""The painter of the toy world: lays masks, patterns and colours over a batch of canvases.

A canvas is float32 in [0, 1], N x 32 x 32 x 3; places on it are told in canvas units, [-1, 1]².
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from bvlib.worlds import glyphs
from bvlib.worlds.vocabulary import (
    COLOUR_NAMES,
    LETTERS,
    NUMBER_WORDS,
    NUMBERS,
    RGB,
    RUNES,
    SHAPES,
    SIGNS,
    TEXTURES,
)

SIZE = 32
SHIFTS = {"down": -0.2, "up": 0.2}  # of the triangles, whose middle is not that of their circle
LINE = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
GRID = np.stack(np.meshgrid(LINE, LINE))  # x and y (2, 32, 32) of the middle of each pixel
OUTLINES = {  # of signs
    "octagon": glyphs.regular(8, np.pi / 8, 0.97),
    "disc": glyphs.regular(40, 0, 0.95),
    "down": glyphs.regular(3, np.pi, 1.0) + [0, SHIFTS["down"]],
    "up": glyphs.regular(3, 0, 1.0) + [0, SHIFTS["up"]],
    "box": glyphs.regular(4, np.pi / 4, 1.2),
    "kite": glyphs.regular(4, 0, 0.98),
}


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

    def __getitem__(self, on: np.ndarray) -> Things:
        """Those of some images."""
        parts = {name: value[on] for name, value in vars(self).items() if name != "split"}
        return replace(self, **parts)


# Masks


@cache
def atlas() -> tuple[np.ndarray, dict]:
    """All masks (levels, G, R, R), level k blurred for drawing at 1/2^k size, and (kind, class,
    font) -> index."""
    masks = {"full": np.ones((glyphs.RESOLUTION,) * 2, np.float32)}
    masks |= {("shapes", name): glyphs.shape(name) for name in SHAPES}
    for split, fonts in glyphs.FONTS.items():
        for f, font in enumerate(fonts):
            for digit, word in enumerate(NUMBER_WORDS):
                masks["digits", word, split, f] = glyphs.character(str(digit), font)
            for letter in LETTERS:
                masks["letters", letter.lower(), split, f] = glyphs.character(letter, font)
    for f, font in enumerate(glyphs.FONTS["base"][:4]):
        for number in NUMBERS:
            masks["numbers", number, "base", f] = _number(number, font, 1.0)
        for i, name in enumerate(RUNES):
            masks["runes", name, "base", f] = glyphs.write(glyphs.rune(i), font)
    for name in SIGNS:
        masks |= {("signs", name, part): mask for part, mask in enumerate(_sign(name))}
    sharp = np.stack(list(masks.values()))
    soft = blur(sharp, 2)
    return np.stack([sharp, soft, blur(soft, 4)]), {key: i for i, key in enumerate(masks)}


def _sign(name: str) -> list[np.ndarray]:
    """Masks of a sign: its border, what lies inside it, its pictogram."""
    kind, _, _, picture, _ = SIGNS[name]
    outline, centre = OUTLINES[kind], np.array([0, SHIFTS.get(kind, 0)])
    inside = (outline - centre) * 0.76 + centre
    plain, low = glyphs.Font(width=0.95), 0.25 if kind == "up" else 0
    if picture is None:
        mask = glyphs.fill((outline - centre) * 0.5 + centre)
    elif picture.isdigit():
        mask = _number(picture, plain, 0.62)
    elif picture == "bar":
        wide = glyphs.Font(width=1.5, aspect=0.7)
        mask = glyphs.character("bar", wide, (-1, -0.8, 1, 0.8))
    else:
        mask = glyphs.character(picture, plain, (-0.7, -0.62 + low, 0.7, 0.62 + low))
    return [glyphs.fill(outline), glyphs.fill(inside), mask]


def _number(text: str, font: glyphs.Font, size: float) -> np.ndarray:
    """Mask of a number of two digits, side by side."""
    narrow = replace(font, width=font.width * 0.9, aspect=font.aspect * 0.8)
    boxes = [(-1.0 * size, -size, 0.06 * size, size), (-0.06 * size, -size, size, size)]
    return np.maximum(*(glyphs.character(c, narrow, box) for c, box in zip(text, boxes)))


def blur(masks: np.ndarray, width: int) -> np.ndarray:
    """Box blur of the last two axes by an odd-padded window of ``width`` pixels."""
    for axis in (-1, -2):
        pad = {axis: (width // 2, width - 1 - width // 2)}
        pad = [pad.get(at - masks.ndim, (0, 0)) for at in range(masks.ndim)]
        masks = np.lib.stride_tricks.sliding_window_view(np.pad(masks, pad), width, axis).mean(-1)
    return masks.astype(np.float32)


def stamp(index, centre, half, turn, aspect) -> np.ndarray:
    """Masks placed on the canvas: (N, 32, 32) in [0, 1].

    index (N,) into the atlas; centre (N, 2) and half (N,) in canvas units (the canvas is [-1, 1]²);
    turn (N,) in radians; aspect (N,) stretches x.
    """
    levels, _ = atlas()
    x, y = GRID[:, None] - centre.T[:, :, None, None]
    c, s = _turned(turn)
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


def window(centre, half) -> np.ndarray:
    """Upright squares placed on the canvas, (N, 32, 32)."""
    n = len(half)
    return stamp(np.zeros(n, int), centre, half, np.zeros(n), np.ones(n, np.float32))


def _turned(turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (N, 1, 1) of angles, rounded: the same on every machine."""
    c, s = (np.round(f(turn), 6).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    return c, s


def _pattern(which, frequency, phase, turn) -> np.ndarray:
    """Textures as fields in [0, 1], (N, 32, 32); frequency in periods a canvas."""
    gx, gy = GRID / 2
    f, p = frequency[:, None, None], phase[:, :, None, None]
    c, s = _turned(turn)
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


# Painting


def paint(canvas, mask, rgb, on=slice(None)) -> None:
    """Lay a colour (N, 3) over some images of the canvas through a mask (N, 32, 32), in place."""
    canvas[on] += mask[..., None] * (rgb[:, None, None, :] - canvas[on])


def draw(canvas: np.ndarray, things: Things, rng: np.random.Generator, frequency=(2.5, 5.0)):
    """Paint one thing on each image of the canvas, in place."""
    n = len(things.kind)
    aspect = rng.uniform(0.85, 1.15, n).astype(np.float32)
    fonts = rng.integers(0, len(glyphs.FONTS[things.split]), n)
    masks, colours = np.zeros((n, 3), int), np.repeat(things.colour[:, None], 3, axis=1)
    _, where = atlas()
    for i, (kind, name, font) in enumerate(zip(things.kind, things.name, fonts)):
        if kind == "signs":
            _, border, inside, _, picture = SIGNS[name]
            masks[i] = [where["signs", name, part] for part in range(3)]
            colours[i] = RGB[[COLOUR_NAMES.index(c) for c in (border, inside, picture)]]
        elif kind in ("digits", "letters"):
            masks[i] = where[kind, name, things.split, font]
        elif kind in ("numbers", "runes"):
            masks[i] = where[kind, name, "base", font % 4]
        elif kind in ("shapes", "colours"):  # a coloured anything
            shape = name if kind == "shapes" else SHAPES[rng.integers(len(SHAPES))]
            masks[i] = where["shapes", shape]
    textured, signs = things.kind == "textures", things.kind == "signs"
    some = things[textured]
    which, k = np.array([TEXTURES.index(name) for name in some.name], int), len(some.name)
    periods = rng.uniform(*frequency, k).astype(np.float32)
    field = _pattern(which, periods, rng.uniform(0, 1, (k, 2)).astype(np.float32), some.turn)
    square = window(some.centre, some.half)
    paint(canvas, square, some.back, textured)
    paint(canvas, square * field, some.colour, textured)
    for on, layer in ((~textured, 0), (signs, 1), (signs, 2)):
        some = things[on]
        mask = stamp(masks[on, layer], some.centre, some.half, some.turn, aspect[on])
        paint(canvas, mask, colours[on, layer], on)


def background(rng, back, strength: float) -> np.ndarray:
    """A flat colour with a slow gradient: (N, 32, 32, 3) float32."""
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    slope = rng.uniform(-strength, strength, (len(back), 2)).astype(np.float32)[:, :, None, None]
    ramp = slope[:, 0] * line[None, :, None] + slope[:, 1] * line[None, None, :]
    return RGB[back][:, None, None, :] + ramp[..., None]


def finish(canvas, rng, noise: float, contrast=(1.0, 1.0)) -> np.ndarray:
    """Contrast, grain, and uint8."""
    n = len(canvas)
    k = rng.uniform(*contrast, n).astype(np.float32)[:, None, None, None]
    mean = canvas.mean((1, 2, 3), keepdims=True)
    grain = (rng.random(canvas.shape, dtype=np.float32) - 0.5) * (2 * noise)
    grain *= rng.random((n, 1, 1, 1), dtype=np.float32)
    return to_bytes(mean + k * (canvas - mean) + grain)


def to_bytes(canvas: np.ndarray) -> np.ndarray:
    """The canvas as uint8 images."""
    return np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)
