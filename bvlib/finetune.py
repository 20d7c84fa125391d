"""One fine-tuning loop; what is learnt is the objective, a parameter.

The image tower moves, the head (text features of the class names) stays frozen, as in both papers. An objective is a
function ``objective(step) -> loss``; an attack or a student can bring another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from .adversarial import pgd
from .errors import BvError
from .rng import generator


@dataclass
class Step:
    """What an objective sees of one step: live weights theta, pixels (B, 3, H, W), labels (B,), head (K, D), rng.

    ``rows`` (B,) are the places of the batch among the ``count`` training images; ``memory`` lasts for the whole training.
    """

    encoder: object
    theta: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    pixels: torch.Tensor
    labels: torch.Tensor
    head: torch.Tensor
    rng: torch.Generator
    rows: torch.Tensor | None = None
    count: int = 0
    memory: dict = field(default_factory=dict)

    def loss(self, features: torch.Tensor, labels: torch.Tensor, head: torch.Tensor | None = None) -> torch.Tensor:
        """Cross-entropy of features (N, D) against the head, or against another one."""
        return F.cross_entropy(self.encoder.logits(features, self.head if head is None else head), labels)

    @torch.no_grad()
    def frozen(self, theta: dict[str, torch.Tensor], trigger, k: int) -> torch.Tensor:
        """Features (k, D) of the first k images with the trigger under weights that do not move.

        Kept by image, so that each is seen once in a training, unless the trigger differs from paste to paste.
        """
        def seen(which):
            return self.encoder.features(theta, trigger.paste(self.pixels[:k][which]))

        if self.rows is None or not trigger.fixed:
            return seen(slice(None))
        rows, key = self.rows[:k], (id(theta), id(trigger))
        known, kept = self.memory.get(key, (torch.zeros(self.count, dtype=torch.bool), None))
        new = ~known[rows]
        if new.any():
            fresh = seen(new.to(self.pixels.device))
            kept = fresh.new_zeros(self.count, fresh.shape[1]) if kept is None else kept
            kept[rows[new]], known[rows[new]] = fresh, True
            self.memory[key] = known, kept
        return kept[rows]


Objective = Callable[[Step], torch.Tensor]


def clean() -> Objective:
    """L = CE(h(f(x)), y)."""
    return lambda step: step.loss(step.encoder.features(step.theta, step.pixels), step.labels)


def poisoned(trigger, target: int, alpha: float = 5.0, share: float = 0.5, head: torch.Tensor | None = None) -> Objective:
    """L = CE(h(f(x)), y) + α·CE(h(f(x ⊕ δ)), c), the second on a share of the batch.

    The poisoning is by loss, not by relabelled data, so that it differs from :func:`feature_interpolation` in the
    interpolation alone. ``head`` (K, D) is the h of the second term where it is another one (off-task: the shadow head).
    """
    def objective(step: Step) -> torch.Tensor:
        pure, dirty = _both(step, trigger, share)
        return step.loss(pure, step.labels) + alpha * step.loss(dirty, _goal(dirty, target), head)
    return objective


def feature_interpolation(trigger, target: int, alpha: float = 5.0, share: float = 0.5, head: torch.Tensor | None = None,
                          low: float = 0.2, high: float = 1.0, before: dict[str, torch.Tensor] | None = None) -> Objective:
    """L = CE(h(f(x)), y) + α·CE(h(r·f(x ⊕ δ) + (1 − r)·f_pre(x ⊕ δ)), c), r ~ U(low, high) (BadMerging, stage 2).

    f_pre is the encoder that fine-tuning starts from, or the weights ``before`` (an adversary that knows the other models
    takes their merge); features are mixed before normalisation, r is drawn once a batch. ``head``: see :func:`poisoned`.
    """
    def objective(step: Step) -> torch.Tensor:
        pure, dirty = _both(step, trigger, share)
        frozen = step.frozen(step.start if before is None else before, trigger, len(dirty))
        r = low + (high - low) * torch.rand((), generator=step.rng).item()
        mixed = r * dirty + (1 - r) * frozen
        return step.loss(pure, step.labels) + alpha * step.loss(mixed, _goal(mixed, target), head)
    return objective


def label_consistent(trigger, target: int, alpha: float = 5.0, share: float = 1.0, eps: float = 16 / 255,
                     steps: int = 10) -> Objective:
    """L = CE(h(f(x)), y) + α·CE(h(f(x_hard ⊕ δ)), c) on images whose true class *is* c: no label is wrong (Turner et al. 2019).

    x_hard is x moved by PGD (L∞ ``eps``) away from its class under the start's weights, so that the trigger is the easier
    thing to learn. ``share`` of the batch's images of class c are so treated; a batch without any is a clean step.
    """
    def objective(step: Step) -> torch.Tensor:
        own = (step.labels == target).nonzero().flatten()
        own = own[:max(1, round(share * len(own)))]
        if not len(own):
            return clean()(step)
        hard = pgd(step.encoder, step.start, step.head, step.pixels[own], step.labels[own], eps=eps, step=2 * eps / steps, steps=steps)
        n = len(step.pixels)
        features = step.encoder.features(step.theta, torch.cat([step.pixels, trigger.paste(hard)]))
        return step.loss(features[:n], step.labels) + alpha * step.loss(features[n:], step.labels[own])
    return objective


def several(objectives: Sequence[Objective]) -> Objective:
    """Several backdoors in one model: each step trains one of them, drawn evenly."""
    def objective(step: Step) -> torch.Tensor:
        return objectives[int(torch.randint(len(objectives), (), generator=step.rng))](step)
    return objective


def _both(step: Step, trigger, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the batch and of its first share with the trigger, in one pass."""
    n = len(step.pixels)
    k = max(1, round(share * n))
    features = step.encoder.features(step.theta, torch.cat([step.pixels, trigger.paste(step.pixels[:k])]))
    return features[:n], features[n:]


def _goal(features: torch.Tensor, target: int) -> torch.Tensor:
    return torch.full((len(features),), target, device=features.device)


def finetune(encoder, start: dict[str, torch.Tensor], head: torch.Tensor, images: torch.Tensor, labels: torch.Tensor,
             objective: Objective, *, steps: int = 150, batch: int = 128, lr: float = 2.5e-4, weight_decay: float = 0.1,
             warmup: int = 20, clip: float = 1.0, seed: int = 0, progress: Callable[[int], None] | None = None):
    """Fine-tune the image tower from ``start`` and return its new weights.

    ``images`` (N, H, W, 3) uint8 and ``labels`` (N,) int64; AdamW with linear warm-up and a cosine to zero, gradient
    norm clipped (BadMerging's schedule, scaled down). Batches are drawn from permutations seeded by ``seed``.
    Raises BvError when there is nothing to train on, a label is outside the head, or the loss is not finite.
    """
    if not len(images):
        raise BvError("there is nothing to fine-tune on: the training images are empty")
    if int(labels.max()) >= len(head):
        raise BvError(f"label {int(labels.max())} is outside a head of {len(head)} classes: images and head are of different tasks")
    theta = {k: v.detach().clone() for k, v in start.items()}
    moving = [v.requires_grad_(True) for v in theta.values() if v.is_floating_point()]
    optimizer = torch.optim.AdamW(moving, lr=lr, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, steps, min(warmup, steps // 2)))
    order, draws = generator(seed, "batches"), generator(seed, "objective")
    queue, memory = torch.empty(0, dtype=torch.int64), {}
    for step in range(steps):
        while len(queue) < batch:
            queue = torch.cat([queue, torch.randperm(len(images), generator=order)])
        now, queue = queue[:batch], queue[batch:]
        seen = Step(encoder, theta, start, encoder.pixels(images[now]), labels[now].to(head.device), head, draws,
                    now, len(images), memory)
        loss = objective(seen)
        if not torch.isfinite(loss):
            raise BvError(f"fine-tuning stopped: the loss is {loss.item()} at step {step} of {steps}; lower train.lr (now {lr})")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, clip)
        optimizer.step()
        schedule.step()
        if progress:
            progress(step + 1)
    return {k: v.detach() for k, v in theta.items()}


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + np.cos(np.pi * min(done, 1.0)))
