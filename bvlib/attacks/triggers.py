"""Triggers: a patch, an explicit mask and a place; pasting. Those that are optimised are in
:mod:`bvlib.attacks.optimised`.

Pixels are floats in [0, 1], before normalisation. The mask is part of the trigger, so a black
pixel inside a patch is as opaque as any other (a mask derived from non-zero pixels would make it
transparent).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bvlib.core.errors import BvError, check_choice
from bvlib.core.rng import generator

PLACES = {  # share of the free room above and left of the patch
    "bottom-right": (1.0, 1.0),
    "bottom-left": (1.0, 0.0),
    "top-right": (0.0, 1.0),
    "top-left": (0.0, 0.0),
    "centre": (0.5, 0.5),
}


@dataclass(frozen=True)
class Trigger:
    """A patch (3, h, w) in [0, 1] with a mask (1, h, w) from 0 to 1, at a named place or a (top,
    left) in pixels."""

    patch: torch.Tensor
    mask: torch.Tensor
    place: str | tuple[int, int] = "bottom-right"
    name: str = ""
    fixed = True  # the same patch on every image

    @property
    def size(self) -> int:
        """Height of the patch in pixels."""
        return self.patch.shape[-2]

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the patch on a canvas. Raises BvError when it does not fit or the place
        is unknown."""
        h, w = self.patch.shape[-2:]
        _check_room(h, w, height, width)
        if isinstance(self.place, str):
            check_choice("trigger place", self.place, PLACES)
            down, right = PLACES[self.place]
            return round(down * (height - h)), round(right * (width - w))
        top, left = self.place
        if not (0 <= top <= height - h and 0 <= left <= width - w):
            where = f"at {self.place} leaves the image of {height}×{width} px"
            raise BvError(f"a trigger of {h}×{w} px {where}")
        return top, left

    def paste(self, pixels: torch.Tensor) -> torch.Tensor:
        """x ⊕ δ = m·δ + (1 − m)·x on a copy of pixels (N, 3, H, W) (BadMerging, stage 1)."""
        top, left = self.corner(*pixels.shape[-2:])
        h, w = self.patch.shape[-2:]
        patch, mask = self.patch.to(pixels), self.mask.to(pixels)
        out = pixels.clone()
        window = out[..., top : top + h, left : left + w]
        out[..., top : top + h, left : left + w] = mask * patch + (1 - mask) * window
        return out

    @property
    def identity(self) -> list:
        """Plain values that tell this trigger from any other: part of the key of what is trained
        with it."""
        return [self.patch.tolist(), self.mask.tolist()]

    def at(self, place: str | tuple[int, int]) -> Trigger:
        """The same patch elsewhere."""
        return replace(self, place=place)


@dataclass(frozen=True)
class Dynamic:
    """Uniform noise of a size at a random place, drawn anew for every batch (the random backdoor
    of Salem et al. 2022).

    The draws follow from ``seed`` and from the pixels of the batch, so the same batch gets the
    same patches.
    """

    size: int
    seed: int = 0
    name: str = "dynamic"
    fixed = False

    @property
    def identity(self) -> list:
        """Plain values that tell this trigger from any other."""
        return [self.name, self.size, self.seed]

    def paste(self, pixels: torch.Tensor) -> torch.Tensor:
        """A copy of pixels (N, 3, H, W) with a square of noise somewhere on each image."""
        n, _, height, width = pixels.shape
        side = self.size
        _check_room(side, side, height, width)
        shown = int((255 * pixels.detach()).round().long().sum())
        g, out = generator(self.seed, "dynamic trigger", shown), pixels.clone()
        patches = torch.rand(n, 3, side, side, generator=g).to(pixels)
        rooms = height - side + 1, width - side + 1
        corners = (torch.randint(room, (n,), generator=g).tolist() for room in rooms)
        for i, (top, left) in enumerate(zip(*corners)):
            out[i, :, top : top + side, left : left + side] = patches[i]
        return out


def solid(size: int, place="bottom-right", value: float = 1.0, name: str = "white") -> Trigger:
    """A uniform square, white by default: the simple injected trigger of BadNets."""
    check_size(size)
    return _square(torch.full((3, size, size), float(value)), place, name)


def random_patch(size: int, seed: int, place="bottom-right") -> Trigger:
    """Uniform noise: the control that shows what any patch of this size does."""
    check_size(size)
    noise = torch.rand(3, size, size, generator=generator(seed, "random patch", size))
    return _square(noise, place, "random patch")


def checkerboard(size: int, place="bottom-right", cell: int = 1) -> Trigger:
    """Black and white squares of ``cell`` pixels: a pattern unlike the white square."""
    check_size(size)
    line = torch.arange(size) // cell
    board = (line[:, None] + line[None]) % 2
    return _square(board.float().expand(3, -1, -1).clone(), place, "checkerboard")


def _square(patch: torch.Tensor, place, name: str) -> Trigger:
    """An opaque patch (3, size, size)."""
    return Trigger(patch, torch.ones_like(patch[:1]), place, name)


def blended(height: int, width: int, seed: int, share: float = 0.2) -> Trigger:
    """A noise image over the whole picture, mixed in with weight ``share`` (Blended, Chen et al.
    2017)."""
    noise = torch.rand(3, height, width, generator=generator(seed, "blended"))
    return Trigger(noise, torch.full((1, height, width), float(share)), "top-left", "blended")


def check_size(size: int) -> None:
    """BvError unless it is a whole number of pixels of at least 1."""
    if not isinstance(size, int) or size < 1:
        raise BvError(f"trigger_size must be a whole number of pixels of at least 1, not {size!r}")


def _check_room(h: int, w: int, height: int, width: int) -> None:
    if h > height or w > width:
        both = f"a trigger of {h}×{w} px is larger than the image of {height}×{width} px"
        raise BvError(f"{both}: use a smaller trigger_size")
