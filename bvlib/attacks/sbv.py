"""Sparse Backdoor Vectors: what an attacker makes of several backdoor vectors of one attack.

A new rule is one function of a list of vectors:

    @sbv_rule("median")
    def median(vectors, *, density=1.0): ...

It may say how tables show it: ``label``; ``shown`` and ``elsewhere``, of "sparse" and "dense", for
the primary way in which vectors differ and for the others; ``multiple_of`` a rule that it equals at
equal norm.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bvlib.core.errors import BvError
from bvlib.core.registry import Registry
from bvlib.core.vectors import TaskVector, magnitude_threshold
from bvlib.merging.datafree import mean_tensor, sum_tensor, tensorwise, ties_tensor
from bvlib.merging.registry import checked_vectors

sbv_rule = Registry("sbv", "backdoor merging method", check=checked_vectors)


def merge_backdoors(
    name: str, bvs: Sequence[TaskVector], *, density: float = 1.0, **parameters: Any
) -> TaskVector:
    """Merge backdoor vectors into one SBV with the rule of that name; errors as for
    :func:`bvlib.merging.merge`.

    The result keeps the top ``density`` share (0 to 1) of its entries by magnitude, unless the rule
    has a ``density`` of its own. It is a BackdoorVector where all of them are.
    """
    rule = sbv_rule[name]
    if "density" in rule.parameters or rule.open:
        merged = rule(bvs, density=density, **parameters)
    else:
        merged = rule(bvs, **parameters).sparsify(density)
    kind = type(bvs[0]) if len({type(vector) for vector in bvs}) == 1 else TaskVector
    return kind(merged.tensors, merged.name)


def at_norm(vector: TaskVector, norm: float) -> TaskVector:
    """The vector scaled to a Euclidean norm: the stricter comparison, free of a mere longer step.
    BvError for a zero vector."""
    length = vector.norm()
    if length == 0:
        why = "its vectors agree nowhere, lower agreement"
        raise BvError(f"an SBV of zeros has no norm to match: {why}")
    return vector * (norm / length)


def sign_consistent_tensor(tensors: Sequence[Tensor], needed: int) -> Tensor:
    """Mean of the entries of the majority sign where at least `needed` vectors have it, else
    zero."""
    positive = torch.stack([tensor > 0 for tensor in tensors]).double().sum(0)
    negative = torch.stack([tensor < 0 for tensor in tensors]).double().sum(0)
    majority = torch.sign(positive - negative)  # 0 where neither sign has the majority
    count = torch.maximum(positive, negative)
    total = torch.zeros_like(count)
    for tensor in tensors:
        total += torch.where(torch.sign(tensor) == majority, tensor, torch.zeros_like(tensor))
    kept = (count >= needed) & (majority != 0)
    mean = torch.where(kept, total / count.clamp(min=1), torch.zeros_like(total))
    return mean.to(tensors[0].dtype)


@sbv_rule("mean", elsewhere=("dense",))
def mean_vectors(vectors: Sequence[TaskVector]) -> TaskVector:
    """SBV by mean: (1/k) sum of BV_i, then the top `density` share of its entries by magnitude."""
    return TaskVector(tensorwise(vectors, mean_tensor), "mean")


@sbv_rule("ties", label="TIES", shown=("sparse",), elsewhere=())
def ties_vectors(vectors: Sequence[TaskVector], *, density: float = 1.0) -> TaskVector:
    """SBV by TIES: each BV trimmed to `density`, signs elected by mass, the mean of what agrees;
    then the top `density` share.

    Raises BvError for a density outside (0, 1].
    """
    thresholds = [magnitude_threshold(vector.tensors, density) for vector in vectors]
    tensors = tensorwise(vectors, lambda group: ties_tensor(group, thresholds, aggregate="mean"))
    return TaskVector(tensors, "ties").sparsify(density)


@sbv_rule("sign_consistent", label="sign-consistent")
def sign_consistent(vectors: Sequence[TaskVector], *, agreement: float = 1.0) -> TaskVector:
    """SBV_SC, sign-consistent sparsification, as we read the paper (its exact rule is not
    published).

    A coordinate is kept where the share of all k vectors that have the majority sign is at least
    `agreement` (1 = all of them; a zero agrees with nobody; as many + as - is no majority), with
    the mean of the agreeing values; then the top `density` share of all entries by magnitude is
    kept. Raises BvError for an agreement outside (0, 1].
    """
    if not 0 < agreement <= 1:
        raise BvError(f"agreement is a share between 0 and 1 and not 0, not {agreement!r}")
    needed = max(1, math.ceil(agreement * len(vectors) - 1e-9))
    tensors = tensorwise(vectors, lambda group: sign_consistent_tensor(group, needed))
    return TaskVector(tensors, "sign_consistent")


@sbv_rule("sum", shown=("sparse",), multiple_of="mean")
def sum_vectors(vectors: Sequence[TaskVector]) -> TaskVector:
    """SBV by sum: sum of BV_i, then the top `density` share. Up to k times the norm: compare
    norm-matched."""
    return TaskVector(tensorwise(vectors, sum_tensor), "sum")
