"""Injection BV Subtraction, and the one rule by which a defence chooses its strength."""

from collections.abc import Callable, Sequence

from bvlib.core.encoder import Model
from bvlib.core.errors import BvError
from bvlib.core.vectors import TaskVector


def ibvs(model: Model, injected: TaskVector, scale: float) -> Model:
    """Injection BV Subtraction: θ_defended = θ_merged − λ·BV_injected (Backdoor Vectors, defence
    section); scale 0 changes nothing.

    The paper states the idea; the formula's place (after merging) and the choice of λ are ours.
    Other defences move the model by a vector of theirs in the same way (TBAR, LFPM).
    """
    return model if scale == 0 else model - scale * injected


def choose_scale(
    clean_dev_accuracy: Callable[[float], float], scales: Sequence[float], budget: float = 1.0
) -> float:
    """The one rule for λ: the largest scale whose clean dev accuracy is at most ``budget`` points
    below that of 0.

    ``clean_dev_accuracy(scale)`` returns percent; a defender has clean dev images, never the
    trigger. The scales are tried from the largest down, and none below the one that is chosen.
    Raises BvError when 0 is not among the scales.
    """
    if 0 not in scales:
        raise BvError("the scales to choose from must contain 0 (no defence)")
    start = clean_dev_accuracy(0)
    falling = sorted(scales, reverse=True)
    return next(s for s in falling if s == 0 or start - clean_dev_accuracy(s) <= budget)


def defended(
    apply: Callable[[float], Model],
    accuracy: Callable[[Model], float],
    scales: Sequence[float],
    budget: float = 1.0,
) -> tuple[float, Model]:
    """The strength that clean dev accuracy picks (:func:`choose_scale`), and the model defended
    with it.

    ``apply(scale)`` gives the model at a strength, ``accuracy(model)`` its clean dev accuracy in
    percent.
    """
    scale = choose_scale(lambda s: accuracy(apply(s)), scales, budget)
    return scale, apply(scale)
