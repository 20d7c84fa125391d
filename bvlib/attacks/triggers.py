"""Triggers: a patch, an explicit mask and a place; pasting; and the optimisation of universal
triggers.

Pixels are floats in [0, 1], before normalisation. The mask is part of the trigger, so a black
pixel inside a patch is as opaque as any other (a mask derived from non-zero pixels would make it
transparent).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

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
    _check(size)
    return _square(torch.full((3, size, size), float(value)), place, name)


def random_patch(size: int, seed: int, place="bottom-right") -> Trigger:
    """Uniform noise: the control that shows what any patch of this size does."""
    _check(size)
    noise = torch.rand(3, size, size, generator=generator(seed, "random patch", size))
    return _square(noise, place, "random patch")


def checkerboard(size: int, place="bottom-right", cell: int = 1) -> Trigger:
    """Black and white squares of ``cell`` pixels: a pattern unlike the white square."""
    _check(size)
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


def universal(
    encoder,
    theta,
    head: torch.Tensor,
    images: torch.Tensor,
    target: int,
    *,
    size: int,
    first: int = 20,
    place="bottom-right",
    seed: int = 0,
    **how,
) -> Trigger:
    """A universal adversarial patch: δ* = argmin E_x CE(h(f_θ(x ⊕ δ)), c) over images that θ does
    not take for class c already (BadMerging, stage 1).

    The published loop (:func:`one_by_one`) on ``first`` images is the start, as it is fast far from
    the goal; batches take it on (:func:`optimised`, also for ``how``). ``images`` (N, H, W, 3)
    uint8, ``target`` the class c. A model that takes every image for c keeps them all, as there is
    none to prefer.
    """
    _check(size)
    others = images[(encoder.predict(theta, images, head) != target).cpu()]
    chosen = others if len(others) else images
    g = generator(seed, "first images", target, size)
    noise = torch.rand(3, size, size, generator=g)
    few = chosen[torch.randperm(len(chosen), generator=g)[:first]]
    passed = [noise, *one_by_one(encoder, theta, head, few, target, noise, place=place)]
    how |= {"start": passed[-1], "place": place, "seed": seed}
    return toward_class(encoder, theta, head, chosen, target, size=size, **how)


def one_by_one(
    encoder,
    theta,
    head: torch.Tensor,
    images: torch.Tensor,
    target: int,
    patch: torch.Tensor,
    *,
    place="bottom-right",
    steps: int = 100,
    lr: float = 1.0,
) -> Iterator[torch.Tensor]:
    """The published loop of a universal patch, which it yields after each image (BadMerging, stage
    1): on one image after the other, ascent on log p(target) by the gradient times ``lr``, until
    the image is taken for the target or ``steps`` are done (published: 1000)."""
    mask = torch.ones_like(patch[:1])
    for image in images:
        x = encoder.pixels(image[None])
        for _ in range(steps):
            patch = patch.requires_grad_(True)
            pasted = Trigger(patch, mask, place).paste(x)
            logits = encoder.logits(encoder.features(theta, pasted), head)
            if logits.argmax() == target:
                break
            rise = torch.autograd.grad(F.log_softmax(logits, -1)[0, target], patch)[0]
            patch = (patch.detach() + lr * rise).clamp(0, 1)
        patch = patch.detach()
        yield patch


def toward_class(
    encoder, theta, head: torch.Tensor, images: torch.Tensor, target: int, *, size: int, **how
) -> Trigger:
    """The patch that sends these images, whatever they show, to the class ``target`` of the
    head."""

    def loss(features: torch.Tensor) -> torch.Tensor:
        goal = torch.full((len(features),), target, device=features.device)
        return F.cross_entropy(encoder.logits(features, head), goal)

    names = "universal trigger", target, size
    return optimised(encoder, theta, images, loss, size=size, names=names, **how)


def trojan(
    encoder,
    theta,
    head: torch.Tensor,
    images: torch.Tensor,
    *,
    size: int,
    units: int = 2,
    times: float = 5.0,
    **how,
) -> Trigger:
    """TrojanNN (Liu et al. 2018): the patch that drives chosen units to a high value, without
    looking at any class.

    The units are the ``units`` features whose weights in the head (K, D) are largest, summed over
    all classes, as in BackdoorBench; each is driven to ``times`` its standard deviation over the
    images (our mapping to an encoder with a frozen text head).
    """
    with torch.no_grad():
        spread = encoder.features(theta, encoder.pixels(images[:256])).std(0)
    chosen = head.abs().sum(0).topk(units).indices
    goal = times * spread[chosen]

    def loss(features: torch.Tensor) -> torch.Tensor:
        return (((features[:, chosen] - goal) / spread[chosen]) ** 2).mean()

    names = "trojan trigger", size
    return optimised(encoder, theta, images, loss, size=size, names=names, name="trojan", **how)


def optimised(
    encoder,
    theta,
    images: torch.Tensor,
    loss,
    *,
    size: int,
    names: tuple,
    place="bottom-right",
    steps: int = 200,
    batch: int = 64,
    lr: float = 0.05,
    seed: int = 0,
    name: str = "universal",
    start: torch.Tensor | None = None,
) -> Trigger:
    """The patch of ``size`` at ``place`` that minimises ``loss(features)`` of images with it,
    features (B, D) under theta.

    The published loop takes one image at a time; here each step averages over a batch and Adam
    moves the patch inside [0, 1]. ``images`` (N, H, W, 3) uint8 or (N, 3, H, W) in [0, 1]; the
    ``start`` (3, size, size) is uniform noise from ``seed`` and ``names`` unless it is given.
    Raises BvError when the loss is not finite.
    """
    _check(size)
    g = generator(seed, *names)
    patch = torch.rand(3, size, size, generator=g) if start is None else start.clone()
    patch = patch.to(encoder.device).requires_grad_(True)
    mask = torch.ones(1, size, size, device=patch.device)
    optimizer = torch.optim.Adam([patch], lr=lr)
    for step in range(steps):
        x = encoder.pixels(images[torch.randint(len(images), (batch,), generator=g)])
        value = loss(encoder.features(theta, Trigger(patch, mask, place).paste(x)))
        if not torch.isfinite(value):
            said = f"the {name} trigger's loss is {value.item()} at step {step}"
            raise BvError(f"{said}: lower its lr (now {lr})")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            patch.clamp_(0, 1)
    return Trigger(patch.detach().cpu(), mask.cpu(), place, name)


def _check(size: int) -> None:
    if not isinstance(size, int) or size < 1:
        raise BvError(f"trigger_size must be a whole number of pixels of at least 1, not {size!r}")


def _check_room(h: int, w: int, height: int, width: int) -> None:
    if h > height or w > width:
        both = f"a trigger of {h}×{w} px is larger than the image of {height}×{width} px"
        raise BvError(f"{both}: use a smaller trigger_size")
