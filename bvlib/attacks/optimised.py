"""Patches that are optimised on a model: universal ones toward a class, and TrojanNN's."""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from bvlib.attacks.triggers import Trigger, check_size
from bvlib.core.errors import BvError
from bvlib.core.rng import generator


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
    the goal; batches take it on (:func:`minimise`, also for ``how``). ``images`` (N, H, W, 3)
    uint8, ``target`` the class c. A model that takes every image for c keeps them all, as there is
    none to prefer.
    """
    check_size(size)
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
) -> Iterator[torch.Tensor]:
    """The published loop of a universal patch, which it yields after each image (BadMerging, stage
    1): on one image after the other, ascent on log p(target) by the gradient, until the image is
    taken for the target or ``steps`` are done (published: 1000)."""
    mask = torch.ones_like(patch[:1])
    for image in images:
        x = encoder.pixels(image[None])
        for _ in range(steps):
            patch = patch.detach().requires_grad_(True)
            pasted = Trigger(patch, mask, place).paste(x)
            logits = encoder.logits(encoder.features(theta, pasted), head)
            if logits.argmax() == target:
                break
            rise = torch.autograd.grad(F.log_softmax(logits, -1)[0, target], patch)[0]
            patch = (patch + rise).detach().clamp(0, 1)
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
    return minimise(encoder, theta, images, loss, size=size, names=names, **how)


def trojan(
    encoder, theta, head: torch.Tensor, images: torch.Tensor, *, size: int, **how
) -> Trigger:
    """TrojanNN (Liu et al. 2018): the patch that drives chosen units to a high value, without
    looking at any class.

    The units are the two features whose weights in the head (K, D) are largest, summed over all
    classes, as in BackdoorBench; each is driven to five times its standard deviation over the
    images (our mapping to an encoder with a frozen text head).
    """
    with torch.no_grad():
        spread = encoder.features(theta, encoder.pixels(images[:256])).std(0)
    chosen = head.abs().sum(0).topk(2).indices
    goal = 5.0 * spread[chosen]

    def loss(features: torch.Tensor) -> torch.Tensor:
        return (((features[:, chosen] - goal) / spread[chosen]) ** 2).mean()

    names = "trojan trigger", size
    return minimise(encoder, theta, images, loss, size=size, names=names, name="trojan", **how)


def minimise(
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
    check_size(size)
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
