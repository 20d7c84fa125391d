"""The training of a base: losses, steps, a state to go on from, a curve.

The loss is CLIP's contrastive loss, where equal captions in a batch count as positives, plus a
linear head on the image features that names what is in the picture. Without that second loss a
tower of this size stays at chance for a long time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional as F

from bvlib.core.device import default_device
from bvlib.core.encoder import MEAN, STD, Encoder
from bvlib.core.errors import BvError
from bvlib.core.rng import derive
from bvlib.core.tower import lean
from bvlib.core.training import warmup_cosine
from bvlib.files.weights import load_weights, save_weights
from bvlib.worlds import bases, toy
from bvmake.pretrain import captions
from bvmake.pretrain.batches import Batch, Batches
from bvmake.pretrain.pictures import Pictures, read
from bvmake.pretrain.recipe import Recipe

Say = Callable[[str], Any]
SHOWN = 20  # points of the curve
HELD_PROMPTS = ("a photo of a {}", "a {}")


def contrastive_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """CLIP's symmetric loss on logits (B, B), images by texts; equal captions share the target, and
    a mixed image has two captions."""
    _, which = batch.tokens.unique(dim=0, return_inverse=True)
    same = (which[:, None] == which[None]).float()
    share = batch.share[:, None]
    target = share * same + (1 - share) * same[batch.partner]
    of_images, of_texts = target / target.sum(1, keepdim=True), (target / target.sum(0)).T
    forth = (of_images * logits.log_softmax(1)).sum(1).mean()
    back = (of_texts * logits.T.log_softmax(1)).sum(1).mean()
    return -(forth + back) / 2


def naming_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of logits (B, V) with the names of what is in each picture."""
    share = batch.share[:, None]
    names = share * batch.names + (1 - share) * batch.names[batch.partner]
    return -(names * logits.log_softmax(1)).sum(1).mean()


class Trainer:
    """A model in training: ``step(batch, at)`` moves it once."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        names: int,
        device: torch.device,
        start: Encoder | None = None,
    ) -> None:
        torch.manual_seed(derive(seed, "pretrain", "init"))
        self.recipe = recipe
        self.model, self.tokenizer = bases.build(recipe.config)
        if start:
            self.model.load_state_dict(start.model.state_dict())
        naming = torch.nn.Linear(recipe.config["embed_dim"], names)
        both = torch.nn.ModuleDict({"model": self.model.train(), "naming": naming})
        self.device = device
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
        self.both = both.to(device).requires_grad_(True)
        self.naming, self.visual = naming, lean(self.model.visual)
        decayed = [p for p in both.parameters() if p.ndim >= 2]
        others = [p for p in both.parameters() if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The contrastive and the naming loss of a batch."""
        weights = dict(self.model.visual.named_parameters())
        weights |= dict(self.model.visual.named_buffers())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            pixels = (batch.x - self.mean) / self.std
            raw = functional_call(self.visual, weights, (pixels,))
            text = captions.features(self.model, batch.tokens)
        raw = raw.float()
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * F.normalize(raw, dim=-1) @ text.float().T
        return contrastive_loss(logits, batch), naming_loss(self.naming(raw), batch)

    def step(self, batch: Batch, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Move the weights once, at the learning rate of step ``at``; both losses."""
        recipe = self.recipe
        warm = max(1, round(recipe.warmup * recipe.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * warmup_cosine(at, recipe.steps, warm)
        clip, naming = self.losses(batch)
        self.optimizer.zero_grad()
        (clip + recipe.naming * naming).backward()
        torch.nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        self.optimizer.step()
        return clip.detach(), naming.detach()

    def keep(self, path: Path, card: dict[str, Any]) -> None:
        """Write all that the next step needs."""
        tensors = dict(self.both.state_dict())
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": torch.as_tensor(v) for name, v in state.items()}
        save_weights(path, {k: v.detach().cpu().clone() for k, v in tensors.items()}, card)

    def resume(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what :meth:`keep` wrote."""
        own = {k: v for k, v in tensors.items() if not k.startswith("adam.")}
        self.both.load_state_dict(own)
        whole = self.optimizer.state_dict()
        for key in tensors.keys() - own.keys():
            _, i, name = key.split(".", 2)
            whole["state"].setdefault(int(i), {})[name] = tensors[key]
        self.optimizer.load_state_dict(whole)


def _start(recipe: Recipe) -> Encoder | None:
    """The base that a recipe goes on from. BvError where its towers are not the recipe's."""
    if recipe.start is None:
        return None
    base = bases.load(recipe.start)
    if base.card["model"] != recipe.config:
        mend = "give the recipe the `model` of that base's card"
        raise BvError(f"base {base.name!r} has towers of another size than the recipe: {mend}")
    return base


def train(
    recipe: Recipe, seed: int, state: Path | None = None, say: Say = print, every: int | None = None
) -> tuple[Encoder, dict[str, Any]]:
    """Train a base: its encoder, and for the card the curve, the sets' hashes, images a second and
    seconds. Resumes from the file ``state`` when it belongs to the same recipe and seed.

    MissingData for a set of pictures that is not there; BvError for a state of another training,
    for a base to start from that is unknown or of another size, and when the loss stops being
    finite (the last state stays on disk).
    """
    card: dict[str, Any] = {"recipe": asdict(recipe), "seed": seed, "step": 0, "curve": []}
    card["recipe"]["start"] = recipe.start and Path(recipe.start).stem  # no path of this machine
    card["seconds"], tensors = 0.0, None
    if state and state.exists():
        tensors, found = load_weights(state)
        if (found["recipe"], found["seed"]) != (card["recipe"], seed):
            mend = "delete it, or name another --out file"
            raise BvError(f"{state} belongs to another recipe or seed: {mend}")
        card = found
    device = default_device()
    sets = [read(name) for name in recipe.sets]
    card["sets"] = {each.name: each.sha256 for each in sets}
    if start := _start(recipe):
        card["start"] = {"name": start.name, "sha256": start.card["sha256"]}
    say(f"drawing {2 * recipe.pool} scenes and {recipe.pool // 2} stickers")
    tokenizer = bases.build(recipe.config)[1]
    batches = Batches(recipe, seed, tokenizer, sets, device)
    trainer = Trainer(recipe, seed, len(batches.names), device, start)
    if tensors:
        trainer.resume(tensors)
    every = every or max(1, recipe.steps // SHOWN)
    begin, estimated = time.perf_counter(), False
    first, before = card["step"], card["seconds"]
    with _no_denormals():
        for step in range(first, recipe.steps):
            clip, naming = trainer.step(batches(step), step)
            spent = time.perf_counter() - begin
            if not estimated and (step - first >= 5 or spent > 20):
                estimated = True
                _estimate(recipe, trainer, step + 1 - first, spent, step, say)
            if (step + 1) % every and step + 1 < recipe.steps:
                continue
            losses = {"clip": round(clip.item(), 4), "naming": round(naming.item(), 4)}
            if not all(map(torch.isfinite, (clip, naming))):
                what = f"pre-training lost its way before step {step + 1}: the loss is not finite"
                raise BvError(f"{what}; lower the recipe's lr (now {recipe.lr})")
            point = {"step": step + 1, **losses, **held_out(trainer, sets)}
            card["curve"].append(point)
            spent = time.perf_counter() - begin
            card |= {"step": step + 1, "seconds": round(before + spent, 1)}
            card["images_per_second"] = round(recipe.batch * (step + 1) / card["seconds"], 1)
            left = spent / (step + 1 - first) * (recipe.steps - step - 1) / 60
            shown = "  ".join(f"{name} {value}" for name, value in list(point.items())[1:])
            say(f"step {step + 1}/{recipe.steps}  {shown}  {left:.0f} minutes to go")
            if state:
                trainer.keep(state, card)
    return Encoder(trainer.model, trainer.tokenizer), card


def _estimate(
    recipe: Recipe, trainer: Trainer, steps: int, spent: float, at: int, say: Say
) -> None:
    """Say how fast it is, beside the image tower alone, and how long it will take."""
    rate = recipe.batch * steps / spent
    x = torch.rand(recipe.batch, 3, 32, 32, device=trainer.device)
    tower = trainer.model.visual
    begin = time.perf_counter()
    for _ in range(2):
        torch.autograd.grad(tower(x).square().sum(), list(tower.parameters()))[0].sum().item()
    limit = 2 * recipe.batch / (time.perf_counter() - begin)
    left = (recipe.steps - at - 1) * recipe.batch / rate / 60
    say(f"{rate:.0f} images/s ({limit:.0f} by the tower alone): {left:.0f} minutes to go")


@torch.no_grad()
def held_out(trainer: Trainer, sets: list[Pictures], count: int = 100) -> dict[str, float]:
    """Zero-shot accuracy in percent on ``count`` dev images of each toy task (their mean), and on
    up to 10 × ``count`` held-out pictures of all sets, each among the names of its set."""
    encoder = Encoder(trainer.model, trainer.tokenizer)  # a new one: it keeps what it has named
    shares = list(zero_shot(encoder, count=count).values())
    found = {"toy": round(sum(shares) / len(shares), 2)}
    right = []
    for each in sets:
        images, labels = (part[: 10 * count // len(sets)] for part in each.held)
        if len(labels):
            right.append(_right(encoder, images, labels, each.classnames, HELD_PROMPTS))
    if right:
        found["held_out"] = round(100 * torch.cat(right).double().mean().item(), 2)
    trainer.model.train().requires_grad_(True)
    return found


def zero_shot(encoder: Encoder, seed: int = 100, count: int = 500) -> dict[str, float]:
    """Zero-shot accuracy, in percent, on dev images of each toy task."""
    out = {}
    for task in toy.TASKS:
        shown = toy.task_arrays(task, "dev", count, seed)
        right = _right(encoder, *shown, toy.KINDS[task], toy.PROMPTS[task])
        out[task] = round(100 * right.double().mean().item(), 2)
    return out


def _right(encoder: Encoder, images, labels, classnames, prompts) -> torch.Tensor:
    """Which of the images (N, 32, 32, 3) are taken for what they are, (N,)."""
    head = encoder.head(classnames, prompts)
    return encoder.predict(encoder.theta, torch.from_numpy(images), head) == torch.from_numpy(
        labels
    )


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Flush denormal numbers: the moments of words that no caption uses decay into them, and they
    are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
