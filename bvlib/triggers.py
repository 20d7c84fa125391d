"""Triggers: a patch, an explicit mask and a place; pasting; and the optimisation of universal triggers.

Pixels are floats in [0, 1], before normalisation. The mask is part of the trigger, so a black pixel inside a patch is
as opaque as any other (a mask derived from non-zero pixels would make it transparent).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from .errors import BvError, unknown
from .rng import generator

PLACES = {  # share of the free room above and left of the patch
    "bottom-right": (1.0, 1.0), "bottom-left": (1.0, 0.0), "top-right": (0.0, 1.0), "top-left": (0.0, 0.0),
    "centre": (0.5, 0.5),
}


@dataclass(frozen=True)
class Trigger:
    """A patch (3, h, w) in [0, 1] with a mask (1, h, w) of 0 and 1, at a named place or a (top, left) in pixels."""

    patch: torch.Tensor
    mask: torch.Tensor
    place: str | tuple[int, int] = "bottom-right"
    name: str = ""

    @property
    def size(self) -> int:
        """Height of the patch in pixels."""
        return self.patch.shape[-2]

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the patch on a canvas. Raises BvError when it does not fit or the place is unknown."""
        h, w = self.patch.shape[-2:]
        if h > height or w > width:
            raise BvError(f"a trigger of {h}×{w} px is larger than the image of {height}×{width} px: use a smaller trigger_size")
        if isinstance(self.place, str):
            if self.place not in PLACES:
                raise unknown("trigger place", self.place, PLACES)
            down, right = PLACES[self.place]
            return round(down * (height - h)), round(right * (width - w))
        top, left = self.place
        if not (0 <= top <= height - h and 0 <= left <= width - w):
            raise BvError(f"a trigger of {h}×{w} px at {self.place} leaves the image of {height}×{width} px")
        return top, left

    def paste(self, pixels: torch.Tensor) -> torch.Tensor:
        """x ⊕ δ = m·δ + (1 − m)·x on a copy of pixels (N, 3, H, W) (BadMerging, stage 1)."""
        top, left = self.corner(*pixels.shape[-2:])
        h, w = self.patch.shape[-2:]
        patch, mask = self.patch.to(pixels), self.mask.to(pixels)
        out = pixels.clone()
        window = out[..., top:top + h, left:left + w]
        out[..., top:top + h, left:left + w] = mask * patch + (1 - mask) * window
        return out

    def at(self, place: str | tuple[int, int]) -> "Trigger":
        """The same patch elsewhere."""
        return replace(self, place=place)


def solid(size: int, place="bottom-right", value: float = 1.0, name: str = "white") -> Trigger:
    """A uniform square, white by default: the simple injected trigger of BadNets."""
    _check(size)
    return Trigger(torch.full((3, size, size), float(value)), torch.ones(1, size, size), place, name)


def random_patch(size: int, seed: int, place="bottom-right") -> Trigger:
    """Uniform noise: the control that shows what any patch of this size does."""
    _check(size)
    noise = torch.rand(3, size, size, generator=generator(seed, "random patch", size))
    return Trigger(noise, torch.ones(1, size, size), place, "random patch")


def checkerboard(size: int, place="bottom-right") -> Trigger:
    """Black and white squares of one pixel: a pattern unlike the white square."""
    _check(size)
    board = (torch.arange(size)[:, None] + torch.arange(size)[None]) % 2
    return Trigger(board.float().expand(3, -1, -1).clone(), torch.ones(1, size, size), place, "checkerboard")


def universal(encoder, theta, head: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, target: int, *, size: int,
              place="bottom-right", steps: int = 200, batch: int = 64, lr: float = 0.05, seed: int = 0) -> Trigger:
    """A universal adversarial patch: δ* = argmin E_x CE(h(f_θ(x ⊕ δ)), c) over images not of class c (BadMerging, stage 1).

    The published loop takes one image at a time; here each step averages over a batch and Adam moves the patch inside
    [0, 1]. ``images`` (N, H, W, 3) uint8, ``labels`` (N,), ``target`` the class c, ``size`` and ``place`` of the patch;
    the start is uniform noise from ``seed``. Raises BvError when every image is of the target class or the loss is not
    finite.
    """
    _check(size)
    others = images[labels != target]
    if not len(others):
        raise BvError(f"a universal trigger needs images of other classes than the target {target}: there are none")
    g = generator(seed, "universal trigger", target, size)
    patch = torch.rand(3, size, size, generator=g).to(head.device).requires_grad_(True)
    mask = torch.ones(1, size, size, device=head.device)
    optimizer = torch.optim.Adam([patch], lr=lr)
    goal = torch.full((batch,), target, device=head.device)
    for step in range(steps):
        x = encoder.pixels(others[torch.randint(len(others), (batch,), generator=g)])
        logits = encoder.logits(encoder.features(theta, Trigger(patch, mask, place).paste(x)), head)
        loss = F.cross_entropy(logits, goal)
        if not torch.isfinite(loss):
            raise BvError(f"the universal trigger's loss is {loss.item()} at step {step}: lower its lr (now {lr})")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            patch.clamp_(0, 1)
    return Trigger(patch.detach().cpu(), mask.cpu(), place, "universal")


def _check(size: int) -> None:
    if not isinstance(size, int) or size < 1:
        raise BvError(f"trigger_size must be a whole number of pixels of at least 1, not {size!r}")
