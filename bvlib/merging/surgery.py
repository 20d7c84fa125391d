"""Representation Surgery: a small adapter for each task, trained after any merge (Yang et al.
2024)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bvlib.core.encoder import Encoder
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, check_same
from bvlib.merging.adamerging import batches
from bvlib.merging.registry import Seen, check_seen, features, merging


@dataclass(frozen=True, eq=False)
class Adapter:
    """ẑ = z − up·ReLU(down·z) on features z (N, D), before they are normalised; down (rank, D), up
    (D, rank)."""

    down: Tensor
    up: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return z - F.relu(z @ self.down.T) @ self.up.T

    def over(self, encoder: Encoder) -> Encoder:
        """The encoder with this adapter, to be used where an encoder is."""
        adapted = copy.copy(encoder)
        adapted.adapter = self
        return adapted


@merging(
    "surgery",
    label="Surgery",
    needs="unlabelled dev images of every task, and every task's own model",
    reference="Yang et al. 2024",
    after="adamerging_layerwise",
    settings="surgery",
)
def surgery(
    encoder,
    merged: StateDict,
    seen: Mapping[str, Seen],
    own: Mapping[str, StateDict],
    *,
    rank: int = 16,
    steps: int = 1000,
    lr: float = 1e-3,
    batch: int = 16,
    seed: int = 0,
) -> dict[str, Adapter]:
    """Representation Surgery (Yang et al. 2024): one small adapter a task, after any merge.

    Each is trained with Adam on the L1 distance between the adapted features of the merge and the
    features of the task's ``own`` model, on its unlabelled images, and starts as the identity (up
    = 0). Both models are frozen, so their features are taken once. The result is no longer a
    single model: it needs the task's name at test time, and the tasks' own models while training.
    The paper trains on test images; here they are refused. Rank and lr are the published ones; its
    500 rounds step after each of two batches of 16, so here they are 1000 steps. Raises BvError as
    `merge` does.
    """
    if not (rank >= 1 and steps >= 0 and batch >= 1 and lr > 0):
        wanted = "rank >= 1, steps >= 0, batch >= 1, lr > 0"
        raise BvError(f"surgery wants {wanted}: not {rank!r}, {steps!r}, {batch!r}, {lr!r}")
    check_seen(list(own), encoder, merged, seen)
    adapters = {}
    for name, theta in own.items():
        check_same(merged, theta, "the merged model", f"the model of {name!r}")
        z, goal = (features(encoder, each, seen[name].images) for each in (merged, theta))
        rng, width = generator(seed, "surgery", name), z.shape[1]
        drawn = (2 * torch.rand(rank, width, generator=rng) - 1) / width**0.5
        down = drawn.to(z).requires_grad_(True)
        up = torch.zeros(width, rank).to(z).requires_grad_(True)
        optimizer, queue = torch.optim.Adam([down, up], lr=lr), batches(len(z), batch, rng)
        for _ in range(steps):
            now = next(queue)
            loss = F.l1_loss(Adapter(down, up)(z[now]), goal[now])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        adapters[name] = Adapter(down.detach(), up.detach())
    return adapters
