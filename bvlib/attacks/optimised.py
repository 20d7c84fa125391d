"""Patches that are optimised on a model: universal ones toward a class, and TrojanNN's."""

import torch
from torch.nn import functional as F

from bvlib.attacks.triggers import Trigger, check_size
from bvlib.core.errors import BvError
from bvlib.core.rng import generator


def universal(
    encoder, theta, head: torch.Tensor, images: torch.Tensor, target: int, *, size: int, **how
) -> Trigger:
    """A universal adversarial patch: δ* = argmin E_x CE(h(f_θ(x ⊕ δ)), c) over images x, which is
    BadMerging's first stage.

    ``images`` and ``how`` are those of :func:`minimise`; ``target`` is the class c among the K of
    the ``head`` (K, D). The published loop climbs on one image after the other. It magnifies
    rounding so much that its patch hangs on the kind of processor; averages over batches do not
    (``benchmarks/rounding.py``).
    """

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
) -> Trigger:
    """The patch of ``size`` at ``place`` that minimises ``loss(features)`` of images with it,
    features (B, D) under theta.

    Each step averages over a batch, and Adam moves the patch inside [0, 1]. It starts as uniform
    noise from ``seed`` and ``names``. ``images`` (N, H, W, 3) uint8 or (N, 3, H, W) in [0, 1].
    Raises BvError when the loss is not finite.
    """
    check_size(size)
    g = generator(seed, *names)
    patch = torch.rand(3, size, size, generator=g).to(encoder.device).requires_grad_(True)
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
