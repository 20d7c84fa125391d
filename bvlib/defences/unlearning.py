"""Defences beside IBVS that change the merged model, or the merge: TBAR, LFPM, DAM.

The first two give a vector, which :func:`bvlib.defences.ibvs.ibvs` subtracts (TBAR) or adds (LFPM),
scaled by the rule for λ; DAM is a merge of its own. Pure functions of state dicts; what is random
follows from ``seed``. None of the three papers' full texts were at hand, and no code of LFPM: what
is ours is said in each docstring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bvlib.attacks.triggers import Trigger
from bvlib.core import training
from bvlib.core.encoder import Model
from bvlib.core.errors import BvError
from bvlib.core.rng import derive, generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging.adamerging import answers, batches_of, entropy
from bvlib.merging.registry import Seen, check, check_seen

# TBAR


def trigger_vector(
    encoder,
    theta: StateDict,
    head: Tensor,
    images: Tensor,
    trigger,
    target: int,
    *,
    steps: int = 20,
    batch: int = 32,
    lr: float = 1e-4,
    seed: int = 0,
) -> TaskVector:
    """What a few steps on triggered images add to θ: τ_trig = θ_trig − θ (TBAR, arXiv 2510.14845,
    with the trigger known); θ − λ·τ_trig is the defended model. Each step lowers CE(h(f(x ⊕ δ)), c)
    on the whole batch, whatever the images show.

    ``images`` (N, H, W, 3) uint8 need no labels; ``head`` (K, D) and the class ``target`` are
    those of the attacked task. Trigger and target are the attacker's, so a defence made of it is
    an oracle. AdamW without weight decay, whose shrinking of θ would be part of the vector. Where
    the backdoor is sure of itself the loss is near 0 and τ_trig weak; it may then be taken at the
    base, as ``theta``. Raises BvError for what `finetune` refuses.
    """

    def objective(step: training.Step) -> Tensor:
        f = step.encoder.features(step.theta, trigger.paste(step.pixels))
        return step.loss(f, step.labels)

    labels = torch.full((len(images),), target)
    how = {"steps": steps, "batch": batch, "lr": lr, "weight_decay": 0.0}
    how["seed"] = derive(seed, "tbar")
    tuned = training.finetune(encoder, theta, head, images, labels, objective, **how)
    return TaskVector.between(tuned, theta, "trigger vector")


# LFPM


def restored(trigger: Trigger, keep: float, prompt_steps: int) -> training.Objective:
    """L = ‖f_{θ+sφ}(x ⊕ π) − f_θ(x)‖² + keep·‖f_{θ+sφ}(x) − f_θ(x)‖², s ~ U(0, 1], on features of
    length one.

    θ is where the training starts, θ + φ where it is. The prompt π starts as the trigger's patch;
    before each step it climbs ``prompt_steps`` signed steps of 0.1 up the first term at θ + φ,
    inside [0, 1], and goes on from there.
    """

    def objective(step: training.Step) -> Tensor:
        x, n = step.pixels, len(step.pixels)

        def gap(theta: StateDict, pixels: Tensor, goal: Tensor) -> Tensor:
            seen = F.normalize(step.encoder.features(theta, pixels), dim=-1)
            return (seen - goal).square().sum(-1)

        def prompted(patch: Tensor) -> Tensor:
            return replace(trigger, patch=patch).paste(x)

        with torch.no_grad():
            goal = F.normalize(step.encoder.features(step.start, x), dim=-1)
        now = {k: v.detach() for k, v in step.theta.items()}
        patch = step.memory.get("prompt", trigger.patch.to(x))
        for _ in range(prompt_steps):
            patch = patch.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(gap(now, prompted(patch), goal).sum(), patch)
            patch = (patch.detach() + 0.1 * slope.sign()).clamp(0, 1)
        step.memory["prompt"] = patch
        s = 1 - torch.rand((), generator=step.rng).item()
        theta = {
            k: torch.lerp(step.start[k], v, s) if v.is_floating_point() else v
            for k, v in step.theta.items()
        }
        far = gap(theta, torch.cat([prompted(patch), x]), torch.cat([goal, goal]))
        return far[:n].mean() + keep * far[n:].mean()

    return objective


def anti_backdoor_vector(
    encoder,
    theta: StateDict,
    seen: Mapping[str, Seen],
    trigger: Trigger,
    *,
    steps: int = 30,
    batch: int = 32,
    lr: float = 1e-4,
    keep: float = 1.0,
    prompt_steps: int = 3,
    seed: int = 0,
) -> TaskVector:
    """The φ that lets the merge θ see an image with a trigger as it saw the image without: θ + λ·φ
    is the defended model.

    Our reading of the public description of LFPM (arXiv 2606.12498), whose equations we have not
    seen: an anti-backdoor task vector, learnt on features rather than weights, against a learnable
    visual prompt, with the loss integrated along the path θ + sφ (here by one random s a step).
    Left out: the split of the feature space into an adversarial and a clean part, and the
    accumulation of gradients. The objective is `restored`; AdamW without weight decay.

    ``seen`` are clean dev images of the tasks, without labels. ``trigger`` is the defender's own,
    never the attacker's: its mask and place hold, its patch is where the prompt starts
    (``prompt_steps`` 0 keeps it as it is). Raises BvError for images and weights that do not fit,
    test images, a trigger that is not a patch, and as `finetune`.
    """
    if not seen:
        mend = "give seen[task] = see(encoder, task) of the merged tasks"
        raise BvError(f"there are no images to learn from: {mend}")
    check_seen(list(seen), encoder, theta, seen)
    if not isinstance(trigger, Trigger):
        kind = type(trigger).__name__
        raise BvError(f"the defender's trigger must be a patch, a Trigger, not a {kind}")
    images = torch.cat([part.images for part in seen.values()])
    head, unused = next(iter(seen.values())).head, torch.zeros(len(images), dtype=torch.int64)
    objective = restored(trigger, keep, prompt_steps)
    how = {"steps": steps, "batch": batch, "lr": lr, "weight_decay": 0.0}
    how["seed"] = derive(seed, "lfpm")
    tuned = training.finetune(encoder, theta, head, images, unused, objective, **how)
    return TaskVector.between(tuned, theta, "anti-backdoor vector")


# DAM


def dam(
    vectors: Mapping[str, TaskVector],
    *,
    encoder,
    base: StateDict,
    seen: Mapping[str, Seen],
    init: float = 0.3,
    steps: int = 30,
    batch: int = 8,
    lr: float = 0.05,
    coefficient_lr: float = 0.003,
    safety: float = 0.1,
    eps: float = 8 / 255,
    seed: int = 0,
) -> Model:
    """Defence-aware merging: θ = θ_0 + Σ λ_t·(M ⊙ τ_t) with a mask M that all tasks share.

    Our reading of the public description of DAM (arXiv 2410.13910) and of its released algorithm,
    "DAM-style" at most. Each step draws M from a relaxed Bernoulli (temperature 0.5, divided by
    its mean in each tensor) of one logit a weight, takes ``batch`` unlabelled images a task, moves
    a perturbation δ_t of each task (noise at first) up the second term below by a signed step of
    eps/4, and then lowers, over logits (Adam, ``lr``) and λ (Adam, ``coefficient_lr``, kept in [0,
    1]),

        mean over tasks of H(p(x)) + safety·KL(p(x) ‖ p(x + δ_t)).

    Ours: the KL, for the released entropy of p(x + δ); δ within ``eps`` in [0, 1] pixels; λ by
    task and learnt beside M, not after it; the mean mask at the end, not a sample; dev images, not
    test; on toy bases tens of steps of 0.05, where the released ones for CLIP are 1000 of 0.001.
    Zero steps give θ_0 + init·Σ τ_t. The λ alone is AdaMerging: compare with it. Raises the
    BvErrors of `merge`.
    """
    check(vectors, encoder, base, seen)
    least = (steps, coefficient_lr, safety, eps)
    if not (min(least) >= 0 and batch >= 1 and lr > 0):
        wanted = "steps, coefficient_lr, safety, eps >= 0, batch >= 1, lr > 0"
        given = ", ".join(map(repr, (*least, batch, lr)))
        raise BvError(f"dam wants {wanted}: not {given}")
    rng, keys = generator(seed, "dam"), list(next(iter(vectors.values())).tensors)
    stacks = {key: torch.stack([v.tensors[key] for v in vectors.values()]) for key in keys}
    logits = {key: torch.zeros_like(base[key]).requires_grad_(True) for key in keys}
    coefficients = base[keys[0]].new_full((len(vectors),), float(init)).requires_grad_(True)
    moved = (list(logits.values()), lr), ([coefficients], coefficient_lr)
    optimizer = torch.optim.Adam([{"params": each, "lr": rate} for each, rate in moved])
    queues = batches_of(seen, vectors, batch, seed, "dam")
    heads, deltas = [seen[name].head for name in vectors], []
    for name in vectors:
        x = encoder.pixels(seen[name].images[:1])
        deltas.append(eps * (2 * torch.rand(x.shape, generator=rng) - 1).to(x))

    def merged(mask: StateDict) -> StateDict:
        return dict(base) | {
            key: base[key] + m / m.mean() * torch.tensordot(coefficients, stacks[key], 1)
            for key, m in mask.items()
        }

    def unsafe(theta: StateDict, deltas: Sequence[Tensor]) -> Tensor:
        moved = [(x + delta).clamp(0, 1) for x, delta in zip(pixels, deltas, strict=True)]
        pairs = zip(answers(encoder, theta, moved, heads), clean, strict=True)
        how = {"log_target": True, "reduction": "batchmean"}
        return torch.stack([F.kl_div(q, p.detach(), **how) for q, p in pairs]).mean()

    for _ in range(steps):
        mask = {}
        for key, value in logits.items():
            noise = torch.rand(value.shape, generator=rng).logit(eps=1e-6).to(value)
            mask[key] = ((value + noise) / 0.5).sigmoid()
        theta = merged(mask)
        pixels = [encoder.pixels(seen[name].images[next(q)]) for name, q in queues.items()]
        clean = answers(encoder, theta, pixels, heads)
        deltas = [delta.requires_grad_(True) for delta in deltas]
        frozen = {key: value.detach() for key, value in theta.items()}
        slopes = torch.autograd.grad(unsafe(frozen, deltas), deltas)
        steps_up = zip(deltas, slopes, strict=True)
        deltas = [(d.detach() + eps / 4 * up.sign()).clamp(-eps, eps) for d, up in steps_up]
        loss = entropy(clean) + safety * unsafe(theta, deltas)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            coefficients.clamp_(0, 1)
    with torch.no_grad():
        return Model(encoder, merged({key: value.sigmoid() for key, value in logits.items()}))
