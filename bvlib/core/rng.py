"""Random numbers by name: every use has its own stream, derived from the run's seed.

A stream depends on the seed and its names only, never on what was drawn before, so adding a draw
somewhere changes nothing elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit sub-seed for the use that `names` describe, the same on every machine.

    >>> derive(0, "finetune", "digits") == derive(0, "finetune", "digits")
    True
    """
    text = json.dumps([int(seed), *(n if isinstance(n, str) else int(n) for n in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A torch generator on the CPU for the use that `names` describe."""
    import torch  # here, so that what only needs numpy (reports) starts without torch

    return torch.Generator().manual_seed(derive(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the use that `names` describe."""
    return np.random.default_rng(derive(seed, *names))
