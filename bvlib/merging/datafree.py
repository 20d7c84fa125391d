"""Merging without data: pure functions from a list of task vectors to one vector.

The coefficient λ is applied here, so the result is simply added: θ = θ_0 + merge(name, [τ_1, ...,
τ_T]). All work tensor by tensor through helpers that see one tensor of each vector, and add up in
float64 so that the order of the vectors does not matter.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from bvlib.core.errors import BvError, check_choice
from bvlib.core.rng import generator
from bvlib.core.vectors import TaskVector, magnitude_threshold, trim
from bvlib.merging.registry import merging

CLASSIC = ("average", "task_arithmetic", "ties")  # what most notebooks compare

# One tensor of each vector in, one tensor out: what a merge that streams from files calls too.


def sum_tensor(tensors: Sequence[Tensor], weight: float = 1.0) -> Tensor:
    """weight * (t_1 + ... + t_T), added in float64, in the dtype of the first tensor."""
    return (_total(tensors) * weight).to(tensors[0].dtype)


def mean_tensor(tensors: Sequence[Tensor]) -> Tensor:
    """(t_1 + ... + t_T) / T, added in float64: T equal tensors give exactly that tensor."""
    return (_total(tensors) / len(tensors)).to(tensors[0].dtype)


def _total(tensors: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, tensors[1:], tensors[0].double())


def ties_tensor(
    tensors: Sequence[Tensor],
    thresholds: Sequence[float],
    *,
    coefficient: float = 1.0,
    aggregate: str = "sum",
) -> Tensor:
    """TIES on one tensor of each vector, given each vector's global threshold; see `ties`."""
    kept = [trim(tensor, threshold) for tensor, threshold in zip(tensors, thresholds, strict=True)]
    mass = kept[0].to(torch.float64, copy=True)
    for tensor in kept[1:]:
        mass += tensor
    elected = torch.sign(mass)
    sign, total, count = elected.to(kept[0].dtype), torch.zeros_like(mass), torch.zeros_like(mass)
    for tensor in kept:
        # the magnitude where the sign is the elected one, else 0
        agreeing = (tensor * sign).clamp_(min=0)
        total += agreeing
        if aggregate == "mean":
            count += torch.sign(agreeing)
    if aggregate == "mean":
        total /= count.clamp(min=1)
    return ((total * elected + 0.0) * coefficient).to(tensors[0].dtype)  # + 0.0 makes -0 to 0


def tensorwise(
    vectors: Sequence[TaskVector], fn: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    return {key: fn([vector.tensors[key] for vector in vectors]) for key in vectors[0].tensors}


@merging("average", label="Average")
def average(vectors: Sequence[TaskVector]) -> TaskVector:
    """Simple average: (1/T) sum of tau_t, the same as averaging the T models. It has no
    coefficient."""
    return TaskVector(tensorwise(vectors, mean_tensor), "average")


@merging("task_arithmetic", label="Task Arithmetic", reference="Ilharco et al. 2023")
def task_arithmetic(vectors: Sequence[TaskVector], *, coefficient: float = 0.3) -> TaskVector:
    """Task arithmetic: lambda * sum of tau_t (Ilharco et al. 2023). lambda = 1/T is the average."""
    tensors = tensorwise(vectors, lambda group: sum_tensor(group, coefficient))
    return TaskVector(tensors, "task_arithmetic")


@merging("ties", label="TIES", reference="Yadav et al. 2023", trims=True)
def ties(
    vectors: Sequence[TaskVector],
    *,
    coefficient: float = 0.3,
    density: float = 0.2,
    aggregate: str = "sum",
) -> TaskVector:
    """TIES (Yadav et al. 2023): trim, elect, merge what agrees, times lambda.

    Trim keeps the top `density` share of each vector's entries by magnitude over the whole vector,
    those equal to the threshold included, and does not rescale. Elect takes each coordinate's sign
    by total mass, sign(sum of the trimmed values). Merge adds the trimmed values of the elected
    sign; `aggregate` "sum" leaves it at that and goes with lambda 0.3 (the published CLIP code
    lines), "mean" divides by their number and goes with lambda 1 (the original). A coordinate
    whose mass cancels exactly has no sign and gives zero; the common code lines give it the
    majority sign of all coordinates instead.

    Raises BvError for a density outside (0, 1] or another aggregate.
    """
    check_choice("aggregate of 'ties'", aggregate, ("sum", "mean"))
    thresholds = [magnitude_threshold(vector.tensors, density) for vector in vectors]
    how = {"coefficient": coefficient, "aggregate": aggregate}
    tensors = tensorwise(vectors, lambda group: ties_tensor(group, thresholds, **how))
    return TaskVector(tensors, "ties")


@merging("dare", label="DARE", reference="Yu et al. 2024")
def dare(
    vectors: Sequence[TaskVector], *, coefficient: float = 0.3, drop: float = 0.5, seed: int = 0
) -> TaskVector:
    """DARE (Yu et al. 2024) with task arithmetic: drop a share of each vector's entries at random,
    rescale the rest.

    Each entry is zeroed with probability `drop`, the others are divided by 1 - `drop`, so the mean
    over masks is task arithmetic. Masks follow from `seed`, the vector's place in the list and the
    tensor's name. BvError for a `drop` outside [0, 1).
    """
    if not 0 <= drop < 1:
        raise BvError(f"drop of 'dare' is a share from 0 up to but not 1, not {drop!r}")
    kept = []
    for place, vector in enumerate(vectors):
        masked = {}
        for key, tensor in vector.tensors.items():
            drawn = torch.rand(tensor.shape, generator=generator(seed, "dare", place, key))
            masked[key] = tensor * (drawn >= drop).to(tensor) / (1 - drop)
        kept.append(TaskVector(masked))
    return TaskVector(tensorwise(kept, lambda group: sum_tensor(group, coefficient)), "dare")
