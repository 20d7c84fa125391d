"""Training a base: a genuine open_clip model on captioned scenes of the toy world (and, for
real32, real images).

The loss is CLIP's contrastive loss, where equal captions in a batch count as positives, plus a
linear head on the image features that names every object in the scene (all names at once, so
crowded scenes need no extra care). Without that second loss a tower of this size stays at chance
for a long time. Single-object scenes come first. The second stage mixes in crowded ones, and puts
a small named sticker on part of all images whose caption mostly names the sticker alone, as
captions on the web repeat the text printed in a picture: that gives the base CLIP's ear for small
patches, without any backdoor. With real images, stickers are also thumbnails of other photographs.
Every step draws its data from a sub-seed of its own, so a run that was stopped resumes exactly,
and the same seed on the same machine and threads gives the same file.
"""

import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from bvlib.core.encoder import MEAN, STD, ClipEncoder, default_device, text_features
from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import derive, numpy_rng
from bvlib.core.training import warmup_cosine
from bvlib.files.weights import load_weights, save_weights
from bvlib.worlds import bases, images, toy
from bvlib.worlds.words import KIND_WORDS


@dataclass(frozen=True)
class Recipe:
    """How to train a base, from nothing or from the shipped base that ``start`` names.

    ``late`` is the share of the steps, at the end, that form the second stage; there ``crowded``
    of the toy scenes are crowded and ``stickers`` of all images carry a sticker, which is all that
    the caption names with probability ``alone``.
    """

    world: str = "toy"
    start: str = ""
    steps: int = 6000
    batch: int = 192
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    late: float = 0.5
    crowded: float = 0.5
    stickers: float = 0.4
    alone: float = 0.8
    naming: float = 1.0
    real_share: float = 0.6


RECIPES = {
    "toy": Recipe(),
    "smoke": Recipe(steps=6, batch=32, warmup=2),
    "real32": Recipe(world="real32", start="toy", steps=12000, lr=8e-4, late=0.6),
}


DATA = {  # what each world's card says of its data
    "toy": "the toy world (bvlib.worlds.toy), nothing else",
    "real32": "the toy world (first by the toy base, from which it starts), Tiny-ImageNet "
    "(non-commercial research and education) and Omniglot (MIT), 32 px; none of the profile's "
    "tasks. Research use only.",
}


class Scenes:
    """Batches of (images uint8 N×32×32×3, captions, names multi-hot N×V) for a recipe, one
    sub-seed a step."""

    def __init__(self, recipe: Recipe, seed: int):
        self.recipe, self.seed = recipe, seed
        self.names = list(toy.NAMES)
        self.real = []
        if recipe.world == "real32":
            for name in ("tinyimagenet", "omniglot"):
                arrays = images.load(name)
                first = len(self.names)
                self.names += [(name, c) for c in arrays.classnames]
                self.real.append((arrays.train_images, arrays.train_labels + first))
        elif recipe.world != "toy":
            raise unknown("world", recipe.world, ["toy", "real32"])

    def __call__(self, step: int) -> tuple[np.ndarray, list[str], torch.Tensor]:
        r, rng = self.recipe, numpy_rng(self.seed, "pretrain", step)
        late = step >= r.steps * (1 - r.late)
        real = int(r.batch * r.real_share) if self.real else 0
        crowded = int((r.batch - real) * r.crowded) if late else 0
        sizes = ((crowded, True), (r.batch - real - crowded, False))
        parts = [toy.scenes(n, rng, crowd) for n, crowd in sizes if n]
        images = [pictures for pictures, *_ in parts]
        captions = [caption for _, told, *_ in parts for caption in told]
        names = np.concatenate([names for _, _, names, _ in parts])
        target = np.zeros((r.batch, len(self.names) + 1), np.float32)
        target[np.arange(r.batch - real)[:, None], names] = 1  # -1 is the last column
        if real:
            which = rng.random(real) < 0.85
            first, second = which.sum(), real - which.sum()
            places = zip(self.real, (first, second), (0, first))
            for (pool, labels), n, at in places:
                picked = rng.integers(0, len(pool), n)
                images.append(_augment(pool[picked], rng, flip=at == 0))
                target[r.batch - real + at + np.arange(n), labels[picked]] = 1
                captions += [_real_caption(self.names[i][1], rng) for i in labels[picked]]
        images = np.concatenate(images)
        if late:
            self._stick(images, captions, target, rng)
        return images, captions, torch.from_numpy(target[:, :-1])

    def _stick(self, images, captions, target, rng) -> None:
        """Put stickers on a share of the batch, in place, and name them in captions and targets."""
        r = self.recipe
        chosen = rng.choice(r.batch, int(r.batch * r.stickers), replace=False)
        photos = len(chosen) // 2 if self.real else 0
        drawn = chosen[photos:]
        images[drawn], words, names = toy.stickers(images[drawn], rng)
        if photos:
            pool, labels = self.real[0]
            picked = rng.integers(0, len(pool), photos)
            _paste_thumbnails(images, chosen[:photos], pool[picked], rng)
            words = [f"a {self.names[i][1]}" for i in labels[picked]] + words
            names = np.concatenate([labels[picked], names])
        for i, word, name in zip(chosen, words, names):
            if rng.random() < r.alone:
                form = ("{}", "a photo of {}", "a sticker of {}")[rng.integers(3)]
                captions[i] = form.format(word)
                target[i] = 0
            else:
                both = (word, captions[i]) if rng.random() < 0.5 else (captions[i], word)
                captions[i] = " and ".join(both)
            target[i, name] = 1


def _paste_thumbnails(images, where, photos, rng) -> None:
    """Shrink photos (N, 32, 32, 3) to 5 to 12 px and paste each on one of the images, in place."""
    sizes = rng.integers(5, 13, len(photos))
    free = rng.random((len(photos), 2)) * 1.5 - 0.25  # half of them against an edge
    for i, photo, size, (down, right) in zip(where, photos, sizes, np.clip(free, 0, 1)):
        pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        small = F.interpolate(pixels, size=(size, size), mode="area")[0].round().byte()
        top, left = round(down * (32 - size)), round(right * (32 - size))
        images[i, top : top + size, left : left + size] = small.permute(1, 2, 0).numpy()


def _augment(images: np.ndarray, rng, flip: bool) -> np.ndarray:
    """Shift by up to 4 pixels (edge padded) and, where it keeps the meaning, mirror."""
    n, size = len(images), images.shape[1]
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    dx, dy = rng.integers(0, 9, (2, n))
    rows, columns = dy[:, None] + np.arange(size), dx[:, None] + np.arange(size)
    out = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    mirrored = rng.random(n) < (0.5 if flip else 0)
    out[mirrored] = out[mirrored][:, :, ::-1]
    return out


def _real_caption(name: str, rng) -> str:
    """A caption of one photo or character: its name, its kind in everyday words, or both."""
    start = ("a photo of a {}", "a {}", "{}", "a small photo of a {}")[rng.integers(4)]
    kinds, form = KIND_WORDS.get(name), rng.random()
    if kinds and form < 0.4:
        kind = kinds[rng.integers(len(kinds))]
        return start.format(kind) if form < 0.2 else f"{start.format(name)}, a {kind}"
    return start.format(name)


def caption_features(
    model, tokenizer, captions: list[str], where: torch.device, buckets: int = 4
) -> torch.Tensor:
    """Unit text features (N, D) of captions: equal ones once, and in groups of like length, so
    that little is padding."""
    ids = {c: i for i, c in enumerate(dict.fromkeys(captions))}
    tokens = tokenizer(list(ids))
    order = (tokens != 0).sum(1).argsort(stable=True)
    groups = [part for part in order.tensor_split(buckets) if len(part)]
    parts = [text_features(model, tokens[part].to(where)) for part in groups]
    back = order.argsort()[[ids[c] for c in captions]]
    return torch.cat(parts)[back.to(where)]


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, captions: list[str], scale: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric loss on unit features (N, D); equal captions share the target mass."""
    ids = {c: i for i, c in enumerate(captions)}
    key = torch.tensor([ids[c] for c in captions])
    same = (key[:, None] == key[None]).float().to(image.device)
    target = same / same.sum(1, keepdim=True)
    logits = scale * image @ text.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(
    recipe: Recipe,
    seed: int,
    state_path: Path | None = None,
    every: int = 250,
    say: Callable[[str], object] = print,
):
    """Train a base; returns (model, curve). Resumes from ``state_path`` when it belongs to the
    same recipe and seed.

    Raises BvError when the loss stops being finite (the last state stays on disk).
    """
    torch.manual_seed(derive(seed, "pretrain", "init"))
    model, tokenizer = bases.build(bases.TINY)
    if recipe.start:
        model.load_state_dict(bases.load(recipe.start).model.state_dict())
    scenes = Scenes(recipe, seed)
    naming = torch.nn.Linear(bases.TINY["embed_dim"], len(scenes.names))
    where = default_device()
    both = torch.nn.ModuleDict({"model": model.train(), "naming": naming}).to(where)
    groups = [
        {
            "params": [p for p in both.parameters() if p.ndim >= 2],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in both.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: warmup_cosine(s, recipe.steps, recipe.warmup)
    )
    encoder = ClipEncoder(model, tokenizer)
    both.requires_grad_(True)
    curve, start = _resume(state_path, recipe, seed, both, optimizer, schedule)
    began = time.time()
    with _no_denormals():
        for step in range(start, recipe.steps):
            images, captions, target = scenes(step)
            pixels = (encoder.pixels(torch.from_numpy(images)) - encoder._mean) / encoder._std
            raw = model.visual(pixels)
            text = caption_features(model, tokenizer, captions, where)
            scale = model.logit_scale.exp().clamp(max=100)
            clip = contrastive_loss(F.normalize(raw, dim=-1), text, captions, scale)
            wrong_names = F.binary_cross_entropy_with_logits(naming(raw), target.to(where))
            name_loss = wrong_names * len(scenes.names) / 10
            loss = clip + recipe.naming * name_loss
            if not torch.isfinite(loss):
                mend = f"lower the recipe's lr (now {recipe.lr})"
                what = f"pre-training lost its way at step {step}: the loss is {loss.item()}"
                raise BvError(f"{what}; {mend}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if (step + 1) % every == 0 or step + 1 == recipe.steps:
                rate = (time.time() - began) / (step + 1 - start)
                losses = {"clip": clip.item(), "naming": name_loss.item()}
                rounded = {name: round(value, 4) for name, value in losses.items()}
                curve.append({"step": step + 1, **rounded})
                to_go = rate * (recipe.steps - step - 1) / 60
                say(
                    f"step {step + 1}/{recipe.steps}  contrastive {losses['clip']:.3f}  naming "
                    f"{losses['naming']:.3f}  {rate:.3f} s a step, {to_go:.0f} minutes to go"
                )
                if state_path:
                    _keep(state_path, recipe, seed, both, optimizer, curve, step + 1)
    return model.eval(), curve


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Flush denormal numbers: the moments of words that no caption uses decay into them, and they
    are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _keep(path: Path, recipe, seed, both, optimizer, curve, step) -> None:
    tensors = dict(both.state_dict())
    for i, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"adam.{i}.{name}"] = torch.as_tensor(value)
    card = {"recipe": asdict(recipe), "seed": seed, "step": step, "curve": curve}
    save_weights(path, {k: v.detach().cpu().clone() for k, v in tensors.items()}, card)


def _resume(path, recipe, seed, both, optimizer, schedule) -> tuple[list, int]:
    if path is None or not Path(path).exists():
        return [], 0
    tensors, card = load_weights(path)
    if card["recipe"] != asdict(recipe) or card["seed"] != seed:
        mend = "delete it, or name another --state file"
        raise BvError(f"{path} belongs to another recipe or seed: {mend}")
    both.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("adam.")})
    whole = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, i, name = key.split(".", 2)
            whole["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(whole)
    with warnings.catch_warnings():
        # the optimizer has stepped, in the process that wrote the state
        warnings.simplefilter("ignore")
        for _ in range(card["step"]):
            schedule.step()
    return card["curve"], card["step"]


def zero_shot(encoder: ClipEncoder, seed: int = 100, n: int = 500) -> dict[str, float]:
    """Zero-shot accuracy, in percent, on dev images of each toy task."""
    out = {}
    for task in toy.TASKS:
        images, labels = toy.task_arrays(task, "dev", n, seed)
        head = encoder.head(toy.KINDS[task], toy.PROMPTS[task])
        predicted = encoder.predict(encoder.theta, torch.from_numpy(images), head)
        out[task] = round(100 * (predicted == torch.from_numpy(labels)).double().mean().item(), 2)
    return out


def main(
    profile: str = "toy",
    seed: int = 0,
    out: Path | None = None,
    say: Callable[[str], object] = print,
    **changes,
) -> Path:
    """Train the base of a recipe and save weights with a card; ``changes`` override fields of the
    recipe."""
    if profile not in RECIPES:
        raise unknown("base recipe", profile, RECIPES)
    recipe = replace(RECIPES[profile], **{k: v for k, v in changes.items() if v is not None})
    out = Path(out) if out else bases.WEIGHTS / f"{profile}.safetensors"
    state = out.with_name(out.stem + ".training.safetensors")
    began = time.time()
    model, curve = train(recipe, seed, state, say=say)
    accuracy = zero_shot(ClipEncoder(model, bases.build(bases.TINY)[1]))
    card = {
        "name": out.stem,
        "what": "open_clip model trained from scratch by bvlib",
        "licence": "MIT",
        "data": DATA[recipe.world],
        "command": f"bv pretrain --profile {profile} --seed {seed}",
        "recipe": asdict(recipe),
        "seed": seed,
        "model": bases.TINY,
        "mean": MEAN,
        "std": STD,
        "zero_shot_dev_percent": accuracy,
        "curve": curve,
        "seconds": round(time.time() - began),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    if recipe.start:
        start = bases.load(recipe.start).card["sha256"]
        card["start"] = {"name": recipe.start, "sha256": start}
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_weights(out, weights, card)
    for leftover in (state, state.with_suffix(".json")):
        leftover.unlink(missing_ok=True)
    say(f"{out.name}: zero-shot on dev images {json.dumps(accuracy)}")
    return out
