"""An adversary that knows of a defence by subtraction and trains under it."""

import dataclasses

import torch

from bvlib.core.training import Objective, Step
from bvlib.core.vectors import TaskVector

STRONGEST = 2.0  # the largest share of the vector that is subtracted


def evading(objective: Objective, vector: TaskVector) -> Objective:
    """The objective at θ − s·vector, s ~ U(0, ``STRONGEST``) drawn once a step: what remains after
    a subtraction is trained too.

    ``vector`` is the adversary's own guess of what the defender will subtract (for IBVS an
    injected backdoor vector). Under task arithmetic a subtraction of λ from the merge is one of λ
    / λ_merge from the adversary's model, so 2 covers λ up to 0.6 at a merging coefficient of 0.3.
    Our construction: of an adaptive attack in the paper we know nothing.
    """

    def under(step: Step) -> torch.Tensor:
        s = STRONGEST * torch.rand((), generator=step.rng).item()
        return objective(dataclasses.replace(step, theta=step.theta - s * vector))

    return under
