"""Scenes and stickers of the toy world, drawn before a training starts, on all cores."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from bvlib.core.rng import numpy_rng
from bvmake.pretrain import captions, scenes
from bvmake.pretrain.augment import Dice

CHUNK = 2000  # pictures of one sub-seed


def draw(kind: str, count: int, seed: int, part: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Pictures, words and names (count, 1 or 4) of one chunk of "single" or "crowded" scenes, or
    "stickers": uint8 (count, 32, 32, 3), or 4 with opacity, as layers."""
    rng = numpy_rng(seed, "pretrain", kind, part)
    if kind != "stickers":
        pictures, said, names, _ = scenes.scenes(count, rng, kind == "crowded")
        return pictures, said, names
    state = rng.bit_generator.state  # on black and on white: what differs shines through
    black, said, names = scenes.stickers(np.zeros((count, 32, 32, 3), np.uint8), rng)
    rng.bit_generator.state = state
    white, *_ = scenes.stickers(np.full((count, 32, 32, 3), 255, np.uint8), rng)
    through = (white.astype(int) - black).max(-1, keepdims=True).clip(0, 255)
    layers = np.concatenate([black, (255 - through).astype(np.uint8)], -1)
    return layers, said, names[:, None]


class Pool:
    """``pictures`` uint8 (N, 3 or 4, 32, 32) on a device, bodies of their captions, and names (N,
    1 or 4) as indices into the toy world's names, -1 for none."""

    def __init__(self, kind: str, count: int, seed: int, tokenizer: Any, device: torch.device):
        sizes = [min(CHUNK, count - i) for i in range(0, count, CHUNK)]
        jobs = [(kind, size, seed, part) for part, size in enumerate(sizes)]
        if len(jobs) < 4:
            parts = [draw(*job) for job in jobs]
        else:
            workers = min(len(jobs), os.cpu_count() or 1)
            with ProcessPoolExecutor(workers, get_context("spawn")) as processes:
                parts = list(processes.map(draw, *zip(*jobs)))
        pictures, said, names = zip(*parts)
        self.pictures = as_planes(np.concatenate(pictures)).to(device)
        texts = [text for part in said for text in part]
        self.said = captions.bodies(tokenizer, texts).to(device)
        self.names = torch.from_numpy(np.concatenate(names)).to(device)

    def draw(self, n: int, dice: Dice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures in [0, 1], bodies and names of ``n`` of them."""
        rows = dice.below(len(self.names), n)
        return self.pictures[rows].float().div_(255), self.said[rows], self.names[rows]


def as_planes(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, C) -> (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
