"""What a base sees at each step: pictures, their captions, and the names of what is in them.

All of it lies on the device; a batch is put together there. Every step draws from a sub-seed of its
own, so a training that was stopped resumes exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bvlib.core.rng import derive
from bvlib.worlds import toy
from bvmake.pretrain import augment, captions
from bvmake.pretrain.augment import Dice
from bvmake.pretrain.pictures import VARIANTS, Pictures, captions_of, named
from bvmake.pretrain.pools import Pool, as_planes
from bvmake.pretrain.recipe import Recipe

CROWDED = (0.15, 0.5)  # of the scenes, in the first stage and in the second
STICKERS = (4, 5, 6, 7, 8, 9, 10, 11)  # px
HOLES = (3, 4, 5, 6, 7, 8, 9, 10)
TURNS = {"photo": 0.1, "drawing": 0.1, "character": 0.17, "scene": 0.0}  # radians, at most


@dataclass
class Batch:
    """``x`` (B, 3, 32, 32) in [0, 1], ``tokens`` (B, 32), ``names`` (B, V) whose rows sum to 1 or
    0. Row i is ``share[i]`` of what it says and the rest of what row ``partner[i]`` says."""

    x: torch.Tensor
    tokens: torch.Tensor
    names: torch.Tensor
    share: torch.Tensor
    partner: torch.Tensor


class _Set:
    """One set of pictures on the device, drawn class by class."""

    def __init__(self, pictures: Pictures, ids: dict[str, int], device: torch.device):
        order = np.argsort(pictures.labels, kind="stable")
        counts = np.bincount(pictures.labels, minlength=len(pictures.classnames))
        there = np.flatnonzero(counts)
        self.kind = pictures.kind
        self.pictures = as_planes(pictures.images[order]).to(device)
        self.begins = torch.from_numpy((np.cumsum(counts) - counts)[there]).to(device)
        self.counts = torch.from_numpy(counts[there]).to(device)
        row = np.array([ids[pictures.classnames[c]] for c in there])
        self.rows = torch.from_numpy(row).to(device)  # of the table of captions

    def draw(self, n: int, dice: Dice) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (n, 3 or 4, 32, 32) in [0, 1] and rows of the table of captions."""
        drawn = dice.below(len(self.counts), n)
        places = self.begins[drawn] + dice.below(self.counts[drawn], n)
        return self.pictures[places].float().div_(255), self.rows[drawn]


class Batches:
    """Batches of a recipe: ``batches(step)``. ``names``: all that a picture may show, those of the
    toy world first."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        tokenizer: Any,
        sets: Sequence[Pictures] = (),
        device: torch.device | None = None,
    ) -> None:
        self.recipe, self.seed = recipe, seed
        self.device = device or torch.device("cpu")
        kinds = {name: each.kind for each in sets for name in each.classnames}
        ids = {name: row for row, name in enumerate(kinds)}
        self.names = [" ".join(pair) for pair in toy.NAMES] + list(ids)
        self.sets = [_Set(each, ids, self.device) for each in sets]
        said = [text for name, kind in kinds.items() for text in captions_of(name, kind)]

        def told(texts: Sequence[str]) -> torch.Tensor:
            return captions.bodies(tokenizer, texts).to(self.device)

        if ids:
            self.said = told(said).view(len(ids), VARIANTS, -1)
            self.word = told([named(name) for name in ids])
        self.before = told(["", "a photo of", "a sticker of"])
        self.and_ = told(["and"])
        many = {"single": recipe.pool, "crowded": recipe.pool, "stickers": recipe.pool // 2}
        self.pools = {
            kind: Pool(kind, count, seed, tokenizer, self.device) for kind, count in many.items()
        }
        ends = tokenizer([""])[0]
        self.start, self.end = ends[0].item(), ends[1].item()

    def __call__(self, step: int) -> Batch:
        recipe, done = self.recipe, step / self.recipe.steps
        dice = Dice(derive(self.seed, "pretrain", step), self.device)
        x, kinds, said, rows = self._draw(done, dice)
        photo = torch.tensor([kind == "photo" for kind in kinds], device=self.device)
        character = torch.tensor([kind == "character" for kind in kinds], device=self.device)
        turns = torch.tensor([TURNS[kind] for kind in kinds], device=self.device)
        x = augment.view(x, photo, turns, recipe.crop, dice)
        x = augment.colours(x, photo, character, dice)
        mixed = int(0.5 * recipe.photos * recipe.batch) if done < recipe.mixed else 0
        share = torch.ones(recipe.batch, device=self.device)
        partner = torch.arange(recipe.batch, device=self.device)
        if mixed:  # photos come first
            x[:mixed], share[:mixed] = augment.mix(x[:mixed], dice)
            partner[:mixed] = partner[:mixed].flip(0)
        x = augment.camera(x, dice)
        free = mixed + dice.order(recipe.batch - mixed)
        holes = free[len(free) - int(recipe.erased * recipe.batch) :]
        x[holes] = augment.over(x[holes], augment.rectangles(len(holes), HOLES, dice))
        names = self._multi_hot(rows)
        if done >= 1 - recipe.late:
            stuck = free[: int(recipe.stickers * recipe.batch)]
            self._stick(stuck, x, said, names, dice)
        names = names / names.sum(1, keepdim=True).clamp(min=1)
        tokens = captions.tokens(said, self.start, self.end)
        return Batch(x, tokens, names, share, partner)

    def _draw(
        self, done: float, dice: Dice
    ) -> tuple[torch.Tensor, list[str], torch.Tensor, torch.Tensor]:
        """Plain pictures, the kind of each, bodies, and names (B, 4), photos first."""
        recipe, parts, kinds = self.recipe, [], []
        many = [int(recipe.batch * share) for share in recipe.sets.values()]
        for each, n in sorted(zip(self.sets, many), key=lambda pair: pair[0].kind != "photo"):
            x, row = each.draw(n, dice)
            if x.shape[1] == 4:
                x = augment.over(self._ground(n, dice), augment.as_layers(x))
            said = self.said[row, dice.below(VARIANTS, n)]
            names = torch.full((n, 4), -1, device=self.device)
            names[:, 0] = row + len(toy.NAMES)
            parts.append((x, said, names))
            kinds += [each.kind] * n
        scenes = recipe.batch - sum(many)
        crowded = int(scenes * CROWDED[done >= 1 - recipe.late])
        for kind, n in (("single", scenes - crowded), ("crowded", crowded)):
            parts.append(self.pools[kind].draw(n, dice))
            kinds += ["scene"] * n
        x, said, names = map(torch.cat, zip(*parts))
        return x, kinds, said, names

    def _ground(self, n: int, dice: Dice) -> torch.Tensor:
        """Something to stand on: a plain colour, or another picture out of focus."""
        plain = dice.uniform((n, 3, 1, 1)).expand(n, 3, 32, 32)
        x, *_ = self.pools["crowded"].draw(n, dice)
        blurred = torch.nn.functional.interpolate(x, size=(4, 4), mode="area")
        blurred = torch.nn.functional.interpolate(blurred, size=(32, 32), mode="bilinear")
        return torch.where(dice.chance((n, 1, 1, 1), 0.6), plain, blurred)

    def _multi_hot(self, rows: torch.Tensor) -> torch.Tensor:
        """Names (B, 4), -1 for none, as (B, V) of 0 and 1."""
        wide = torch.zeros(len(rows), len(self.names) + 1, device=self.device)
        return wide.scatter_(1, rows % wide.shape[1], 1.0)[:, :-1]

    def _stick(
        self,
        where: torch.Tensor,
        x: torch.Tensor,
        said: torch.Tensor,
        names: torch.Tensor,
        dice: Dice,
    ) -> None:
        """Put stickers on pictures ``where`` and name them in their bodies and names, all in
        place."""
        n = len(where)
        own = n // 2 if self.sets else n
        layers, word, name = self.pools["stickers"].draw(own, dice)
        layers, words, named = [layers], [word], [name[:, 0]]
        if self.sets:
            shares = list(self.recipe.sets.values())
            many = [int((n - own) * share / sum(shares)) for share in shares]
            many[-1] += n - own - sum(many)
            for each, k in zip(self.sets, many):
                drawn, row = each.draw(k, dice)
                layers.append(augment.shrunk(augment.as_layers(drawn), STICKERS, dice))
                words.append(self.word[row])
                named.append(row + len(toy.NAMES))
        x[where] = augment.over(x[where], torch.cat(layers))
        word, old, alone = torch.cat(words), said[where], dice.chance((n, 1), self.recipe.alone)
        single = captions.join(self.before[dice.below(3, n)], word)
        first = dice.chance((n, 1), 0.5)
        begin, rest = torch.where(first, word, old), torch.where(first, old, word)
        both = captions.join(begin, self.and_.expand(n, -1), rest)
        said[where] = torch.where(alone, single, both)
        kept = names[where] * (~alone).float()
        names[where] = kept.scatter_(1, torch.cat(named)[:, None], 1.0)
