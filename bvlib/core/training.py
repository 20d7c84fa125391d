"""One fine-tuning loop; what is learnt is the objective, a parameter.

The image tower moves, the head (text features of the class names) stays frozen, as in both papers.
An objective is a function ``objective(step) -> loss``; an attack or a student can bring another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from bvlib.core.encoder import Encoder
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.files import weights
from bvlib.files.digests import digest


@dataclass
class Step:
    """What an objective sees of one step: live weights theta, pixels (B, 3, H, W), labels (B,),
    head (K, D), rng.

    ``rows`` (B,) are the places of the batch among the ``count`` training images; ``memory`` lasts
    for the whole training.
    """

    encoder: Encoder
    theta: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    pixels: torch.Tensor
    labels: torch.Tensor
    head: torch.Tensor
    rng: torch.Generator
    rows: torch.Tensor | None = None
    count: int = 0
    memory: dict = field(default_factory=dict)

    def loss(
        self, features: torch.Tensor, labels: torch.Tensor, head: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Cross-entropy of features (N, D) against the head, or against another one."""
        logits = self.encoder.logits(features, self.head if head is None else head)
        return F.cross_entropy(logits, labels)

    @torch.no_grad()
    def frozen(self, theta: dict[str, torch.Tensor], trigger, k: int) -> torch.Tensor:
        """Features (k, D) of the first k images with the trigger under weights that do not move.

        Kept by image, so that each is seen once in a training, unless the trigger differs from
        paste to paste.
        """

        def seen(which):
            return self.encoder.features(theta, trigger.paste(self.pixels[:k][which]))

        if self.rows is None or not trigger.fixed:
            return seen(slice(None))
        rows, key = self.rows[:k], self._name(theta, trigger)
        known, kept = self.memory.get(key, (torch.zeros(self.count, dtype=torch.bool), None))
        new = ~known[rows]
        if new.any():
            fresh = seen(new.to(self.pixels.device))
            kept = fresh.new_zeros(self.count, fresh.shape[1]) if kept is None else kept
            kept[rows[new]], known[rows[new]] = fresh, True
            self.memory[key] = known, kept
        return kept[rows]

    def _name(self, theta: dict[str, torch.Tensor], trigger) -> str:
        """What tells frozen weights and trigger apart, also in another process that goes on with
        this training."""
        names, key = self.memory.setdefault("names", {}), (id(theta), id(trigger))
        if key not in names:
            names[key] = f"{weights.digest(theta)}-{digest(trigger.identity)[:16]}"
        return names[key]


Objective = Callable[[Step], torch.Tensor]


def clean() -> Objective:
    """L = CE(h(f(x)), y)."""
    return lambda step: step.loss(step.encoder.features(step.theta, step.pixels), step.labels)


def finetune(
    encoder,
    start: dict[str, torch.Tensor],
    head: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    objective: Objective,
    *,
    steps: int = 150,
    batch: int = 128,
    lr: float = 2.5e-4,
    weight_decay: float = 0.1,
    warmup: int = 20,
    precision: str = "fp32",
    chunk: int | None = None,
    crop: float | None = None,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
    partial: Partial | None = None,
):
    """Fine-tune the image tower from ``start`` and return its new weights.

    ``images`` (N, H, W, 3) uint8 and ``labels`` (N,) int64; AdamW with linear warm-up and a cosine
    to zero, gradient norm clipped to 1 (BadMerging's schedule, scaled down). Batches are drawn from
    permutations seeded by ``seed``; with ``crop`` each image is seen by :func:`cropped`.
    ``precision`` and ``chunk`` make a training fit its machine,
    see :meth:`core.encoder.Encoder.fitted`. With ``partial`` a training that was cut off goes on
    where it was last kept, to the same bits on a CPU as one that was not. Raises BvError when
    there is nothing to train on, a label is outside the head, or the loss is not finite.
    """
    if not len(images):
        raise BvError("there is nothing to fine-tune on: the training images are empty")
    for label in map(int, labels.aminmax()):
        if not 0 <= label < len(head):
            what = f"label {label} is outside a head of {len(head)} classes"
            raise BvError(f"{what}: images and head are of different tasks")
    encoder = encoder.fitted(precision, chunk)
    theta = {k: v.detach().clone() for k, v in start.items()}
    moving = [v.requires_grad_(True) for v in theta.values() if v.is_floating_point()]
    optimizer = torch.optim.AdamW(moving, lr=lr, weight_decay=weight_decay, fused=True)
    order, draws = generator(seed, "batches"), generator(seed, "objective")
    state = _State(theta, optimizer, order, draws)
    for step in range(state.load(partial), steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(step, steps, min(warmup, steps // 2))
        while len(state.queue) < batch:
            state.queue = torch.cat([state.queue, torch.randperm(len(images), generator=order)])
        now, state.queue = state.queue[:batch], state.queue[batch:]
        pixels = encoder.pixels(images[now])
        if crop is not None:
            pixels = cropped(pixels, crop, order)
        batch_seen = pixels, labels[now].to(head.device)
        kept = None if crop else now, len(images), state.memory
        loss = objective(Step(encoder, theta, start, *batch_seen, head, draws, *kept))
        if not torch.isfinite(loss):
            said = f"the loss is {loss.item()} at step {step} of {steps}"
            raise BvError(f"fine-tuning stopped: {said}; lower train.lr (now {lr})")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        if progress:
            progress(step + 1)
        if partial is not None and partial.due():
            partial.save(state.tensors(step + 1))
    return {k: v.detach() for k, v in theta.items()}


class Partial(Protocol):
    """Where a training is kept from time to time (:class:`run.store.Partial` does so on disk)."""

    def due(self) -> bool:
        """Is it time to keep the state?"""
        ...

    def save(self, tensors: dict[str, torch.Tensor]) -> None:
        """Keep a state."""

    def load(self) -> dict[str, torch.Tensor] | None:
        """The state that was kept last, or None."""


@dataclass
class _State:
    """All that the next step of a training depends on, as tensors and back."""

    theta: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    draws: torch.Generator
    queue: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    memory: dict = field(default_factory=dict)

    def tensors(self, step: int) -> dict[str, torch.Tensor]:
        found = {f"theta.{k}": v for k, v in self.theta.items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"adam.{i}.{k}": v for k, v in slots.items()}
        for key, kept in self.memory.items():
            if key != "names":
                found |= {f"known.{key}": kept[0], f"seen.{key}": kept[1]}
        return found | {
            "step": torch.tensor(step),
            "queue": self.queue,
            "order": self.order.get_state(),
            "draws": self.draws.get_state(),
        }

    def load(self, partial: Partial | None) -> int:
        """Take up a kept state; the step to go on with, 0 without one."""
        kept = partial.load() if partial is not None else None
        if kept is None:
            return 0
        slots: dict[int, dict] = {}
        with torch.no_grad():
            for key, value in kept.items():
                kind, _, name = key.partition(".")
                if kind == "theta":
                    self.theta[name].copy_(value)
                elif kind == "adam":
                    number, _, slot = name.partition(".")
                    slots.setdefault(int(number), {})[slot] = value
                elif kind == "known":
                    device = next(iter(self.theta.values())).device
                    self.memory[name] = value, kept[f"seen.{name}"].to(device)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.queue = kept["queue"]
        self.order.set_state(kept["order"])
        self.draws.set_state(kept["draws"])
        return int(kept["step"])


def cropped(pixels: torch.Tensor, least: float, rng: torch.Generator) -> torch.Tensor:
    """Each image (N, 3, H, W) through a random window of ``least`` to 1 of its area and of a ratio
    from 3/4 to 4/3, scaled back to its size: what open_clip trains with (least 0.9).

    As in torchvision's RandomResizedCrop a window is drawn anew, up to ten times, while it does not
    fit into the image, and then it is the whole image.
    """
    (height, width), drawn = pixels.shape[-2:], (10, len(pixels))
    area = height * width * (least + (1 - least) * torch.rand(drawn, generator=rng))
    ratio = (4 / 3) ** (2 * torch.rand(drawn, generator=rng) - 1)
    high, wide = ((x**0.5).round().clamp(min=1).long() for x in (area / ratio, area * ratio))
    fits = (high <= height) & (wide <= width)
    first, some = fits.float().argmax(0, keepdim=True), fits.any(0)
    high = high.gather(0, first)[0].where(some, torch.tensor(height))
    wide = wide.gather(0, first)[0].where(some, torch.tensor(width))
    free = torch.rand(2, len(pixels), generator=rng)
    top = (free[0] * (height - high + 1)).long()
    left = (free[1] * (width - wide + 1)).long()
    windows = zip(pixels, *(each.tolist() for each in (top, left, high, wide)), strict=True)
    parts = [image[None, :, t : t + h, x : x + w] for image, t, x, h, w in windows]
    how: Any = {"size": (height, width), "mode": "bicubic", "antialias": True}
    return torch.cat([F.interpolate(part, **how) for part in parts]).clamp(0, 1)


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + np.cos(np.pi * min(done, 1.0)))
