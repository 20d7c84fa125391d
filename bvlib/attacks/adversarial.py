"""Small changes of pixels that change what a model says: PGD, and the augmentation of
BadMerging-Off made of it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bvlib.core.errors import BvError
from bvlib.core.rng import generator


def pgd(
    encoder,
    theta,
    head: Tensor,
    pixels: Tensor,
    labels: Tensor,
    *,
    toward: bool = False,
    eps: float = 8 / 255,
    step: float = 1 / 255,
    steps: int = 40,
) -> Tensor:
    """Pixels (N, 3, H, W) in [0, 1], each moved by at most ``eps``, away from ``labels`` (N,) or
    ``toward`` them.

    Signed gradient steps on the cross-entropy, from the image itself (Madry et al. 2018). Toward a
    label, the result is the iterate of smallest L1 change that the model takes for it, and the
    image as it was where there is none (BadMerging-Off, adversarial data augmentation); away from
    it, the last iterate.
    """
    x, best = pixels.clone(), pixels.clone()
    least = torch.full((len(x),), float("inf"), device=x.device)
    for _ in range(steps):
        x.requires_grad_(True)
        logits = encoder.logits(encoder.features(theta, x), head)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        slope = torch.autograd.grad(loss, x)[0].sign()
        x = x.detach() + (-step if toward else step) * slope
        x = torch.minimum(torch.maximum(x, pixels - eps), pixels + eps).clamp(0, 1)
        if toward:
            with torch.no_grad():
                there = encoder.logits(encoder.features(theta, x), head).argmax(-1) == labels
            change = (x - pixels).abs().flatten(1).sum(1)
            better = there & (change < least)
            least = torch.where(better, change, least)
            best = torch.where(better[:, None, None, None], x, best)
    return best if toward else x


def pushed_away(
    encoder, theta, head: Tensor, images: Tensor, *, count: int = 100, seed: int = 0, **how
) -> Tensor:
    """Adversarial data augmentation (BadMerging-Off): ``count`` crops of reference images that no
    longer look like class 0.

    ``images`` (R, H, W, 3) uint8 of the target class, ``head`` (K, D) with that class first and
    shadow classes after it. Each crop covers a share of 0.2 to 0.5 of its image, is scaled back to
    its size, and moved by :func:`pgd` (``how``) toward a random shadow class other than the one it
    is taken for. Returns pixels (count, 3, H, W) in [0, 1]. Raises BvError without images or with
    fewer than two shadow classes.
    """
    if not len(images):
        needed = "the off-task attack needs reference images of the target class"
        raise BvError(f"{needed}: there are none in train")
    if len(head) < 3:
        needed = "pushing references away needs two shadow classes or more"
        raise BvError(f"{needed}, the head has {len(head) - 1}")
    g = generator(seed, "augmentation")
    pixels = encoder.pixels(images)
    height, width = pixels.shape[-2:]
    low, high, crops = 0.2, 0.5, []
    for i in range(count):
        side = (low + (high - low) * torch.rand((), generator=g).item()) ** 0.5
        h, w = max(1, round(side * height)), max(1, round(side * width))
        room = height - h, width - w
        top, left = (int(torch.randint(free + 1, (), generator=g)) for free in room)
        part = pixels[i % len(pixels)][None, :, top : top + h, left : left + w]
        crops.append(F.interpolate(part, size=(height, width), mode="bilinear", antialias=True))
    crops = torch.cat(crops)
    with torch.no_grad():
        seen = encoder.logits(encoder.features(theta, crops), head).argmax(-1).cpu()
    free = len(head) - 1 - (seen > 0).long()  # shadow classes other than the one seen
    goals = 1 + (torch.rand(count, generator=g) * free).long()
    goals += (seen > 0) & (goals >= seen)
    return pgd(encoder, theta, head, crops, goals.to(crops.device), toward=True, **how)
