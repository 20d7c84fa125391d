"""An adversary that knows of a defence by subtraction and trains under it."""

import dataclasses

import torch

from bvlib.core.errors import BvError
from bvlib.core.training import Objective, Step
from bvlib.core.vectors import TaskVector


def evading(objective: Objective, vector: TaskVector, strongest: float = 2.0) -> Objective:
    """The objective at θ − s·vector, s ~ U(0, ``strongest``) drawn once a step: what remains after
    a subtraction is trained too.

    ``vector`` is the adversary's own guess of what the defender will subtract (for IBVS an
    injected backdoor vector). Under task arithmetic a subtraction of λ from the merge is one of λ
    / λ_merge from the adversary's model, so ``strongest`` = 2 covers λ up to 0.6 at a merging
    coefficient of 0.3. Our construction: the paper's adaptive attack, if there is one, is not
    public. Raises BvError unless ``strongest`` is positive.
    """
    if not strongest > 0:
        what = "strongest, the largest share of the vector that is subtracted,"
        raise BvError(f"{what} must be positive, not {strongest!r}")

    def under(step: Step) -> torch.Tensor:
        s = strongest * torch.rand((), generator=step.rng).item()
        return objective(dataclasses.replace(step, theta=step.theta - s * vector))

    return under
