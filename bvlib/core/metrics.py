"""CA, BA, ASR, each defined once: in percent, with 95 % intervals.

Two kinds of interval, not to be mixed up. Over images (Wilson, paired bootstrap): how exactly this
model was measured. Over seeds (t-interval): how much the result would move if all were trained
again; usually far wider, and the one to print next to a claim. Arrays or tensors go in, nothing
touches the disk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from bvlib.core.errors import BvError
from bvlib.core.rng import numpy_rng

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share of images in percent with its Wilson 95 % interval over images; `hits` of `count`."""

    percent: float
    low: float
    high: float
    hits: int
    count: int

    def __str__(self) -> str:
        return f"{self.percent:.1f} % ({self.low:.1f} to {self.high:.1f}, n = {self.count})"


@dataclass(frozen=True)
class Difference:
    """A difference of two shares in percentage points with its 95 % interval over images."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} points ({self.low:+.1f} to {self.high:+.1f})"


def wilson(hits: int, count: int) -> Rate:
    """`hits` of `count` with the Wilson score interval; BvError unless 0 <= hits <= count and
    count > 0.

    >>> wilson(9702, 9900)
    Rate(percent=98.0, low=97.70..., high=98.25..., hits=9702, count=9900)
    """
    if count <= 0 or not 0 <= hits <= count:
        raise BvError(f"no rate can be made of {hits} hits in {count} images")
    p, z2n = hits / count, Z95**2 / count
    centre = (p + z2n / 2) / (1 + z2n)
    half = math.sqrt(p * (1 - p) * z2n + z2n**2 / 4) / (1 + z2n)
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == count else min(1.0, centre + half)
    return Rate(100 * p, 100 * low, 100 * high, int(hits), int(count))


def rate(hits: Any) -> Rate:
    """Share of true entries of a boolean array [N]; BvError when it is empty."""
    hits = _hits(hits, "hits")
    return wilson(int(hits.sum()), len(hits))


def accuracy(predicted: Any, labels: Any) -> Rate:
    """Share of images whose predicted class is the label, both class ids [N].

    CA when the merge is clean, BA when the backdoored model is in it; both are averaged over the
    tasks.
    """
    predicted, labels = _classes(predicted, labels)
    return wilson(int((predicted == labels).sum()), len(labels))


def attack_success_rate(
    predicted_with_trigger: Any, labels: Any, target: int, classes: int | None = None
) -> Rate:
    """ASR: share of the images whose true class is not `target` that are predicted as `target`.

    predicted_with_trigger, labels: class ids [N] for all test images of the target task, the
    trigger pasted before predicting. Images of the target class are not counted. ``classes``: how
    many the task has (None: those up to the last that occurs). BvError when no other images are
    left, or the target is none of the classes.
    """
    predicted, labels = _classes(predicted_with_trigger, labels)
    if not isinstance(target, Integral) or isinstance(target, bool):
        raise BvError(f"the target class is a class id, not {target!r}")
    last = max(labels.max(initial=0), predicted.max(initial=0)) if classes is None else classes - 1
    if not 0 <= target <= last:
        raise BvError(f"target class {target} is none of the classes 0 to {last} (see `classes`)")
    if beyond := [int(n) for n in (*labels, *predicted) if n > last][:1]:
        raise BvError(f"class id {beyond[0]} is none of the classes 0 to {last}: raise `classes`")
    others = labels != target
    if not others.any():
        what = f"all {len(labels)} images are of the target class {target}"
        raise BvError(f"no attack success rate: {what}")
    return wilson(int((predicted[others] == target).sum()), int(others.sum()))


def paired_difference(a_hits: Any, b_hits: Any, seed: int = 0, draws: int = 10_000) -> Difference:
    """Share of a minus share of b on the same images [N], with a percentile bootstrap over images.

    Resampling images with replacement is drawing how many have difference -1, 0, +1, which a
    multinomial does in one go. Without a single image on which the two differ the interval has no
    width.
    """
    a, b = _hits(a_hits, "a_hits"), _hits(b_hits, "b_hits")
    if len(a) != len(b) or not len(a):
        given = f"{len(a)} and {len(b)} were given"
        raise BvError(f"a paired difference needs the same images, at least one image: {given}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    shares = np.array([only_a, only_b, len(a) - only_a - only_b]) / len(a)
    drawn = numpy_rng(seed, "paired difference").multinomial(len(a), shares, size=draws)
    low, high = np.quantile(100 * (drawn[:, 0] - drawn[:, 1]) / len(a), [0.025, 0.975])
    return Difference(100 * (only_a - only_b) / len(a), float(low), float(high))


def seed_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of one number per seed, 95 % t-interval; (mean, nan, nan) for a single
    seed.

    For paired per-seed differences give the differences. BvError without values.
    """
    from scipy.special import stdtrit

    each = np.asarray(list(values), dtype=np.float64)
    if not len(each):
        raise BvError("an interval over seeds needs at least one value")
    mean = float(each.mean())
    if len(each) == 1:
        return mean, math.nan, math.nan
    half = float(stdtrit(len(each) - 1, 0.975) * each.std(ddof=1) / math.sqrt(len(each)))
    return mean, mean - half, mean + half


def _array(values: Any, what: str) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # numpy has no bfloat16
    array = np.asarray(values)
    if array.ndim != 1:
        raise BvError(f"{what} must have one entry per image, shape [N], not shape {array.shape}")
    return array


def _hits(values: Any, what: str) -> np.ndarray:
    array = _array(values, what)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise BvError(f"{what} must be true or false for each image, not {array.dtype} values")
    return array.astype(bool)


def _classes(predicted: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    predicted, labels = _array(predicted, "predicted classes"), _array(labels, "labels")
    if len(predicted) != len(labels):
        both = f"{len(predicted)} predictions for {len(labels)} labels"
        raise BvError(f"{both}: give both for the same images")
    for what, array in (("predicted classes", predicted), ("labels", labels)):
        if len(array) and array.dtype.kind not in "iu":
            kind = f"class ids (integers), not {array.dtype}"
            raise BvError(f"{what} must be {kind}: take the argmax first")
        if (array < 0).any():
            raise BvError(
                f"{what} hold {array.min()}, which is no class id: leave those images out"
            )
    return predicted, labels
