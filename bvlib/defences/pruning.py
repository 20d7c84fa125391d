"""Fine-Pruning: units that clean images leave dormant are removed, then the model is tuned (Liu et
al. 2018)."""

import re
from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

from bvlib.core import training
from bvlib.core.encoder import Model, StateDict
from bvlib.core.errors import BvError
from bvlib.defences.registry import Part


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
    names = [name for name, _ in visual.named_modules()]
    mlps = [name for name in names if re.fullmatch(r".*resblocks\.\d+\.mlp", name)][-blocks:]
    if not mlps:
        raise BvError("fine-pruning knows the MLPs of an open_clip ViT only: this encoder has none")

    def add(name, value):
        sums[name] = sums.get(name, 0) + value.flatten(0, -2).double().sum(0)

    with ExitStack() as stack:
        for name in mlps:
            unit = visual.get_submodule(f"{name}.gelu")
            hook = unit.register_forward_hook(lambda m, x, out, name=name: add(name, out))
            stack.callback(hook.remove)
        for part in images.split(batch):
            encoder.features(theta, encoder.pixels(part), visual)
    return {name: total / len(images) for name, total in sums.items()}


def prune(model: Model, active: Mapping[str, Tensor], share: float) -> Model:
    """The model without the ``share`` (0 to 1) of hidden units that are least active on clean
    images, ranked together (Fine-Pruning).

    A unit is removed by zeroing its column of ``c_proj``. Share 0 changes nothing.
    """
    return Model(model.encoder, _pruned(model.theta, active, share))


def _pruned(theta: StateDict, active: Mapping[str, Tensor], share: float) -> StateDict:
    if not 0 <= share <= 1:
        raise BvError(f"the share to prune is a number from 0 to 1, not {share!r}")
    ranked = torch.cat(list(active.values()))
    dormant = torch.zeros(len(ranked), dtype=torch.bool, device=ranked.device)
    dormant[ranked.argsort(stable=True)[: round(share * len(ranked))]] = True
    pruned, out = dormant.split([len(units) for units in active.values()]), dict(theta)
    for name, units in zip(active, pruned):
        key = f"{name}.c_proj.weight"
        out[key] = theta[key].masked_fill(units.to(theta[key].device), 0)
    return out


def tune(
    model: Model,
    parts: Mapping[str, Part],
    *,
    pruned: Mapping[str, Tensor] | None = None,
    share: float = 0.0,
    seed: int = 0,
    steps: int = 60,
    batch: int = 96,
    lr: float = 1e-4,
    **how,
) -> Model:
    """The model fine-tuned on clean labelled images of all tasks, in every step as many of each;
    units that were pruned stay so.

    The second half of Fine-Pruning (with ``pruned``, the activity that :func:`prune` ranked by),
    or, without, the plain baseline of clean fine-tuning. ``how`` goes to ``training.finetune``.
    """
    each, (first, (images, labels, head)) = max(1, batch // len(parts)), next(iter(parts.items()))
    one = model.sight(first)

    def objective(step: training.Step) -> Tensor:
        live = step.theta if pruned is None else _pruned(step.theta, pruned, share)
        drawn = []
        for images, labels, head in parts.values():
            now = torch.randint(len(labels), (each,), generator=step.rng)
            drawn.append((one.pixels(images[now]), labels[now], head))
        pixels, labels, heads = zip(*drawn)
        told = zip(seen(live, list(pixels)), labels, heads)
        losses = [step.loss(f, each.to(f.device), head) for f, each, head in told]
        return torch.stack(losses).mean()

    def seen(live: StateDict, pixels: list[Tensor]) -> list[Tensor]:
        if isinstance(model.encoder, Mapping):  # an adapter a task
            return [model.sight(name).features(live, x) for name, x in zip(parts, pixels)]
        return list(one.features(live, torch.cat(pixels)).split(each))

    how |= {"steps": steps, "batch": 1, "lr": lr, "seed": seed}
    tuned = training.finetune(one, model.theta, head, images, labels, objective, **how)
    return Model(model.encoder, tuned if pruned is None else _pruned(tuned, pruned, share))
