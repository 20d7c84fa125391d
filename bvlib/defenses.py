"""Defences that change a model. Adding one is one function and one registry line."""

from __future__ import annotations

from typing import Callable, Sequence

from .errors import BvError
from .vectors import StateDict, TaskVector

DEFENCES: dict[str, Callable] = {}


def defence(name: str):
    """Register a defence ``f(theta_merged, vector, scale) -> theta`` under a name."""
    def add(function):
        DEFENCES[name] = function
        return function
    return add


@defence("ibvs")
def ibvs(theta: StateDict, injected: TaskVector, scale: float) -> StateDict:
    """Injection BV Subtraction: θ_defended = θ_merged − λ·BV_injected (Backdoor Vectors, defence section).

    The paper states the idea; the formula's place (after merging) and the choice of λ are ours.
    """
    return dict(theta) if scale == 0 else theta - scale * injected


def choose_scale(clean_dev_accuracy: Callable[[float], float], scales: Sequence[float], budget: float = 1.0) -> float:
    """The one rule for λ: the largest scale whose clean dev accuracy is at most ``budget`` points below that of 0.

    ``clean_dev_accuracy(scale)`` returns percent; a defender has clean dev images, never the trigger.
    Raises BvError when 0 is not among the scales.
    """
    if 0 not in scales:
        raise BvError("the scales to choose from must contain 0 (no defence)")
    start = clean_dev_accuracy(0)
    return max(s for s in scales if start - clean_dev_accuracy(s) <= budget)
