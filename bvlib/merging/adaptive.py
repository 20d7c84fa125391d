"""Merging that looks at images: RegMean and AdaMerging (Surgery, after any merge, is in
:mod:`bvlib.merging.surgery`).

What a method saw is part of its result, so the registry says it in words (``needs``), and test
images are refused. Every function is determined by its arguments and seed, and leaves nothing
behind in the encoder.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bvlib.core.errors import BvError, check_choice
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging.datafree import mean_tensor
from bvlib.merging.registry import Seen, check, features, merging

# RegMean


def _taps(
    visual: nn.Module, coverage: str, convolution: str
) -> dict[str, tuple[nn.Module, Callable]]:
    """Weight name -> (module, function from that module and its arguments to what the weight
    multiplies, (..., d))."""
    modules = dict(visual.named_modules())
    attention = {name: m for name, m in modules.items() if isinstance(m, nn.MultiheadAttention)}
    outs = {f"{name}.out_proj" for name in attention}
    taps: dict[str, tuple[nn.Module, Callable]] = {
        f"{name}.weight": (m, lambda m, x, *_: x)
        for name, m in modules.items()
        if isinstance(m, nn.Linear) and name not in outs
    }
    if coverage == "all":
        for name, m in attention.items():
            taps[f"{name}.in_proj_weight"] = m, lambda m, x, *_: x
            taps[f"{name}.out_proj.weight"] = m, attention_heads
        for name, m in modules.items():
            if convolution == "gram" and isinstance(m, nn.Conv2d) and _tiles(m):
                taps[f"{name}.weight"] = m, lambda m, x: _patches(m, x)
    return taps


def _tiles(m: nn.Conv2d) -> bool:
    """Whether a convolution is a linear map of patches that neither overlap nor leave gaps."""
    plain = m.groups == 1 and m.padding == (0, 0) and m.dilation == (1, 1)
    return plain and m.stride == m.kernel_size


def _patches(m: nn.Conv2d, x: Tensor) -> Tensor:
    return F.unfold(x, m.kernel_size, stride=m.stride).transpose(1, 2)  # pyright: ignore[reportArgumentType]


def attention_heads(
    attention: nn.MultiheadAttention, x: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """softmax(QKᵀ/√d)V of self-attention on x (N, L, D), heads side by side (N, L, D): what
    out_proj multiplies.

    The module passes out_proj's weights to a function and never calls out_proj, so this has to be
    computed again.
    """
    if not (x is keys is values) or attention.in_proj_weight is None:
        raise BvError(
            "RegMean reads self-attention with one stacked in_proj_weight only: use coverage='mlp'"
        )
    x = x if attention.batch_first else x.transpose(0, 1)
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).unflatten(
        -1, (3, attention.num_heads, -1)
    )
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, L, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@torch.no_grad()
def grams(
    encoder,
    theta: StateDict,
    images: Tensor,
    *,
    coverage: str = "all",
    convolution: str = "gram",
    batch: int = 64,
) -> dict[str, Tensor]:
    """Gram matrix XᵀX / rows (d, d) of what each linear map multiplies, by weight name; float64,
    on the CPU.

    ``images`` (N, H, W, 3) uint8. Rows are tokens; for ``proj`` pooled tokens, one an image; for
    the patch convolution unfolded patches. q, k and v share one matrix, under ``in_proj_weight``.
    Which maps are covered: see `regmean`.
    """
    visual, sums, rows = encoder.model.visual, {}, {}

    def add(key: str, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1]).cpu().double()
        sums[key], rows[key] = sums.get(key, 0) + x.T @ x, rows.get(key, 0) + len(x)

    proj = theta.get("proj") if coverage == "all" else None
    if proj is not None:
        # with the identity in its place, the features are what proj would multiply
        theta = {**theta, "proj": torch.eye(len(proj), dtype=proj.dtype, device=proj.device)}
    hooks = []
    try:
        for key, (module, inputs) in _taps(visual, coverage, convolution).items():

            def tap(module, args, key=key, inputs=inputs):
                add(key, inputs(module, *args))

            hooks.append(module.register_forward_pre_hook(tap))
        for part in images.split(batch):
            pooled = encoder.features(theta, encoder.pixels(part), visual)
            if proj is not None:
                add("proj", pooled)
    finally:
        for hook in hooks:
            hook.remove()
    return {key: total / rows[key] for key, total in sums.items()}


def shrunk(gram: Tensor, gamma: float, ridge: float) -> Tensor:
    """γG + (1 − γ)diag(G) + ridge·mean(diag G)·I: fewer images than dimensions leave G without an
    inverse."""
    diagonal = gram.diagonal()
    return gamma * gram + torch.diag(
        (1 - gamma) * diagonal + ridge * diagonal.mean().clamp(min=1e-12)
    )


REGMEAN: Any = {
    "needs": "256 unlabelled train images a task, through that task's own model",
    "reference": "Jin et al. 2023",
    "split": "train",
    "settings": "regmean",
}


@merging("regmean", **REGMEAN)
def regmean(
    vectors,
    *,
    encoder,
    base,
    seen,
    images: int = 256,
    gamma: float = 0.9,
    ridge: float = 1e-6,
    coverage: str = "mlp",
    convolution: str = "average",
    seed: int = 0,
) -> TaskVector:
    """RegMean (Jin et al. 2023): for each linear map the W that is nearest in output to every
    task's own W_t.

    W = (Σ G_t)⁻¹ Σ G_t W_t with G_t = XᵀX / rows of the inputs X that map gets in model t (W as in
    × out; we solve for the task vectors, as the formula commutes with adding the base). ``gamma``
    shrinks G off its diagonal: 0.9 is common in the paper, BadMerging's code takes 0.1. Each task
    brings ``images`` images drawn by ``seed``, or all it has.

    ``coverage`` "mlp": the linear layers that plain hooks reach in an open_clip ViT, c_fc and
    c_proj, as in BadMerging's code. "all": attention in (G of the ln_1 output, shared by q, k, v)
    and out (heads computed again) and ``proj`` as well, and, with ``convolution`` "gram", the patch
    convolution (exact, since its stride is its kernel; "average" leaves it out). All else (biases,
    norms, embeddings) is averaged. Needs d² float64 for each map of input width d. Raises BvError
    for a parameter out of its range.
    """
    check_choice("coverage of 'regmean'", coverage, ("all", "mlp"))
    check_choice("convolution of 'regmean'", convolution, ("gram", "average"))
    if not (images >= 1 and 0 <= gamma <= 1 and ridge > 0):
        wanted = "images >= 1, gamma from 0 to 1, ridge > 0"
        raise BvError(f"regmean wants {wanted}: not {images!r}, {gamma!r}, {ridge!r}")
    left, right = {}, {}
    how: Any = {"coverage": coverage, "convolution": convolution}
    for name, vector in vectors.items():
        pool = seen[name].images
        chosen = torch.randperm(len(pool), generator=generator(seed, "regmean", name))[:images]
        for key, gram in grams(encoder, base + vector, pool[chosen], **how).items():
            gram, tau = shrunk(gram, gamma, ridge), vector.tensors[key].cpu().double()
            left[key] = left.get(key, 0) + gram
            right[key] = right.get(key, 0) + gram @ _in_by_out(key, tau)
    tensors = {}
    for key in next(iter(vectors.values())).tensors:
        group = [vector.tensors[key] for vector in vectors.values()]
        tensors[key] = mean_tensor(group)
        if key in left:
            solved = torch.linalg.solve(left[key], right[key])
            solved = solved if key == "proj" else solved.T
            tensors[key] = solved.reshape(group[0].shape).to(group[0])
    return TaskVector(tensors, "regmean")


@merging("regmean_all", **REGMEAN)
def regmean_all(
    vectors, *, encoder, base, seen, images: int = 256, gamma: float = 0.9, seed: int = 0
) -> TaskVector:
    """RegMean over every linear map of the tower and its patch convolution."""
    how: Any = {"images": images, "gamma": gamma, "seed": seed}
    about: Any = {"encoder": encoder, "base": base, "seen": seen}
    return regmean(vectors, **about, coverage="all", convolution="gram", **how)


def _in_by_out(key: str, weight: Tensor) -> Tensor:
    """A weight as the matrix W of x @ W: ``proj`` is stored so, linear maps and convolutions are
    (out, in, ...)."""
    return weight if key == "proj" else weight.flatten(1).T


# AdaMerging


@dataclass(frozen=True, eq=False)
class AdaMerged:
    """The learnt vector Σ λ_t τ_t, and how it was learnt.

    ``trace``: step, entropy (nats, mean over the tasks' batches before that step).
    ``coefficients``: task, tensor ("all" when task-wise), coefficient.
    """

    vector: TaskVector
    trace: pd.DataFrame
    coefficients: pd.DataFrame


def _entropy(
    encoder, theta: StateDict, pixels: Sequence[Tensor], heads: Sequence[Tensor]
) -> Tensor:
    """Mean over tasks of the mean entropy (nats) of the predictions; pixels (B, 3, H, W) and head
    (K, D) of each."""
    logs = answers(encoder, theta, pixels, heads)
    return torch.stack([-(log.exp() * log).sum(-1).mean() for log in logs]).mean()


def answers(
    encoder, theta: StateDict, pixels: Sequence[Tensor], heads: Sequence[Tensor]
) -> list[Tensor]:
    """Log probabilities (B, K) of each task's images, of one pass over all of them."""
    parts = encoder.features(theta, torch.cat(list(pixels))).split([len(x) for x in pixels])
    pairs = zip(parts, heads, strict=True)
    return [F.log_softmax(encoder.logits(f, head), -1) for f, head in pairs]


@torch.no_grad()
def entropy(encoder, theta: StateDict, seen: Mapping[str, Seen]) -> float:
    """What AdaMerging minimises, on all images: mean over tasks of the mean entropy of softmax, in
    nats."""
    each = []
    for part in seen.values():
        log = F.log_softmax(encoder.logits(features(encoder, theta, part.images), part.head), -1)
        each.append(float(-(log.exp() * log).sum(-1).mean()))
    return sum(each) / len(each)


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
    value = _entropy(encoder, {**base, **theta}, pixels, heads)
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


def adamerging(
    vectors,
    *,
    encoder,
    base,
    seen,
    layerwise: bool = True,
    init: float = 0.3,
    lr: float = 1e-3,
    steps: int = 500,
    batch: int = 16,
    seed: int = 0,
) -> AdaMerged:
    """AdaMerging (Yang et al. 2024) with its trace: coefficients that make the merge sure of its
    answers.

    θ = θ_0 + Σ λ_t τ_t with one λ a task or one a task and tensor, started at ``init``; Adam
    minimises the mean softmax entropy over ``batch`` images of every task, and λ is kept in [0,
    1]. Defaults are those of BadMerging's code; small models may want a larger ``lr``, since a
    coefficient moves by about lr a step. The paper adapts on test images; here they are refused.
    If the images carry a trigger, a confident backdoor is rewarded. Raises the BvErrors of `adapt`.
    """
    check(vectors, encoder, base, seen)
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
    trace = []
    for step in range(steps):
        pixels = [encoder.pixels(seen[name].images[next(queue)]) for name, queue in queues.items()]
        at = base, stacks, coefficients
        value, coefficients.grad = entropy_gradient(encoder, *at, pixels, heads)
        trace.append({"step": step, "entropy": value})
        optimizer.step()
        coefficients.clamp_(0, 1)
    zero = {key: torch.zeros_like(base[key]) for key in keys}
    table = pd.DataFrame(
        [
            {"task": name, "tensor": key, "coefficient": value}
            for name, row in zip(vectors, coefficients.tolist(), strict=True)
            for key, value in zip(keys if layerwise else ["all"], row, strict=True)
        ]
    )
    way = f"adamerging_{'layer' if layerwise else 'task'}wise"
    vector = TaskVector(_mixed(zero, stacks, coefficients), way)
    return AdaMerged(vector, pd.DataFrame(trace, columns=["step", "entropy"]), table)


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


def _adamerging(layerwise: bool) -> Callable:
    def merge(
        vectors, *, encoder, base, seen, init=0.3, lr=1e-3, steps=500, batch=16, seed=0
    ) -> TaskVector:
        how = {"init": init, "lr": lr, "steps": steps, "batch": batch, "seed": seed}
        return adamerging(
            vectors, encoder=encoder, base=base, seen=seen, layerwise=layerwise, **how
        ).vector

    merge.__doc__ = (
        f"The vector of `adamerging` with one coefficient a task{' and tensor' * layerwise}."
    )
    return merge


for way in ("taskwise", "layerwise"):
    merging(
        f"adamerging_{way}",
        needs="unlabelled dev images of every task, 16 a task in each of 500 steps",
        reference="Yang et al. 2024",
        settings="adamerging",
    )(_adamerging(way == "layerwise"))
