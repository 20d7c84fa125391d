"""RegMean: each linear map of the merge is the one nearest in output to every task's own.

What a method saw is part of its result, so the registry says it in words (``needs``), and test
images are refused. Every function is determined by its arguments and seed, and leaves nothing
behind in the encoder.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear  # out_proj of an attention

from bvlib.core.errors import BvError, check_choice
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging.datafree import mean_tensor
from bvlib.merging.registry import merging


def _taps(visual: nn.Module, coverage: str) -> dict[str, tuple[nn.Module, Callable]]:
    """Weight name -> (module, function from that module and its arguments to what the weight
    multiplies, (..., d))."""
    taps: dict[str, tuple[nn.Module, Callable]] = {}
    for name, m in visual.named_modules():
        if isinstance(m, nn.Linear) and not isinstance(m, NonDynamicallyQuantizableLinear):
            taps[f"{name}.weight"] = m, lambda m, x: x
        elif isinstance(m, nn.MultiheadAttention) and coverage == "all":
            taps[f"{name}.in_proj_weight"] = m, lambda m, x, *_: x
            taps[f"{name}.out_proj.weight"] = m, attention_heads
        elif isinstance(m, nn.Conv2d) and coverage == "all" and _tiles(m):
            taps[f"{name}.weight"] = m, _patches
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
    encoder, theta: StateDict, images: Tensor, *, coverage: str = "all", batch: int = 64
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
    with ExitStack() as hooks:
        for key, (module, inputs) in _taps(visual, coverage).items():

            def tap(module, args, key=key, inputs=inputs):
                add(key, inputs(module, *args))

            hooks.enter_context(module.register_forward_pre_hook(tap))
        for part in images.split(batch):
            pooled = encoder.features(theta, encoder.pixels(part), visual)
            if proj is not None:
                add("proj", pooled)
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


@merging("regmean", label="RegMean", **REGMEAN)
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
    and out (heads computed again), ``proj`` and the patch convolution as well (exact, since its
    stride is its kernel). All else (biases, norms, embeddings) is averaged. Needs d² float64 for
    each map of input width d. Raises BvError for a parameter out of its range.
    """
    check_choice("coverage of 'regmean'", coverage, ("all", "mlp"))
    if not (images >= 1 and 0 <= gamma <= 1 and ridge > 0):
        wanted = "images >= 1, gamma from 0 to 1, ridge > 0"
        raise BvError(f"regmean wants {wanted}: not {images!r}, {gamma!r}, {ridge!r}")
    left, right = {}, {}
    for name, vector in vectors.items():
        pool = seen[name].images
        chosen = torch.randperm(len(pool), generator=generator(seed, "regmean", name))[:images]
        for key, gram in grams(encoder, base + vector, pool[chosen], coverage=coverage).items():
            gram, tau = shrunk(gram, gamma, ridge), vector.tensors[key].cpu().double()
            # W of x @ W: proj is stored so, linear maps and convolutions are (out, in, ...)
            inwards = tau if key == "proj" else tau.flatten(1).T
            left[key] = left.get(key, 0) + gram
            right[key] = right.get(key, 0) + gram @ inwards
    tensors = {}
    for key in next(iter(vectors.values())).tensors:
        group = [vector.tensors[key] for vector in vectors.values()]
        tensors[key] = mean_tensor(group)
        if key in left:
            solved = torch.linalg.solve(left[key], right[key])
            solved = solved if key == "proj" else solved.T
            tensors[key] = solved.reshape(group[0].shape).to(group[0])
    return TaskVector(tensors, "regmean")


@merging("regmean_all", label="RegMean, every layer", **REGMEAN)
def regmean_all(
    vectors, *, encoder, base, seen, images: int = 256, gamma: float = 0.9, seed: int = 0
) -> TaskVector:
    """RegMean over every linear map of the tower and its patch convolution."""
    how: Any = {"images": images, "gamma": gamma, "seed": seed}
    return regmean(vectors, encoder=encoder, base=base, seen=seen, coverage="all", **how)
