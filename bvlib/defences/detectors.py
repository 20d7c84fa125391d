"""Detectors: is this model backdoored (Neural Cleanse), is this image triggered (Scale-Up).
Nothing is changed or mended.

A detector is only as good as what it says of clean models and clean images: run each on the clean
twin, the clean merge and the base too, and print both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from bvlib.attacks.triggers import Trigger
from bvlib.core.errors import BvError
from bvlib.core.registry import Registry
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict

detector = Registry("detector", "detector")
"""``of="model"``: ``f(encoder, theta, head, images, *, seed, ...)`` gives a table with the columns
of :func:`neural_cleanse`. ``of="image"``: ``f(encoder, theta, head, images, trigger)`` gives scores
(N,), high for an image with a trigger."""

FLAGGED_ABOVE = 2.0
"""Neural Cleanse calls a label, and its model, backdoored when the anomaly index is larger."""


# Neural Cleanse: a model


@detector(
    "neural-cleanse",
    of="model",
    settings="neural_cleanse",
    short="cleanse",  # what the store calls its tables
    needs="clean images of the task",
    reference="Wang et al. 2019",
)
def neural_cleanse(
    encoder,
    theta: StateDict,
    head: Tensor,
    images: Tensor,
    *,
    classes: Sequence[int] | None = None,
    **how,
) -> pd.DataFrame:
    """How small a trigger sends every image to a label, for each label (Wang et al. 2019); one row
    a label.

    Columns: class (index in the head), norm (L1 of the mask, in pixels), rate (percent of
    ``images`` that the reversed trigger sends to the class), converged (had the norm stopped
    falling before the steps were used up?), deviation (:func:`deviations`), flagged. ``images``
    (N, H, W, 3) uint8 are clean and need no labels; ``classes`` all of the head by default,
    ``how`` goes to :func:`reverse_triggers`. The index of the model is
    ``anomaly_index(table["norm"])``.

    Limits. A base like CLIP has a small universal patch for nearly every label, so one expects all
    norms to be small and none to stand out (BadMerging reports an index of about 1.2): a failure
    that the base's weakness predicts, not the attack's stealth. The index also depends on how long
    was searched: of BadMerging-On's own model it was 3.4 after 150 steps and 1.8 when all labels
    had converged (mini, seed 0). And a clean label may stand out: that run's clean fine-tune was
    flagged at both. Of few labels the MAD is fragile. So read the norms beside the index, and a
    norm only where the rate is high and the search converged.
    """
    classes = list(range(len(head))) if classes is None else list(classes)
    if len(classes) < 3:
        raise BvError(f"Neural Cleanse compares labels: name three labels or more, not {classes}")
    found, converged = reverse_triggers(encoder, theta, head, images, classes, **how)
    norms = [float(t.mask.sum()) for t in found]
    rates = [100 * _rate(encoder, theta, head, images, t, c) for c, t in zip(classes, found)]
    far = deviations(norms)
    table = pd.DataFrame({"class": classes, "norm": norms, "rate": rates, "converged": converged})
    return table.assign(deviation=far, flagged=far > FLAGGED_ABOVE)


def deviations(norms: Sequence[float]) -> np.ndarray:
    """(median − norm)/(1.4826·MAD) of each label: positive for a label whose trigger is smaller
    than the median's.

    1.4826 makes the MAD of normal numbers their standard deviation. Where more than half of the
    norms are equal the MAD is zero, and every other norm infinitely far. Raises BvError for fewer
    than three labels or a norm that is not finite.
    """
    each = np.asarray(norms, dtype=np.float64)
    if len(each) < 3 or not np.isfinite(each).all():
        needed = "an anomaly index needs the finite norms of three labels or more"
        raise BvError(f"{needed}, not {each.tolist()}")
    below = np.median(each) - each
    spread = 1.4826 * np.median(np.abs(below))
    return below / spread if spread > 0 else np.where(below == 0, 0.0, np.copysign(np.inf, below))


def anomaly_index(norms: Sequence[float]) -> float:
    """The largest deviation of a label below the median: a model is flagged above 2
    (``FLAGGED_ABOVE``).

    Labels above the median do not count, a large trigger is no sign of a backdoor. BvError as
    :func:`deviations`.
    """
    return max(0.0, float(deviations(norms).max()))


def reverse_triggers(
    encoder,
    theta: StateDict,
    head: Tensor,
    images: Tensor,
    classes: Sequence[int],
    *,
    steps: int = 3000,
    batch: int = 32,
    lr: float = 0.1,
    cost: float = 1e-3,
    threshold: float = 0.99,
    every: int = 10,
    patience: int = 2,
    settle: int = 10,
    at_once: int = 16,
    seed: int = 0,
) -> tuple[list[Trigger], list[bool]]:
    """The smallest trigger that Neural Cleanse finds for each class: argmin CE(h(f((1 − m)·x +
    m·p)), y) + w·‖m‖₁; and whether the search for it had converged.

    Mask m (1, H, W) and pattern p (3, H, W) are tanh(·)/2 + 0.5 of free numbers from a random
    start, moved by Adam with β (0.5, 0.9); ``at_once`` labels are optimised side by side on the
    same batches, each with a w of its own. ``every`` so many steps all ``images`` are judged: a
    label that takes a share of ``threshold`` of them keeps its mask when that is the smallest so
    far; ``patience`` such successes in a row set w from 0 to ``cost``, and later double it, as
    many failures divide it by 2^1.5. A label that never gets there keeps its last mask. A label
    has converged when w was lowered and raised after its start, and its norm has not fallen by 1 %
    in ``settle`` rounds. Then its search ends, as the authors' does, and all searches end after
    ``steps``.

    The authors' traffic-sign settings scaled down: rounds of 10 batches in place of 31, a patience
    of 2 in place of 5, and an early stop after 10 rounds in place of 25. The rate is that of the
    mask that is kept; the authors' is the mean of the batches before it, which flatters the
    smallest of many. Raises BvError for no images, a class outside the head, or fewer steps than
    ``every``.
    """
    if not len(images):
        raise BvError("Neural Cleanse needs clean images to reverse triggers on: there are none")
    if wrong := [c for c in classes if not 0 <= c < len(head)]:
        raise BvError(f"class {wrong[0]} is outside a head of {len(head)} classes")
    if not 1 <= every <= steps:
        what = f"Neural Cleanse cannot judge every {every} of {steps} steps"
        raise BvError(f"{what}: take more steps")
    found, converged = [], []
    height, width = encoder.pixels(images[:1]).shape[-2:]
    for part in torch.tensor(list(classes)).split(at_once):
        rngs = [generator(seed, "neural cleanse", int(c)) for c in part]
        start = torch.stack([2 * torch.rand(4, height, width, generator=g) - 1 for g in rngs])
        # mask and pattern: (K, 1 + 3, H, W)
        free = start.mul(0.999).atanh().to(head.device).requires_grad_(True)
        optimizer = torch.optim.Adam([free], lr=lr, betas=(0.5, 0.9))
        search = _Search(len(part), cost, patience, settle)
        draws = generator(seed, "neural cleanse", "images")
        for step in range(1, steps + 1):
            left = [i for i, done in enumerate(search.converged) if not done]
            if not left:
                break
            x = encoder.pixels(images[torch.randint(len(images), (batch,), generator=draws)])
            both = free[left].tanh() / 2 + 0.5
            mask, pattern = both[:, None, :1], both[:, None, 1:]
            pasted = ((1 - mask) * x + mask * pattern).flatten(0, 1)
            logits = encoder.logits(encoder.features(theta, pasted), head)
            goal = part[left].repeat_interleave(batch).to(head.device)
            miss = F.cross_entropy(logits, goal, reduction="sum") / batch
            loss = miss + (search.cost[left].to(mask) * mask.flatten(1).sum(1)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % every == 0:
                now = (free.detach()[left].tanh() / 2 + 0.5).cpu()
                for i, b in zip(left, now, strict=True):
                    trigger = Trigger(b[1:], b[:1], "top-left", "reversed")
                    seen = encoder, theta, head, images, trigger, int(part[i])
                    search.judge(i, _reaches(*seen, threshold), trigger)
        found += search.best
        converged += search.converged
    return found, converged


def _rate(encoder, theta, head, images, trigger, label: int) -> float:
    """Share of the images that the trigger sends to the label."""
    return float((encoder.predict(theta, images, head, trigger) == label).float().mean())


def _reaches(encoder, theta, head, images, trigger, label: int, threshold: float) -> bool:
    """Whether that share is ``threshold`` or more; asked of no more images than it takes."""
    missed = 0
    for part in images.split(100):
        missed += int((encoder.predict(theta, part, head, trigger) != label).sum())
        if (len(images) - missed) / len(images) < threshold:
            return False
    return True


class _Search:
    """Per label: the weight w of the mask's norm, and the smallest trigger so far that worked."""

    def __init__(self, labels: int, start: float, patience: int, settle: int):
        self.start, self.patience, self.settle = start, patience, settle
        self.cost, self.norm = torch.zeros(labels), [float("inf")] * labels
        self.best: list[Any] = [None] * labels
        self.mark = list(self.norm)  # the norm when it last fell by 1 %
        self.run = [0] * labels  # successes in a row, failures as negative numbers
        self.still = [0] * labels  # rounds since the norm fell by 1 %
        # was w raised, lowered since it left 0?
        self.moved: list[set[bool]] = [set() for _ in range(labels)]

    @property
    def converged(self) -> list[bool]:
        """Has the norm of each label stopped falling?"""
        rounds = zip(self.still, self.moved)
        return [still >= self.settle and len(moved) == 2 for still, moved in rounds]

    def judge(self, i: int, reached: bool, trigger: Trigger) -> None:
        """A round of label ``i``: keep what is smaller and still works, raise or lower w after
        enough of them in a row."""
        norm = float(trigger.mask.sum())
        self.still[i] += 1
        if reached and norm < 0.99 * self.mark[i]:
            self.still[i], self.mark[i] = 0, norm
        if reached and norm < self.norm[i]:
            self.norm[i], self.best[i] = norm, trigger
        elif self.norm[i] == float("inf"):
            self.best[i] = trigger
        self.run[i] = max(self.run[i], 0) + 1 if reached else min(self.run[i], 0) - 1
        if abs(self.run[i]) == self.patience:
            if self.cost[i] or not reached:
                self.cost[i] *= 2 if reached else 2**-1.5
                self.moved[i].add(reached)
            else:
                self.cost[i], self.moved[i] = self.start, set()
            self.run[i] = 0


# Scale-Up: an image


@detector("scale-up", of="image", needs="the image alone", reference="Guo et al. 2023")
def scale_up(encoder, theta: StateDict, head: Tensor, images: Tensor, trigger=None) -> Tensor:
    """Scaled-prediction consistency (N,): share of the copies clip(n·x, 0, 1) predicted like x
    (SCALE-UP, Guo et al. 2023).

    In pixel space, ``images`` (N, H, W, 3) uint8, the ``trigger`` pasted before scaling; n = 1 to
    11 as in the authors' script, so the original is one of the copies and no share is below 1/11.
    High means triggered (data-free variant: flag 0.5 and more).

    Limits. Clipping keeps a white patch white and turns a patch of optimised colours into one of
    corner colours: an optimised trigger loses its effect, and with it the consistency that is
    looked for.
    """
    usual = encoder.predict(theta, images, head, trigger)
    found = [encoder.predict(theta, images, head, _Scaled(n, trigger)) for n in range(1, 12)]
    return torch.stack([(each == usual).float() for each in found]).mean(0)


@dataclass(frozen=True)
class _Scaled:
    """Pastes a trigger when there is one, then multiplies the pixels: clip(n·(x ⊕ δ), 0, 1)."""

    scale: float
    trigger: Any

    def paste(self, pixels: Tensor) -> Tensor:
        pasted = pixels if self.trigger is None else self.trigger.paste(pixels)
        return (self.scale * pasted).clamp(0, 1)


def scale_up_auroc(clean: Tensor, triggered: Tensor) -> float:
    """AUROC, 0 to 1, of telling triggered scores (M,) from clean ones (N,); 0.5 is chance, below
    it the sign is wrong.

    Raises BvError when one side is empty.
    """
    from sklearn.metrics import roc_auc_score

    if not len(clean) or not len(triggered):
        given = f"{len(clean)} and {len(triggered)}"
        raise BvError(f"an AUROC needs clean and triggered scores: got {given}")
    truth = np.r_[np.zeros(len(clean)), np.ones(len(triggered))]
    return float(roc_auc_score(truth, np.r_[clean.cpu().numpy(), triggered.cpu().numpy()]))
