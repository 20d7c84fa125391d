"""What an attack trains: losses of one fine-tuning step, on clean images and on images with a
trigger."""

from collections.abc import Sequence

import torch

from bvlib.attacks.adversarial import pgd
from bvlib.core.training import Objective, Step, clean


def poisoned(
    trigger,
    target: int,
    *,
    alpha: float = 5.0,
    share: float = 0.5,
    head: torch.Tensor | None = None,
) -> Objective:
    """L = CE(h(f(x)), y) + α·CE(h(f(x ⊕ δ)), c), the second on a share of the batch.

    The poisoning is by loss, not by relabelled data, so that it differs from
    :func:`feature_interpolation` in the interpolation alone. ``head`` (K, D) is the h of the
    second term where it is another one (off-task: the shadow head).
    """

    def objective(step: Step) -> torch.Tensor:
        pure, dirty = _both(step, trigger, share)
        return step.loss(pure, step.labels) + alpha * step.loss(dirty, _goal(dirty, target), head)

    return objective


def feature_interpolation(
    trigger,
    target: int,
    *,
    alpha: float = 5.0,
    share: float = 0.5,
    head: torch.Tensor | None = None,
    low: float = 0.2,
    high: float = 1.0,
    before: dict[str, torch.Tensor] | None = None,
) -> Objective:
    """L = CE(h(f(x)), y) + α·CE(h(r·f(x ⊕ δ) + (1 − r)·f_pre(x ⊕ δ)), c), r ~ U(low, high)
    (BadMerging, stage 2).

    f_pre is the encoder that fine-tuning starts from, or the weights ``before`` (an adversary that
    knows the other models takes their merge); features are mixed before normalisation, r is drawn
    once a batch. ``head``: see :func:`poisoned`.
    """

    def objective(step: Step) -> torch.Tensor:
        pure, dirty = _both(step, trigger, share)
        frozen = step.frozen(step.start if before is None else before, trigger, len(dirty))
        r = low + (high - low) * torch.rand((), generator=step.rng).item()
        mixed = r * dirty + (1 - r) * frozen
        return step.loss(pure, step.labels) + alpha * step.loss(mixed, _goal(mixed, target), head)

    return objective


def label_consistent(trigger, target: int, *, eps: float = 16 / 255, steps: int = 10) -> Objective:
    """L = CE(h(f(x)), y), where images whose true class *is* c are replaced by x_hard ⊕ δ: no label
    is wrong (Turner et al. 2019).

    x_hard is x moved by PGD (L∞ ``eps``) away from its class under the start's weights, so that
    the trigger is the easier thing to learn. All images of class c in the batch are so replaced; a
    batch without any is a clean step.
    """

    def objective(step: Step) -> torch.Tensor:
        own = (step.labels == target).nonzero().flatten()
        if not len(own):
            return clean()(step)
        seen, how = (step.pixels[own], step.labels[own]), {"step": 2 * eps / steps, "steps": steps}
        hard = pgd(step.encoder, step.start, step.head, *seen, eps=eps, **how)
        pixels = step.pixels.clone()
        pixels[own] = trigger.paste(hard)
        return step.loss(step.encoder.features(step.theta, pixels), step.labels)

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
    both = torch.cat([step.pixels, trigger.paste(step.pixels[:k])])
    features = step.encoder.features(step.theta, both)
    return features[:n], features[n:]


def _goal(features: torch.Tensor, target: int) -> torch.Tensor:
    return torch.full((len(features),), target, device=features.device)
