"""Merging that needs data: RegMean and AdaMerging (Surgery, after any merge, is in
:mod:`bvlib.merging.surgery`).

The signature is that of :mod:`bvlib.merging.datafree` plus what these methods look at: task vectors by task
name, the encoder and the base θ_0 they start from, and for each task a :class:`Seen`, images
without labels. What a method saw is part of its result, so the registry says it in words
(``needs``), and test images are refused. A new method is one function:

    @adaptive_method("mine", needs="16 unlabelled dev images a task")
    def mine(vectors, *, encoder, base, seen, strength=1.0): ...

Every function is determined by its arguments and seed, and leaves nothing behind in the encoder.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector, check_same
from bvlib.merging.datafree import check_vectors, mean_tensor


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method may look at of one task: images (N, H, W, 3) uint8 without labels, the
    zero-shot head (K, D).

    ``split`` says where the images are from, "train" or "dev"; every method refuses "test".
    """

    images: Tensor
    head: Tensor
    split: str = "dev"

    def __str__(self) -> str:
        return f"{len(self.images)} unlabelled {self.split} images"


def see(encoder, task, split: str = "dev") -> Seen:
    """The images of a task's split without their labels, and its head."""
    return Seen(getattr(task, split).images, encoder.head(task.classnames, task.prompts), split)


@dataclass(frozen=True)
class AdaptiveMethod:
    """A merging function that looks at images; ``needs`` says which, ``parameters`` are its own
    with their defaults."""

    name: str
    function: Callable[..., TaskVector]
    needs: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        vectors: Mapping[str, TaskVector],
        *,
        encoder,
        base: StateDict,
        seen: Mapping[str, Seen],
        **parameters: Any,
    ) -> TaskVector:
        """Check the parameters' names, then merge; see `adapt` for the errors."""
        for name in parameters:
            if name not in self.parameters:
                raise unknown(f"parameter of {self.name!r}", name, self.parameters)
        return self.function(vectors, encoder=encoder, base=base, seen=seen, **parameters)


ADAPTIVE: dict[str, AdaptiveMethod] = {}


def adaptive_method(
    name: str, *, needs: str, registry: dict[str, AdaptiveMethod] = ADAPTIVE
) -> Callable:
    """Decorator that registers ``function(vectors, *, encoder, base, seen, parameters=defaults)``
    under a name.

    However the function is called, `check` has passed its arguments. BvError when another function
    has the name.
    """

    def register(function: Callable[..., TaskVector]) -> Callable[..., TaskVector]:
        if name in registry and registry[name].function.__qualname__ != function.__qualname__:
            raise BvError(
                f"adaptive merging method {name!r} is already registered: choose another name"
            )
        declared = {
            p.name: p.default
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in ("encoder", "base", "seen")
        }

        @functools.wraps(function)
        def checked(vectors, *, encoder, base, seen, **parameters):
            check(vectors, encoder, base, seen)
            return function(vectors, encoder=encoder, base=base, seen=seen, **parameters)

        registry[name] = AdaptiveMethod(name, checked, needs, declared)
        return checked

    return register


def adapt(
    name: str,
    vectors: Mapping[str, TaskVector],
    *,
    encoder,
    base: StateDict,
    seen: Mapping[str, Seen],
    **parameters: Any,
) -> TaskVector:
    """Merge task vectors (by task name) with the method of that name: base + adapt(...) is the
    merged model.

    Raises BvError for an unknown name or parameter, vectors that do not fit each other, the base
    or the encoder, a task without images, and test images.
    """
    if name not in ADAPTIVE:
        raise unknown("adaptive merging method", name, ADAPTIVE)
    return ADAPTIVE[name](vectors, encoder=encoder, base=base, seen=seen, **parameters)


def check(
    vectors: Mapping[str, TaskVector], encoder, base: StateDict, seen: Mapping[str, Seen]
) -> None:
    """Raise the BvErrors of `adapt`."""
    if not isinstance(vectors, Mapping):
        raise BvError(
            f"vectors must be a dict from task name to TaskVector, not a {type(vectors).__name__}"
        )
    first = check_vectors(list(vectors.values()))[0]
    check_same(
        {k: v for k, v in base.items() if v.is_floating_point()},
        first.tensors,
        "the base",
        "the vectors",
    )
    check_seen(vectors, encoder, base, seen)


def check_seen(names: Sequence[str], encoder, theta: StateDict, seen: Mapping[str, Seen]) -> None:
    """BvError when weights, encoder and heads do not fit, or a task's images are missing, none,
    misshapen or of test."""
    check_same(encoder.model.visual.state_dict(), theta, "the encoder", "the weights")
    for name in names:
        if name not in seen:
            raise BvError(
                f"task {name!r} has no images to look at: add seen[{name!r}] = see(encoder, task)"
            )
        images, split = seen[name].images, seen[name].split
        if split not in ("train", "dev"):
            raise BvError(
                f"the images of task {name!r} are of its {split} split: a merge may see train or "
                "dev images only"
            )
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise BvError(
                f"the images of task {name!r} must be uint8 of shape (N, H, W, 3), not "
                f"{images.dtype} of "
                f"{tuple(images.shape)}"
            )
        if not len(images):
            raise BvError(
                f"task {name!r} has no {split} images: raise sizes.{split} or take another split"
            )
        width, wanted = features(encoder, theta, images[:1]).shape[1], seen[name].head.shape[1]
        if width != wanted:
            raise BvError(
                f"the head of task {name!r} has width {wanted}, the encoder's features {width}: "
                "make it with "
                "this encoder's head()"
            )


@torch.no_grad()
def features(encoder, theta: StateDict, images: Tensor, batch: int = 500) -> Tensor:
    """Features (N, D), not normalised, of uint8 images (N, H, W, 3)."""
    return torch.cat(
        [encoder.features(theta, encoder.pixels(part)) for part in images.split(batch)]
    )


# RegMean


def _taps(
    visual: nn.Module, coverage: str, convolution: str
) -> dict[str, tuple[nn.Module, Callable]]:
    """Weight name -> (module, function from that module and its arguments to what the weight
    multiplies, (..., d))."""
    modules = dict(visual.named_modules())
    attention = {name: m for name, m in modules.items() if isinstance(m, nn.MultiheadAttention)}
    outs = {f"{name}.out_proj" for name in attention}
    taps = {
        f"{name}.weight": (m, lambda m, x, *_: x)
        for name, m in modules.items()
        if isinstance(m, nn.Linear) and name not in outs
    }
    if coverage == "all":
        for name, m in attention.items():
            taps[f"{name}.in_proj_weight"] = m, lambda m, x, *_: x
            taps[f"{name}.out_proj.weight"] = m, attention_heads
        for name, m in modules.items():
            if (
                convolution == "gram"
                and isinstance(m, nn.Conv2d)
                and m.stride == m.kernel_size
                and m.groups == 1
                and m.padding == (0, 0)
                and m.dilation == (1, 1)
            ):
                taps[f"{name}.weight"] = (
                    m,
                    lambda m, x: F.unfold(x, m.kernel_size, stride=m.stride).transpose(1, 2),
                )
    return taps


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
    if (
        proj is not None
    ):  # with the identity in its place, the features are what proj would multiply
        theta = {**theta, "proj": torch.eye(len(proj), dtype=proj.dtype, device=proj.device)}
    hooks = []
    try:
        for key, (module, inputs) in _taps(visual, coverage, convolution).items():
            hooks.append(
                module.register_forward_pre_hook(
                    lambda module, args, key=key, inputs=inputs: add(key, inputs(module, *args))
                )
            )
        for part in images.split(batch):
            pooled = encoder.features(theta, encoder.pixels(part))
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


@adaptive_method(
    "regmean", needs="256 unlabelled train images a task, through that task's own model"
)
def regmean(
    vectors,
    *,
    encoder,
    base,
    seen,
    images: int = 256,
    gamma: float = 0.9,
    ridge: float = 1e-6,
    coverage: str = "all",
    convolution: str = "gram",
    seed: int = 0,
) -> TaskVector:
    """RegMean (Jin et al. 2023): for each linear map the W that is nearest in output to every
    task's own W_t.

    W = (Σ G_t)⁻¹ Σ G_t W_t with G_t = XᵀX / rows of the inputs X that map gets in model t (W as in
    × out; we solve for the task vectors, as the formula commutes with adding the base). ``gamma``
    shrinks G off its diagonal: 0.9 is common in the paper, BadMerging's code takes 0.1. Each task
    brings ``images`` images drawn by ``seed``, or all it has.

    ``coverage`` "all": MLP, attention in (G of the ln_1 output, shared by q, k, v) and out (heads
    computed again), ``proj`` and, with ``convolution`` "gram", the patch convolution (exact, since
    its stride is its kernel; "average" leaves it out). "mlp": the linear layers that plain hooks
    reach in an open_clip ViT, c_fc and c_proj, as in BadMerging's code. All else (biases, norms,
    embeddings) is averaged. Needs d² float64 for each map of input width d. Raises BvError for a
    parameter out of its range.
    """
    for what, value, known in (
        ("coverage", coverage, ("all", "mlp")),
        ("convolution", convolution, ("gram", "average")),
    ):
        if value not in known:
            raise unknown(f"{what} of 'regmean'", value, known)
    if not (images >= 1 and 0 <= gamma <= 1 and ridge > 0):
        raise BvError(
            f"regmean wants images >= 1, gamma from 0 to 1, ridge > 0: not {images!r}, {gamma!r}, "
            f"{ridge!r}"
        )
    left, right = {}, {}
    for name, vector in vectors.items():
        chosen = torch.randperm(len(seen[name].images), generator=generator(seed, "regmean", name))[
            :images
        ]
        found = grams(
            encoder,
            base + vector,
            seen[name].images[chosen],
            coverage=coverage,
            convolution=convolution,
        )
        for key, gram in found.items():
            gram = shrunk(gram, gamma, ridge)
            left[key] = left.get(key, 0) + gram
            right[key] = right.get(key, 0) + gram @ _in_by_out(
                key, vector.tensors[key].cpu().double()
            )
    tensors = {}
    for key in next(iter(vectors.values())).tensors:
        group = [vector.tensors[key] for vector in vectors.values()]
        tensors[key] = mean_tensor(group)
        if key in left:
            solved = torch.linalg.solve(left[key], right[key])
            tensors[key] = (
                (solved if key == "proj" else solved.T).reshape(group[0].shape).to(group[0])
            )
    return TaskVector(tensors, "regmean")


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
    parts = encoder.features(theta, torch.cat(list(pixels))).split([len(x) for x in pixels])
    logs = [
        F.log_softmax(encoder.logits(f, head), -1) for f, head in zip(parts, heads, strict=True)
    ]
    return torch.stack([-(log.exp() * log).sum(-1).mean() for log in logs]).mean()


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
    slopes = torch.autograd.grad(
        value, list(theta.values()), allow_unused=True, materialize_grads=True
    )
    gradient = torch.stack(
        [stack @ slope.flatten() for stack, slope in zip(stacks.values(), slopes, strict=True)], 1
    )
    return float(value.detach()), gradient if coefficients.shape[1] == len(
        stacks
    ) else gradient.sum(1, keepdim=True)


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
        raise BvError(
            f"adamerging wants steps >= 0, batch >= 1, lr > 0: not {steps!r}, {batch!r}, {lr!r}"
        )
    keys = list(next(iter(vectors.values())).tensors)
    stacks = {
        key: torch.stack([vector.tensors[key].flatten() for vector in vectors.values()])
        for key in keys
    }
    first = stacks[keys[0]]
    coefficients = torch.full(
        (len(vectors), len(keys) if layerwise else 1),
        float(init),
        dtype=first.dtype,
        device=first.device,
    )
    optimizer = torch.optim.Adam([coefficients], lr=lr)
    heads = [seen[name].head for name in vectors]
    queues = {
        name: batches(len(seen[name].images), batch, generator(seed, "adamerging", name))
        for name in vectors
    }
    trace = []
    for step in range(steps):
        pixels = [encoder.pixels(seen[name].images[next(queue)]) for name, queue in queues.items()]
        value, coefficients.grad = entropy_gradient(
            encoder, base, stacks, coefficients, pixels, heads
        )
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
    return AdaMerged(
        TaskVector(
            _mixed(zero, stacks, coefficients), f"adamerging_{'layer' if layerwise else 'task'}wise"
        ),
        pd.DataFrame(trace, columns=["step", "entropy"]),
        table,
    )


def batches(count: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Indices of one batch after another, from permutations of ``count``."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < min(batch, count):
            queue = torch.cat([queue, torch.randperm(count, generator=rng)])
        yield queue[:batch]
        queue = queue[batch:]


@adaptive_method(
    "adamerging_taskwise",
    needs="unlabelled dev images of every task, 16 a task in each of 500 steps",
)
def adamerging_taskwise(
    vectors,
    *,
    encoder,
    base,
    seen,
    init: float = 0.3,
    lr: float = 1e-3,
    steps: int = 500,
    batch: int = 16,
    seed: int = 0,
) -> TaskVector:
    """The vector of `adamerging` with one coefficient a task."""
    return adamerging(
        vectors,
        encoder=encoder,
        base=base,
        seen=seen,
        layerwise=False,
        init=init,
        lr=lr,
        steps=steps,
        batch=batch,
        seed=seed,
    ).vector


@adaptive_method(
    "adamerging_layerwise",
    needs="unlabelled dev images of every task, 16 a task in each of 500 steps",
)
def adamerging_layerwise(
    vectors,
    *,
    encoder,
    base,
    seen,
    init: float = 0.3,
    lr: float = 1e-3,
    steps: int = 500,
    batch: int = 16,
    seed: int = 0,
) -> TaskVector:
    """The vector of `adamerging` with one coefficient a task and tensor."""
    return adamerging(
        vectors,
        encoder=encoder,
        base=base,
        seen=seen,
        layerwise=True,
        init=init,
        lr=lr,
        steps=steps,
        batch=batch,
        seed=seed,
    ).vector
