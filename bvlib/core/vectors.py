"""Task vectors and backdoor vectors: arithmetic on dicts of tensors.

A task vector is what fine-tuning added to a model, tau = theta_t - theta_0 (Task Arithmetic,
Ilharco et al. 2023). A backdoor vector is what poisoning added to a clean fine-tuning, BV =
theta_backdoored - theta_clean (Backdoor Vectors, sec. 3). Both are vectors in the space of the
image tower's weights, so attacks and defences read as equations:

    bv = BackdoorVector.between(backdoored, clean)
    attacked = clean + scale * bv
    defended = merged - strength * bv

Nothing here knows files, devices or notebooks. Tensors are never changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Self

import torch
from torch import Tensor

from bvlib.core.errors import BvError
from bvlib.core.rng import generator

StateDict = dict[str, Tensor]
"""The weights of one image tower, theta: tensor name -> tensor."""


def check_same(
    left: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    left_name: str = "the first",
    right_name: str = "the second",
) -> None:
    """Raise a BvError naming the first tensor that one side lacks or whose shape, dtype or device
    differs."""
    for one, has, other, lacks in (
        (left, left_name, right, right_name),
        (right, right_name, left, left_name),
    ):
        if alone := next((key for key in one if key not in other), None):
            where = f"is in {has} but not in {lacks}"
            raise BvError(f"tensor {alone!r} {where}: both must come from the same architecture")
    for key, a in left.items():
        for what, tell in (("shape", tuple), ("dtype", str), ("device", str)):
            here, there = (tell(getattr(tensor, what)) for tensor in (a, right[key]))
            if here != there:
                both = f"{here} in {left_name} and {there} in {right_name}"
                raise BvError(f"tensor {key!r} has {what} {both}")


def check_finite(key: str, tensor: Tensor) -> None:
    """Raise a BvError naming the tensor when an entry of it is nan or infinite."""
    if not torch.isfinite(tensor).all():
        raise BvError(
            f"tensor {key!r} has entries that are not finite: "
            "train that model again with a smaller learning rate"
        )


def magnitude_threshold(tensors: Mapping[str, Tensor], density: float) -> float:
    """The exact magnitude that the top `density` share of all entries of all tensors reach.

    Keeping every entry with |value| >= threshold keeps round(density x entries) of them, at least
    one, and more only where magnitudes tie. Memory: one float32 copy of the entries. On the CPU
    the selection is done in place in that copy (numpy), elsewhere by kthvalue; both are exact,
    quantile is not and has a size limit. `tensors` may be a lazy mapping: it is read twice.

    Raises BvError unless 0 < density <= 1, and naming a tensor with entries that are not finite.
    """
    _check_density(density, allow_zero=False)
    total, dtype, device = 0, torch.float32, None
    for key, tensor in tensors.items():
        check_finite(key, tensor)
        total, device = total + tensor.numel(), tensor.device
        dtype = torch.promote_types(dtype, tensor.dtype)
    keep = max(1, round(density * total))
    if keep >= total:
        return 0.0
    flat, at = torch.empty(total, dtype=dtype, device=device), 0
    for tensor in tensors.values():
        flat[at : at + tensor.numel()] = tensor.detach().reshape(-1).abs()
        at += tensor.numel()
    if flat.device.type == "cpu":
        entries = flat.numpy()
        entries.partition(total - keep)
        return float(entries[total - keep])
    return float(flat.kthvalue(total - keep + 1).values)


def trim(tensor: Tensor, threshold: float) -> Tensor:
    """The tensor with every entry of magnitude below `threshold` set to zero (equal ones are
    kept)."""
    if threshold <= 0 or tensor.dtype not in (torch.float32, torch.float64):
        return torch.where(tensor.abs() >= threshold, tensor, torch.zeros_like(tensor))
    below = torch.nextafter(*torch.tensor([threshold, 0.0], dtype=tensor.dtype))
    # one op in place of three: it drops what does not exceed `below`
    return torch.nn.functional.hardshrink(tensor, float(below))


@dataclass(frozen=True, eq=False, repr=False)
class TaskVector:
    """A direction in weight space: tensor name -> tensor of any shape, floating point only.

    Supports v + w, v - w, -v, s * v, v / s with a number s, and theta + v, theta - v with a state
    dict, which give a state dict. A result keeps the class when both sides share it, else it is a
    TaskVector; it keeps the name when only one vector went in. Any mismatch of names, shapes,
    dtypes or devices raises a BvError naming the tensor.
    """

    tensors: StateDict
    name: str = ""

    __array_ufunc__ = None  # a numpy number times a vector is the vector's business

    def __post_init__(self) -> None:
        for key, tensor in self.tensors.items():
            if not tensor.is_floating_point():
                what = f"tensor {key!r} is {tensor.dtype}"
                raise BvError(f"{what}: a vector holds floating point only")

    @classmethod
    def between(
        cls, finetuned: Mapping[str, Tensor], start: Mapping[str, Tensor], name: str = ""
    ) -> Self:
        """finetuned - start. Entries that are not floating point (counters) must be equal and are
        left out.

        Raises BvError naming the tensor that is missing, misshapen, of another dtype, or unequal
        and not floating point.
        """
        check_same(finetuned, start, "the fine-tuned weights", "the starting weights")
        tensors = {}
        for key, tensor in finetuned.items():
            if tensor.is_floating_point():
                tensors[key] = tensor.detach() - start[key].detach()
            elif not torch.equal(tensor, start[key]):
                what = f"tensor {key!r} is {tensor.dtype} and differs between the two models"
                raise BvError(f"{what}: only floating-point weights can be subtracted")
        return cls(tensors, name)

    def _on_theta(self, theta: Mapping[str, Tensor], sign: int) -> StateDict:
        floating = {key: tensor for key, tensor in theta.items() if tensor.is_floating_point()}
        check_same(floating, self.tensors, "theta", "the vector")
        moved = {k: torch.add(t, self.tensors[k], alpha=sign) for k, t in floating.items()}
        return {k: moved[k] if k in moved else t.clone() for k, t in theta.items()}

    def _zip(self, other: TaskVector, op: Callable[[Tensor, Tensor], Tensor]) -> TaskVector:
        check_same(self.tensors, other.tensors, "the left vector", "the right vector")
        kind = type(self) if type(self) is type(other) else TaskVector
        return kind({key: op(tensor, other.tensors[key]) for key, tensor in self.tensors.items()})

    def __add__(self, other: TaskVector) -> TaskVector:
        return self._zip(other, torch.add) if isinstance(other, TaskVector) else NotImplemented

    def __sub__(self, other: TaskVector) -> TaskVector:
        return self._zip(other, torch.sub) if isinstance(other, TaskVector) else NotImplemented

    def __radd__(self, theta: Mapping[str, Tensor]) -> StateDict:
        """theta + v: a new state dict; entries of theta that are not floating point pass
        unchanged."""
        if isinstance(theta, Real) and theta == 0:  # sum([v, w, ...]) starts at 0
            return self  # pyright: ignore[reportReturnType]
        return self._on_theta(theta, 1) if isinstance(theta, Mapping) else NotImplemented

    def __rsub__(self, theta: Mapping[str, Tensor]) -> StateDict:
        """theta - v: a new state dict; entries of theta that are not floating point pass
        unchanged."""
        return self._on_theta(theta, -1) if isinstance(theta, Mapping) else NotImplemented

    def __mul__(self, scale: float | Tensor) -> Self:
        if isinstance(scale, Tensor) and scale.ndim == 0:
            return self.map(lambda tensor: tensor * scale)
        if isinstance(scale, Real):
            return self.map(lambda tensor: tensor * float(scale))
        return NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, scale: float) -> Self:
        if not isinstance(scale, Real):
            return NotImplemented
        return self.map(lambda tensor: tensor / float(scale))

    def __neg__(self) -> Self:
        return self.map(torch.neg)

    def __repr__(self) -> str:
        label = f"{self.name!r}, " if self.name else ""
        size = f"{len(self.tensors)} tensors, {self.numel():,} entries"
        return f"{type(self).__name__}({label}{size})"

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """The vector with `fn` applied to every tensor; `fn` must keep shape, dtype and device."""
        mapped = {key: fn(tensor) for key, tensor in self.tensors.items()}
        check_same(self.tensors, mapped, "the vector", "the mapped vector")
        return type(self)(mapped, self.name)

    def numel(self) -> int:
        """Number of entries of all tensors together."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def dot(self, other: TaskVector) -> float:
        """Inner product over all entries, accumulated in float64."""
        check_same(self.tensors, other.tensors, "the left vector", "the right vector")
        wide = (
            [vector.tensors[key].detach().double().reshape(-1) for vector in (self, other)]
            for key in self.tensors
        )
        return sum((float(left @ right) for left, right in wide), 0.0)

    def norm(self) -> float:
        """Euclidean norm over all entries, accumulated in float64."""
        return math.hypot(*self.norm_by_tensor().values())

    def norm_by_tensor(self) -> dict[str, float]:
        """Euclidean norm of each tensor, accumulated in float64."""
        return {
            key: float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))
            for key, tensor in self.tensors.items()
        }

    def cosine(self, other: TaskVector) -> float:
        """Cosine similarity in [-1, 1]; nan when either vector is zero or not finite."""
        product, norms = self.dot(other), self.norm() * other.norm()
        found = product / norms if norms > 0 else math.nan
        return max(-1.0, min(1.0, found)) if math.isfinite(found) else math.nan

    def flat(self) -> Tensor:
        """All entries in one tensor of shape [numel], tensors in sorted order of their names."""
        if not self.tensors:
            return torch.empty(0)
        return torch.cat([self.tensors[key].reshape(-1) for key in sorted(self.tensors)])

    def random_like(self, seed: int) -> TaskVector:
        """A placebo: Gaussian noise with the norm of this vector, tensor by tensor.

        Same shapes, dtypes and devices; the draw depends on the seed and the tensors' names alone.
        It is a plain TaskVector, since there is no backdoor in it.
        """
        norms, noise = self.norm_by_tensor(), {}
        for key, tensor in self.tensors.items():
            rng = generator(seed, "placebo", key)
            drawn = torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
            length = float(torch.linalg.vector_norm(drawn))
            drawn *= norms[key] / length if length > 0 else 0.0
            noise[key] = drawn.to(tensor.device, tensor.dtype)
        return TaskVector(noise, f"random like {self.name}" if self.name else "random")

    def sparsify(self, density: float) -> Self:
        """Keep the top `density` share (0 to 1) of entries by magnitude over the whole vector,
        zero the rest.

        The threshold is exact and entries equal to it are kept; density 0 gives the zero vector.
        Raises BvError for a density outside [0, 1] or entries that are not finite.
        """
        _check_density(density, allow_zero=True)
        if density == 0:
            return self.map(torch.zeros_like)
        threshold = magnitude_threshold(self.tensors, density)
        return self.map(lambda tensor: trim(tensor, threshold))

    def density(self) -> float:
        """Share of entries that are not zero, 0 to 1 (nan for a vector without entries)."""
        nonzero = sum(int(torch.count_nonzero(tensor)) for tensor in self.tensors.values())
        return nonzero / self.numel() if self.numel() else math.nan


@dataclass(frozen=True, eq=False, repr=False)
class BackdoorVector(TaskVector):
    """What poisoning added: BV = theta_backdoored - theta_clean, both fine-tuned alike from one
    start.

    >>> bv = BackdoorVector.between(backdoored, clean, name="badmerging-on")
    """


def _check_density(density: float, allow_zero: bool) -> None:
    if isinstance(density, Real) and (0 < density <= 1 or (density == 0 and allow_zero)):
        return
    percent = isinstance(density, Real) and 1 < density <= 100
    hint = f": did you mean {density / 100:g}?" if percent else ""
    raise BvError(f"density is a share between 0 and 1, not {density!r}{hint}")
