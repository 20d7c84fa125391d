"""Batched changes of pictures, on the device where they are.

Pictures are float (N, 3, 32, 32) in [0, 1]; *layers* are (N, 4, S, S), colours times their opacity
and the opacity. All chance comes from :class:`Dice`.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

SIDE = 32
LUMA = (0.299, 0.587, 0.114)


class Dice:
    """Random numbers of one step, on one device: the same seed gives the same ones."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, size: int | Sequence[int], low: float = 0, high: float = 1) -> torch.Tensor:
        """Numbers in [low, high)."""
        drawn = torch.rand(size, generator=self.generator, device=self.device)
        return drawn * (high - low) + low

    def chance(self, size: int | Sequence[int], odds: float) -> torch.Tensor:
        """True with these odds."""
        return self.uniform(size) < odds

    def below(self, high: int | torch.Tensor, size: int) -> torch.Tensor:
        """Whole numbers in [0, high)."""
        top = torch.as_tensor(high, device=self.device)
        return (self.uniform(size) * top).long().minimum(top - 1)

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def order(self, size: int) -> torch.Tensor:
        """A permutation."""
        return torch.randperm(size, generator=self.generator, device=self.device)


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def view(
    x: torch.Tensor, photo: torch.Tensor, turns: torch.Tensor, crop: float, dice: Dice
) -> torch.Tensor:
    """Look at each picture anew: photos cropped to at least ``crop`` of their area and mirrored,
    others zoomed and moved a little; turned by up to ``turns`` (N,) radians."""
    n = len(x)
    area = dice.uniform(n, crop, 1)
    ratio = dice.uniform(n, math.log(3 / 4), math.log(4 / 3)).exp()
    zoom = dice.uniform(n, 0.85, 1.25)
    wide = torch.where(photo, (area * ratio).sqrt().clamp(max=1), zoom)
    high = torch.where(
        photo, (area / ratio).sqrt().clamp(max=1), zoom * dice.uniform(n, 0.92, 1.08)
    )
    right = dice.uniform(n, -1, 1) * torch.where(photo, 1 - wide, 0.12)
    down = dice.uniform(n, -1, 1) * torch.where(photo, 1 - high, 0.12)
    mirror = torch.where(photo & dice.chance(n, 0.5), -1.0, 1.0)
    turn = dice.uniform(n, -1, 1) * turns
    cos, sin = turn.cos(), turn.sin()
    rows = [
        torch.stack([wide * cos * mirror, -high * sin, right], 1),
        torch.stack([wide * sin * mirror, high * cos, down], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def colours(
    x: torch.Tensor, photo: torch.Tensor, character: torch.Tensor, dice: Dice
) -> torch.Tensor:
    """Change saturation, brightness and contrast; half of the characters become their negative."""
    n = len(x)
    x = torch.where(_wide(character & dice.chance(n, 0.5)), 1 - x, x)
    grey = (x * torch.tensor(LUMA, device=x.device)[:, None, None]).sum(1, keepdim=True)
    strong = torch.where(photo, dice.uniform(n, 0.5, 1.5), 1.0)
    strong = torch.where(dice.chance(n, 0.1), 0.0, strong)
    x = grey + _wide(strong) * (x - grey)
    middle = x.mean((1, 2, 3), keepdim=True)
    contrast = torch.where(photo, dice.uniform(n, 0.6, 1.4), dice.uniform(n, 0.45, 1.1))
    bright = torch.where(photo, dice.uniform(n, 0.65, 1.35), dice.uniform(n, 0.8, 1.2))
    return middle * _wide(bright) + _wide(contrast) * (x - middle)


def camera(x: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Blur some a little, put noise on some, and keep to [0, 1]."""
    n = len(x)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x + _wide(dice.uniform(n) * dice.chance(n, 0.4)) * (soft - x)
    noise = _wide(dice.uniform(n, 0, 0.05) * dice.chance(n, 0.3))
    return (x + dice.normal(x.shape) * noise).clamp(0, 1)


def mix(x: torch.Tensor, dice: Dice) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each picture with its partner, the one as far from the end: half by CutMix, half by
    Mixup. Returns the pictures and the share (N,) that is left of the first."""
    n, line = len(x), torch.arange(SIDE, device=x.device)
    size = 14 + dice.below(13, 2 * n).view(2, n)
    begin = (dice.uniform((2, n)) * (SIDE - size)).round()
    inside = (line >= begin[..., None]) & (line < (begin + size)[..., None])
    box = inside[0][:, :, None] & inside[1][:, None, :]
    even = torch.sin(dice.uniform(n) * (math.pi / 2)).square()  # Beta(0.5, 0.5)
    cut = dice.chance(n, 0.5)[:, None, None]
    mask = torch.where(cut, 1 - box.float(), even[:, None, None].expand(n, SIDE, SIDE))
    mixed = mask[:, None] * x + (1 - mask[:, None]) * x.flip(0)
    return mixed, mask.mean((1, 2))


# Layers


def over(x: torch.Tensor, layers: torch.Tensor) -> torch.Tensor:
    """Pictures under layers of the same size."""
    return x * (1 - layers[:, 3:]) + layers[:, :3]


def as_layers(x: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, H, W), or 4 with opacity, as layers."""
    opacity = x[:, 3:] if x.shape[1] == 4 else torch.ones_like(x[:, :1])
    return torch.cat([x[:, :3] * opacity, opacity], 1)


def placed(small: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Small layers (N, 4, S, S) on empty ones of 32 px, anywhere, half of them against an edge."""
    n, side = len(small), small.shape[-1]
    free = (dice.uniform((n, 2), -0.25, 1.25).clamp(0, 1) * (SIDE - side)).round().long()
    place = torch.arange(SIDE, device=small.device) - free[..., None]  # (N, 2, 32)
    inside = (place >= 0) & (place < side)
    down, right = place.clamp(0, side - 1).unbind(1)
    index = torch.arange(n, device=small.device)[:, None, None]
    large = small[index, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)
    return large * (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]


def shrunk(layers: torch.Tensor, sides: Sequence[int], dice: Dice) -> torch.Tensor:
    """Layers shrunk to each of some sizes in turn, and placed."""
    parts = zip(sides, layers.tensor_split(len(sides)))
    small = [F.interpolate(part, size=(s, s), mode="area") for s, part in parts if len(part)]
    return torch.cat([placed(part, dice) for part in small]) if small else layers


def rectangles(n: int, sides: Sequence[int], dice: Dice) -> torch.Tensor:
    """Layers with a square that means nothing: of one colour, black, white or noise."""
    sides = list(sides)
    counts = [len(part) for part in torch.arange(n).tensor_split(len(sides))]
    made = []
    for side, k in zip(sides, counts):
        plain = dice.uniform((k, 3, 1, 1))
        grey = dice.chance((k, 1, 1, 1), 0.5).float().expand(k, 3, 1, 1)
        plain = torch.where(dice.chance((k, 1, 1, 1), 0.3), grey, plain)
        noise = dice.uniform((k, 3, side, side))
        square = torch.where(dice.chance((k, 1, 1, 1), 0.5), noise, plain)
        made.append(placed(as_layers(square), dice))
    return torch.cat(made)
