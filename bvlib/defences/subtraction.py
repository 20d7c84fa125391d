"""Defences that change a model. Adding one is one function and one registry line."""

from __future__ import annotations

import re
from typing import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bvlib.core import training
from bvlib.core.errors import BvError
from bvlib.core.vectors import StateDict, TaskVector

DEFENCES: dict[str, Callable] = {}


def defence(name: str):
    """Register a defence ``f(theta_merged, vector, scale) -> theta`` under a name."""

    def add(function):
        DEFENCES[name] = function
        return function

    return add


@defence("ibvs")
def ibvs(theta: StateDict, injected: TaskVector, scale: float) -> StateDict:
    """Injection BV Subtraction: θ_defended = θ_merged − λ·BV_injected (Backdoor Vectors, defence
    section).

    The paper states the idea; the formula's place (after merging) and the choice of λ are ours.
    """
    return dict(theta) if scale == 0 else theta - scale * injected


def choose_scale(
    clean_dev_accuracy: Callable[[float], float], scales: Sequence[float], budget: float = 1.0
) -> float:
    """The one rule for λ: the largest scale whose clean dev accuracy is at most ``budget`` points
    below that of 0.

    ``clean_dev_accuracy(scale)`` returns percent; a defender has clean dev images, never the
    trigger. Raises BvError when 0 is not among the scales.
    """
    if 0 not in scales:
        raise BvError("the scales to choose from must contain 0 (no defence)")
    start = clean_dev_accuracy(0)
    return max(s for s in scales if start - clean_dev_accuracy(s) <= budget)


# Fine-pruning

Part = tuple[Tensor, Tensor, Tensor]
"""Clean images (N, H, W, 3) uint8 of one task, their labels (N,), and the task's head (K, D)."""


@torch.no_grad()
def activity(
    encoder, theta: StateDict, images: Tensor, blocks: int = 2, batch: int = 500
) -> dict[str, Tensor]:
    """Mean activation (units,) of the hidden units of the last MLPs on clean images, by the name
    of the MLP.

    After the GELU, over images and tokens, for the last ``blocks`` transformer blocks of an
    open_clip ViT.
    """
    visual, sums = encoder.model.visual, {}
    mlps = [
        name for name, _ in visual.named_modules() if re.fullmatch(r".*resblocks\.\d+\.mlp", name)
    ][-blocks:]
    if not mlps:
        raise BvError("fine-pruning knows the MLPs of an open_clip ViT only: this encoder has none")

    def add(name, value):
        sums[name] = sums.get(name, 0) + value.flatten(0, -2).double().sum(0)

    hooks = [
        visual.get_submodule(f"{name}.gelu").register_forward_hook(
            lambda m, x, out, name=name: add(name, out)
        )
        for name in mlps
    ]
    try:
        for part in images.split(batch):
            encoder.features(theta, encoder.pixels(part))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / len(images) for name, total in sums.items()}


def prune(theta: StateDict, active: Mapping[str, Tensor], share: float) -> StateDict:
    """θ without the ``share`` (0 to 1) of hidden units that are least active on clean images,
    ranked together (Fine-Pruning).

    A unit is removed by zeroing its column of ``c_proj``. Share 0 changes nothing.
    """
    if not 0 <= share <= 1:
        raise BvError(f"the share to prune is a number from 0 to 1, not {share!r}")
    ranked = torch.cat(list(active.values()))
    dormant = torch.zeros(len(ranked), dtype=torch.bool, device=ranked.device)
    dormant[ranked.argsort(stable=True)[: round(share * len(ranked))]] = True
    pruned, out = dormant.split([len(units) for units in active.values()]), dict(theta)
    for name, units in zip(active, pruned):
        key = f"{name}.c_proj.weight"
        out[key] = torch.where(
            units.to(theta[key].device), torch.zeros_like(theta[key]), theta[key]
        )
    return out


def tune(
    encoder,
    theta: StateDict,
    parts: Sequence[Part],
    *,
    pruned: Mapping[str, Tensor] | None = None,
    share: float = 0.0,
    seed: int = 0,
    steps: int = 60,
    batch: int = 96,
    lr: float = 1e-4,
    **how,
) -> StateDict:
    """θ fine-tuned on clean labelled images of all tasks, in every step as many of each; units
    that were pruned stay so.

    The second half of Fine-Pruning (with ``pruned``, the activity that :func:`prune` ranked by),
    or, without, the plain baseline of clean fine-tuning.
    """
    each = max(1, batch // len(parts))

    def objective(step: training.Step) -> Tensor:
        live = step.theta if pruned is None else prune(step.theta, pruned, share)
        rows = [torch.randint(len(labels), (each,), generator=step.rng) for _, labels, _ in parts]
        pixels = torch.cat(
            [encoder.pixels(images[now]) for (images, _, _), now in zip(parts, rows)]
        )
        features = encoder.features(live, pixels).split(each)
        losses = [
            step.loss(f, labels[now].to(f.device), head)
            for f, (_, labels, head), now in zip(features, parts, rows)
        ]
        return torch.stack(losses).mean()

    images, labels, head = parts[0]
    tuned = training.finetune(
        encoder,
        theta,
        head,
        images,
        labels,
        objective,
        steps=steps,
        batch=1,
        lr=lr,
        seed=seed,
        **how,
    )
    return tuned if pruned is None else prune(tuned, pruned, share)
