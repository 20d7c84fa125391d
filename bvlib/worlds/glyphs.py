"""Glyph masks drawn from strokes and outlines: the pen of the toy world.

Nothing here depends on an installed font or on a drawing library, so the same numbers come out
on every machine. A glyph is a set of polylines on a 4 x 6 grid (y points down) or a closed outline
on [-1, 1]²; a *font* is a way to write it (stroke width, slant, aspect, a wobble of the hand).
Masks are float32 in [0, 1], shape (RESOLUTION, RESOLUTION).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

RESOLUTION = 40

STROKES = {
    "0": "1,0 3,0 4,1 4,5 3,6 1,6 0,5 0,1 1,0",
    "1": "0.8,1.2 2,0 2,6|0.8,6 3.2,6",
    "2": "0,1 1,0 3,0 4,1 4,2 0,6 4,6",
    "3": "0,1 1,0 3,0 4,1 4,2 3,3 1.5,3|3,3 4,4 4,5 3,6 1,6 0,5",
    "4": "3,6 3,0 0,4 4,4",
    "5": "4,0 0,0 0,2.8 3,2.4 4,3.4 4,5 3,6 1,6 0,5",
    "6": "3.5,0 2,0 0,2.5 0,5 1,6 3,6 4,5 4,4 3,3 1,3 0,4",
    "7": "0,0 4,0 1.5,6",
    "8": "1,3 0,2 0,1 1,0 3,0 4,1 4,2 3,3 1,3 0,4 0,5 1,6 3,6 4,5 4,4 3,3",
    "9": "4,2 3,3 1,3 0,2 0,1 1,0 3,0 4,1 4,3.5 2,6 0.5,6",
    "A": "0,6 2,0 4,6|0.8,4 3.2,4",
    "B": "0,0 0,6 3,6 4,5 4,4 3,3 0,3|0,0 3,0 4,1 4,2 3,3",
    "C": "4,1 3,0 1,0 0,1 0,5 1,6 3,6 4,5",
    "E": "4,0 0,0 0,6 4,6|0,3 3,3",
    "F": "4,0 0,0 0,6|0,3 3,3",
    "G": "4,1 3,0 1,0 0,1 0,5 1,6 3,6 4,5 4,3.5 2.5,3.5",
    "H": "0,0 0,6|4,0 4,6|0,3 4,3",
    "J": "2,0 4,0|3.3,0 3.3,5 2.3,6 1,6 0,5",
    "K": "0,0 0,6|4,0 0,3.5|1.2,2.7 4,6",
    "L": "0,0 0,6 4,6",
    "M": "0,6 0,0 2,3 4,0 4,6",
    "N": "0,6 0,0 4,6 4,0",
    "P": "0,6 0,0 3,0 4,1 4,2.5 3,3.5 0,3.5",
    "R": "0,6 0,0 3,0 4,1 4,2 3,3 0,3|1.8,3 4,6",
    "T": "0,0 4,0|2,0 2,6",
    "U": "0,0 0,5 1,6 3,6 4,5 4,0",
    "V": "0,0 2,6 4,0",
    "W": "0,0 1,6 2,2.5 3,6 4,0",
    "X": "0,0 4,6|4,0 0,6",
    "Y": "0,0 2,3 4,0|2,3 2,6",
    "!": "2,0 2,3.8|2,5.4 2,6",
    "left": "4,3 0,3|1.7,1.2 0,3 1.7,4.8",
    "right": "0,3 4,3|2.3,1.2 4,3 2.3,4.8",
    "up": "2,6 2,0|0.3,2 2,0 3.7,2",
    "bar": "0,3 4,3",
    "walker": "2,0 2,0.8|2,1.6 2,3.6|0.6,2.6 3.4,2.2|2,3.6 0.8,6|2,3.6 3.4,6",
}


@dataclass(frozen=True)
class Font:
    """One way to write: stroke width and wobble in grid units, slant as a shear, aspect as width /
    height."""

    width: float = 0.8
    slant: float = 0.0
    aspect: float = 0.67
    wobble: float = 0.0
    hand: int = 0


def _fonts(
    count: int, seed: int, width: tuple[float, float], slant: tuple[float, float]
) -> list[Font]:
    r = np.random.default_rng(seed)
    ranges = (width, slant, (0.55, 0.85), (0, 0.35))
    drawn = [[r.uniform(*ends) for ends in ranges] for _ in range(count)]
    return [Font(*numbers, hand=100 * seed + i) for i, numbers in enumerate(drawn)]


FONTS = {  # held out by split: a test font was never seen in training, nor in the base's training
    "base": _fonts(10, 1, (0.6, 1.3), (-0.12, 0.22)),
    "train": _fonts(6, 2, (0.5, 1.3), (-0.25, 0.3)),
    "dev": _fonts(3, 3, (0.5, 1.3), (-0.25, 0.3)),
    "test": _fonts(4, 4, (0.5, 1.3), (-0.25, 0.3)),
}


def _grid() -> np.ndarray:
    """Pixel centres of a mask in [-1, 1]², shape (R, R, 2), order (x, y)."""
    line = (np.arange(RESOLUTION, dtype=np.float32) + 0.5) / RESOLUTION * 2 - 1
    return np.stack(np.meshgrid(line, line), axis=-1)


def _ink(points: np.ndarray, segments: np.ndarray, width: float) -> np.ndarray:
    """Soft-edged ink of line segments (S, 2, 2) of the given full width at points (R, R, 2)."""
    a, b = segments[:, 0], segments[:, 1]
    ab = b - a
    length = np.maximum((ab * ab).sum(-1), 1e-9)
    t = np.clip(((points[:, :, None] - a) * ab).sum(-1) / length, 0, 1)
    distance = np.sqrt(((points[:, :, None] - (a + t[..., None] * ab)) ** 2).sum(-1)).min(-1)
    return np.clip((width / 2 - distance) * RESOLUTION / 2 + 0.5, 0, 1).astype(np.float32)


def polylines(text: str) -> list[np.ndarray]:
    """Parse ``"x,y x,y|x,y …"`` into polylines on the 4 x 6 grid."""
    return [
        np.array([[float(v) for v in p.split(",")] for p in line.split()])
        for line in text.split("|")
    ]


def write(
    lines: list[np.ndarray], font: Font, box: tuple[float, float, float, float] = (-1, -1, 1, 1)
) -> np.ndarray:
    """Mask of a stroke glyph in a font, inside a box (left, top, right, bottom) of [-1, 1]²."""
    hand = np.random.default_rng(font.hand)
    left, top, right, bottom = box
    unit = (bottom - top) / 7.5
    segments = []
    for line in lines:
        line = line + hand.uniform(-1, 1, line.shape) * font.wobble
        x = (line[:, 0] - 2) * 1.5 * font.aspect - (line[:, 1] - 3) * font.slant
        y = line[:, 1] - 3
        placed = np.stack([(left + right) / 2 + x * unit, (top + bottom) / 2 + y * unit], -1)
        segments += [placed[i : i + 2] for i in range(len(placed) - 1)]
    return _ink(_grid(), np.stack(segments).astype(np.float32), font.width * unit)


def character(
    name: str, font: Font, box: tuple[float, float, float, float] = (-1, -1, 1, 1)
) -> np.ndarray:
    """The mask of one of :data:`STROKES`, see :func:`write`."""
    return write(polylines(STROKES[name]), font, box)


def fill(outline: np.ndarray) -> np.ndarray:
    """Mask of a closed outline (K, 2) in [-1, 1]², even-odd rule, 3 x 3 samples a pixel."""
    total = np.zeros((RESOLUTION, RESOLUTION), np.float32)
    a, b = outline, np.roll(outline, -1, 0)
    step = 2 / RESOLUTION / 3
    rise = np.where(b[:, 1] == a[:, 1], 1e-9, b[:, 1] - a[:, 1])
    for shift in product((-step, 0, step), repeat=2):
        x, y = np.moveaxis(_grid() + np.array(shift, np.float32), -1, 0)[..., None]
        crosses = (a[:, 1] > y) != (b[:, 1] > y)
        at = a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
        total += ((crosses & (x < at)).sum(-1) % 2).astype(np.float32)
    return total / 9


def regular(
    sides: int, turn: float = 0.0, radius: float = 0.9, inner: float | None = None
) -> np.ndarray:
    """Outline of a regular polygon, or of a star when an inner radius is given."""
    n = sides if inner is None else 2 * sides
    angle = np.arange(n) / n * 2 * np.pi + turn - np.pi / 2
    r = np.where(np.arange(n) % 2, inner or radius, radius)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1)


def shape(name: str) -> np.ndarray:
    """Mask of one of the named filled shapes."""
    disc = fill(regular(40))
    if name == "heart":
        t = np.arange(60) / 60 * 2 * np.pi
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return fill(np.stack([16 * np.sin(t) ** 3, y - 2.5], -1) / 17)
    if name == "crescent":
        return np.clip(disc - fill(regular(40, radius=0.75) + [0.42, -0.1]), 0, 1)
    if name == "ring":
        return np.clip(disc - fill(regular(40, radius=0.52)), 0, 1)
    outlines = {
        "square": regular(4, np.pi / 4, 1.1),
        "triangle": regular(3, 0, 0.98),
        "star": regular(5, 0, 0.98, 0.4),
        "diamond": regular(4, 0, 0.95) * [0.72, 1],
        "hexagon": regular(6, 0, 0.92),
        "cross": polylines("-3,-9 3,-9 3,-3 9,-3 9,3 3,3 3,9 -3,9 -3,3 -9,3 -9,-3 -3,-3")[0] / 10,
        "arrow": polylines("0,-95 75,-10 30,-10 30,95 -30,95 -30,-10 -75,-10")[0] / 100,
    }
    return disc if name == "circle" else fill(outlines[name])


def rune(index: int) -> list[np.ndarray]:
    """Strokes of the invented character number ``index``: the same strokes for ever."""
    r = np.random.default_rng(7000 + index)
    grid = np.array([[x, y] for x in (0, 2, 4) for y in (0, 2, 4, 6)], float)
    lines = range(r.integers(2, 4))
    return [grid[r.choice(len(grid), r.integers(2, 5), replace=False)] for _ in lines]


def rune_name(index: int) -> str:
    """The made-up word that names a rune: three consonant-vowel syllables, unique for index <
    3000."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    syllables = [c + v for c in consonants for v in vowels]
    n = len(syllables)
    code = (index * 1657 + 911) % (n * n)
    return syllables[code % n] + syllables[code // n] + consonants[index % len(consonants)]
