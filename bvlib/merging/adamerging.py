"""AdaMerging: merging coefficients learnt from unlabelled images, by the entropy of the answers.

Test images are refused, and every function is determined by its arguments and seed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging.registry import Seen, merging


def answers(
    encoder, theta: StateDict, pixels: Sequence[Tensor], heads: Sequence[Tensor]
) -> list[Tensor]:
    """Log probabilities (B, K) of each task's images, of one pass over all of them."""
    parts = encoder.features(theta, torch.cat(list(pixels))).split([len(x) for x in pixels])
    pairs = zip(parts, heads, strict=True)
    return [F.log_softmax(encoder.logits(f, head), -1) for f, head in pairs]


def entropy(logs: Sequence[Tensor]) -> Tensor:
    """What AdaMerging minimises: mean over tasks of the mean entropy (nats) of their log
    probabilities (B, K)."""
    return torch.stack([-(log.exp() * log).sum(-1).mean() for log in logs]).mean()


def entropy_gradient(
    encoder,
    base: StateDict,
    stacks: Mapping[str, Tensor],
    coefficients: Tensor,
    pixels: Sequence[Tensor],
    heads: Sequence[Tensor],
) -> tuple[float, Tensor]:
    """Entropy at base + Σ λ_t τ_t, and its gradient (T, L) with respect to the coefficients λ (T,
    L).

    ``stacks``: tensor name -> the tasks' τ (T, entries); L is the number of tensors (layer-wise)
    or 1 (task-wise). The gradient is ⟨∇_W, τ_t⟩ for each tensor W: one backward pass through the
    model, whatever the number of tasks.
    """
    theta = {
        key: tensor.detach().requires_grad_(True)
        for key, tensor in _mixed(base, stacks, coefficients).items()
    }
    value = entropy(answers(encoder, {**base, **theta}, pixels, heads))
    how: Any = {"allow_unused": True, "materialize_grads": True}
    slopes = torch.autograd.grad(value, list(theta.values()), **how)
    pairs = zip(stacks.values(), slopes, strict=True)
    gradient = torch.stack([stack @ slope.flatten() for stack, slope in pairs], 1)
    layerwise = coefficients.shape[1] == len(stacks)
    return float(value.detach()), gradient if layerwise else gradient.sum(1, keepdim=True)


def _mixed(base: StateDict, stacks: Mapping[str, Tensor], coefficients: Tensor) -> StateDict:
    """base + Σ λ_t τ_t, of the tensors in ``stacks``."""
    rows = coefficients.expand(-1, len(stacks)).T
    return {
        key: base[key] + (row @ stack).view(base[key].shape)
        for row, (key, stack) in zip(rows, stacks.items(), strict=True)
    }


def adamerging(layerwise: bool) -> Callable:
    """AdaMerging (Yang et al. 2024) as a merging method: coefficients that make the merge sure of
    its answers.

    θ = θ_0 + Σ λ_t τ_t with one λ a task or one a task and tensor, started at ``init``; Adam
    minimises the mean softmax entropy over ``batch`` images of every task, and λ is kept in [0,
    1]. Defaults are those of BadMerging's code; small models may want a larger ``lr``, since a
    coefficient moves by about lr a step. The paper adapts on test images; here they are refused.
    If the images carry a trigger, a confident backdoor is rewarded. Raises the BvErrors of `merge`.
    """

    def merge(
        vectors, *, encoder, base, seen, init=0.3, lr=1e-3, steps=500, batch=16, seed=0
    ) -> TaskVector:
        if not (steps >= 0 and batch >= 1 and lr > 0):
            wanted = "steps >= 0, batch >= 1, lr > 0"
            raise BvError(f"adamerging wants {wanted}: not {steps!r}, {batch!r}, {lr!r}")
        keys = list(next(iter(vectors.values())).tensors)
        stacks = {k: torch.stack([v.tensors[k].flatten() for v in vectors.values()]) for k in keys}
        shape = len(vectors), len(keys) if layerwise else 1
        coefficients = stacks[keys[0]].new_full(shape, float(init))
        optimizer = torch.optim.Adam([coefficients], lr=lr)
        heads = [seen[name].head for name in vectors]
        queues = batches_of(seen, vectors, batch, seed, "adamerging")
        for _ in range(steps):
            pixels = [encoder.pixels(seen[name].images[next(q)]) for name, q in queues.items()]
            at = base, stacks, coefficients
            _, coefficients.grad = entropy_gradient(encoder, *at, pixels, heads)
            optimizer.step()
            coefficients.clamp_(0, 1)
        zero = {key: torch.zeros_like(base[key]) for key in keys}
        way = f"adamerging_{'layer' if layerwise else 'task'}wise"
        return TaskVector(_mixed(zero, stacks, coefficients), way)

    return merge


def batches_of(
    seen: Mapping[str, Seen], names: Iterable[str], batch: int, seed: int, what: str
) -> dict[str, Iterator[Tensor]]:
    """`batches` of the images of each of these tasks, drawn by ``seed`` for a use."""
    return {n: batches(len(seen[n].images), batch, generator(seed, what, n)) for n in names}


def batches(count: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Indices of one batch after another, from permutations of ``count``."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < min(batch, count):
            queue = torch.cat([queue, torch.randperm(count, generator=rng)])
        yield queue[:batch]
        queue = queue[batch:]


for way in ("taskwise", "layerwise"):
    merging(
        f"adamerging_{way}",
        label=f"AdaMerging, {way}",
        what=f"AdaMerging with one coefficient a task{' and tensor' * (way == 'layerwise')}",
        needs="unlabelled dev images of every task, 16 a task in each of 500 steps",
        reference="Yang et al. 2024",
        settings="adamerging",
    )(adamerging(way == "layerwise"))
