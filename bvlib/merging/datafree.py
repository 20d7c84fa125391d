"""Data-free merging: pure functions from a list of vectors to one vector.

Two registries. `MERGING` holds what a user of model merging does to task vectors, theta = theta_0 +
merge(name, [tau_1, ..., tau_T]); the coefficient lambda is applied here, so the result is simply
added. `BV_MERGING` holds what an attacker does to several backdoor vectors of one attack to make a
Sparse Backdoor Vector (Backdoor Vectors, SBV). All work tensor by tensor through helpers that see
one tensor of each vector, and add up in float64 so that the order of the vectors does not matter.

A new method is one function:

    @merging_method("median")
    def median(vectors, *, coefficient=1.0): ...
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import generator
from bvlib.core.vectors import TaskVector, check_finite, check_same, magnitude_threshold, trim


@dataclass(frozen=True)
class MergingMethod:
    """A merging function with its declared parameters.

    `parameters` are its keyword-only arguments with their defaults; `ignores` are parameters of
    other methods that it takes and leaves unused, so that one profile serves all methods.
    """

    name: str
    function: Callable[..., TaskVector]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()

    def __call__(self, vectors: Sequence[TaskVector], **parameters: Any) -> TaskVector:
        """Check the parameters' names, then merge; see `merge` for the errors."""
        for name in parameters:
            if name not in self.parameters and name not in self.ignores:
                raise unknown(
                    f"parameter of {self.name!r}", name, [*self.parameters, *self.ignores]
                )
        used = {name: value for name, value in parameters.items() if name in self.parameters}
        return self.function(vectors, **used)


CLASSIC = ("average", "task_arithmetic", "ties")  # what most notebooks compare
MERGING: dict[str, MergingMethod] = {}
BV_MERGING: dict[str, MergingMethod] = {}


def merging_method(
    name: str, *, ignores: Sequence[str] = (), registry: dict[str, MergingMethod] = MERGING
) -> Callable:
    """Decorator that registers `function(vectors, *, parameters=defaults)` under `name`.

    The function then gets a list that `check_vectors` has passed, however it is called. Raises
    BvError when the name is taken by another function.
    """

    def register(function: Callable[..., TaskVector]) -> Callable[..., TaskVector]:
        if name in registry and registry[name].function.__qualname__ != function.__qualname__:
            raise BvError(f"merging method {name!r} is already registered: choose another name")
        declared = {
            p.name: p.default
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }

        @functools.wraps(function)
        def checked(vectors: Sequence[TaskVector], **parameters: Any) -> TaskVector:
            return function(check_vectors(vectors), **parameters)

        registry[name] = MergingMethod(name, checked, declared, tuple(ignores))
        return checked

    return register


def merge(name: str, vectors: Sequence[TaskVector], **parameters: Any) -> TaskVector:
    """Merge task vectors with the method of that name: theta_0 + merge(...) is the merged model.

    `average` takes a `coefficient` and ignores it: its weights are always 1/T.
    Raises BvError for an unknown name or parameter, an empty list, vectors that do not match, and
    entries that are not finite.
    """
    if name not in MERGING:
        raise unknown("merging method", name, MERGING)
    return MERGING[name](vectors, **parameters)


def merge_backdoors(name: str, bvs: Sequence[TaskVector], **parameters: Any) -> TaskVector:
    """Merge backdoor vectors into one SBV with the method of that name; errors as for `merge`."""
    if name not in BV_MERGING:
        raise unknown("backdoor merging method", name, BV_MERGING)
    return BV_MERGING[name](bvs, **parameters)


def check_vectors(vectors: Sequence[TaskVector]) -> list[TaskVector]:
    """The vectors as a list; BvError when there are none or one is no vector, not finite or does
    not fit."""
    vectors = list(vectors)
    if not vectors:
        raise BvError("nothing to merge: the list of vectors is empty")
    for number, vector in enumerate(vectors, start=1):
        if not isinstance(vector, TaskVector):
            raise BvError(
                f"vector {number} is a {type(vector).__name__}, not a TaskVector: "
                "make it with TaskVector.between(finetuned, start)"
            )
        check_same(vectors[0].tensors, vector.tensors, "vector 1", f"vector {number}")
        for key, tensor in vector.tensors.items():
            check_finite(key, tensor)
    return vectors


# One tensor of each vector in, one tensor out: what a merge that streams from files calls too.


def sum_tensor(tensors: Sequence[Tensor], weight: float = 1.0) -> Tensor:
    """weight * (t_1 + ... + t_T), added in float64, in the dtype of the first tensor."""
    total = tensors[0].double()
    for tensor in tensors[1:]:
        total = total + tensor
    return (total * weight).to(tensors[0].dtype)


def mean_tensor(tensors: Sequence[Tensor]) -> Tensor:
    """(t_1 + ... + t_T) / T, added in float64: T equal tensors give exactly that tensor."""
    total = tensors[0].double()
    for tensor in tensors[1:]:
        total = total + tensor
    return (total / len(tensors)).to(tensors[0].dtype)


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
        agreeing = (tensor * sign).clamp_(
            min=0
        )  # the magnitude where the sign is the elected one, else 0
        total += agreeing
        if aggregate == "mean":
            count += torch.sign(agreeing)
    if aggregate == "mean":
        total /= count.clamp(min=1)
    return ((total * elected + 0.0) * coefficient).to(tensors[0].dtype)  # + 0.0 makes -0 to 0


def sign_consistent_tensor(tensors: Sequence[Tensor], needed: int) -> Tensor:
    """Mean of the entries of the majority sign where at least `needed` vectors have it, else
    zero."""
    positive = sum((tensor > 0).double() for tensor in tensors)
    negative = sum((tensor < 0).double() for tensor in tensors)
    majority = torch.sign(positive - negative)  # 0 where neither sign has the majority
    count = torch.maximum(positive, negative)
    total = torch.zeros_like(count)
    for tensor in tensors:
        total += torch.where(torch.sign(tensor) == majority, tensor, torch.zeros_like(tensor))
    kept = (count >= needed) & (majority != 0)
    return torch.where(kept, total / count.clamp(min=1), torch.zeros_like(total)).to(
        tensors[0].dtype
    )


def _tensorwise(
    vectors: Sequence[TaskVector], fn: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    return {key: fn([vector.tensors[key] for vector in vectors]) for key in vectors[0].tensors}


@merging_method("average", ignores=("coefficient",))
def average(vectors: Sequence[TaskVector]) -> TaskVector:
    """Simple average: (1/T) sum of tau_t, the same as averaging the T models. It has no
    coefficient."""
    return TaskVector(_tensorwise(vectors, mean_tensor), "average")


@merging_method("task_arithmetic")
def task_arithmetic(vectors: Sequence[TaskVector], *, coefficient: float = 0.3) -> TaskVector:
    """Task arithmetic: lambda * sum of tau_t (Ilharco et al. 2023). lambda = 1/T is the average."""
    tensors = _tensorwise(vectors, lambda group: sum_tensor(group, coefficient))
    return TaskVector(tensors, "task_arithmetic")


@merging_method("ties")
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
    if aggregate not in ("sum", "mean"):
        raise unknown("aggregate of 'ties'", aggregate, ["sum", "mean"])
    thresholds = [magnitude_threshold(vector.tensors, density) for vector in vectors]
    tensors = _tensorwise(
        vectors,
        lambda group: ties_tensor(group, thresholds, coefficient=coefficient, aggregate=aggregate),
    )
    return TaskVector(tensors, "ties")


@merging_method("dare")
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
        masks = {
            key: torch.rand(tensor.shape, generator=generator(seed, "dare", place, key)) >= drop
            for key, tensor in vector.tensors.items()
        }
        kept.append(
            TaskVector(
                {
                    key: tensor * masks[key].to(tensor) / (1 - drop)
                    for key, tensor in vector.tensors.items()
                }
            )
        )
    return TaskVector(_tensorwise(kept, lambda group: sum_tensor(group, coefficient)), "dare")


@merging_method("iso_c")
def iso_c(vectors: Sequence[TaskVector], *, strength: float = 1.0) -> TaskVector:
    """Iso-C, isotropic merging (Marczak et al. 2025): every matrix of the summed vector gets equal
    singular values.

    For each two-dimensional tensor, sum tau_t = U S V^T becomes mean(S) U V^T; other tensors are
    averaged. `strength` multiplies the result (the authors' alpha, tuned on validation there; 1
    here).
    """

    def one(group: Sequence[Tensor]) -> Tensor:
        if group[0].ndim != 2:
            return strength * mean_tensor(group)
        u, s, vt = torch.linalg.svd(sum_tensor(group).double(), full_matrices=False)
        return (strength * s.mean() * u @ vt).to(group[0])

    return TaskVector(_tensorwise(vectors, one), "iso_c")


@merging_method("tsv_merge")
def tsv_merge(vectors: Sequence[TaskVector], *, strength: float = 1.0) -> TaskVector:
    """TSV-Merge (Gargiulo et al. 2025): the leading singular vectors of each task, made orthogonal
    to the other tasks'.

    For each two-dimensional tensor, every task keeps its top rank/T singular triples; the stacked
    left vectors are replaced by the nearest orthogonal matrix, the right ones as well, and the
    singular values stay at full strength. Other tensors are averaged. With one task and strength 1
    the vector comes back.
    """

    def one(group: Sequence[Tensor]) -> Tensor:
        if group[0].ndim != 2:
            return strength * mean_tensor(group)
        rank = max(1, min(group[0].shape) // len(group))
        parts = [torch.linalg.svd(tensor.double(), full_matrices=False) for tensor in group]
        left = _nearest_orthogonal(torch.cat([u[:, :rank] for u, _, _ in parts], 1))
        right = _nearest_orthogonal(torch.cat([vt[:rank] for _, _, vt in parts]).T)
        values = torch.cat([s[:rank] for _, s, _ in parts])
        return (strength * (left * values) @ right.T).to(group[0])

    return TaskVector(_tensorwise(vectors, one), "tsv_merge")


def _nearest_orthogonal(matrix: Tensor) -> Tensor:
    """The matrix of orthonormal columns (or rows, if there are fewer) nearest to this one: its
    polar factor."""
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def _backdoor(
    vectors: Sequence[TaskVector], tensors: dict[str, Tensor], name: str, density: float
) -> TaskVector:
    kind = type(vectors[0]) if len({type(vector) for vector in vectors}) == 1 else TaskVector
    merged = kind(tensors, name)
    return merged if density == 1 else merged.sparsify(density)


@merging_method("mean", registry=BV_MERGING)
def mean_vectors(vectors: Sequence[TaskVector], *, density: float = 1.0) -> TaskVector:
    """SBV by mean: (1/k) sum of BV_i, then the top `density` share of its entries by magnitude."""
    return _backdoor(vectors, _tensorwise(vectors, mean_tensor), "mean", density)


@merging_method("sum", registry=BV_MERGING)
def sum_vectors(vectors: Sequence[TaskVector], *, density: float = 1.0) -> TaskVector:
    """SBV by sum: sum of BV_i, then the top `density` share. Up to k times the norm: compare
    norm-matched."""
    return _backdoor(vectors, _tensorwise(vectors, sum_tensor), "sum", density)


@merging_method("sign_consistent", registry=BV_MERGING)
def sign_consistent(
    vectors: Sequence[TaskVector], *, agreement: float = 1.0, density: float = 1.0
) -> TaskVector:
    """SBV_SC, sign-consistent sparsification, as we read the paper (its exact rule is not
    published).

    A coordinate is kept where the share of all k vectors that have the majority sign is at least
    `agreement` (1 = all of them; a zero agrees with nobody; as many + as - is no majority), with
    the mean of the agreeing values; then the top `density` share of all entries by magnitude is
    kept.

    Raises BvError for an agreement outside (0, 1] or a density outside [0, 1].
    """
    if not 0 < agreement <= 1:
        raise BvError(f"agreement is a share between 0 and 1 and not 0, not {agreement!r}")
    needed = max(1, math.ceil(agreement * len(vectors) - 1e-9))
    tensors = _tensorwise(vectors, lambda group: sign_consistent_tensor(group, needed))
    return _backdoor(vectors, tensors, "sign_consistent", density)


@merging_method("ties", registry=BV_MERGING)
def ties_vectors(vectors: Sequence[TaskVector], *, density: float = 1.0) -> TaskVector:
    """SBV by TIES: each BV trimmed to `density`, signs elected by mass, the mean of what agrees;
    then the top `density` share.

    Raises BvError for a density outside (0, 1].
    """
    thresholds = [magnitude_threshold(vector.tensors, density) for vector in vectors]
    tensors = _tensorwise(vectors, lambda group: ties_tensor(group, thresholds, aggregate="mean"))
    return _backdoor(vectors, tensors, "ties", density)
