"""Captions as tensors, so that a batch is told without a loop over its images.

A caption's *body* is its token ids without start and end: bodies (N, ROOM) int64, padded with 0,
and lengths (N,). Words are tokenised one by one, so bodies can be joined.
"""

from collections.abc import Sequence
from typing import Any

import torch

from bvlib.core.encoder import text_features

ROOM = 30  # tokens of a body: the context of 32 without start and end
Bodies = tuple[torch.Tensor, torch.Tensor]


def bodies(tokenizer: Any, texts: Sequence[str]) -> Bodies:
    """The bodies of texts; of a longer one, the beginning."""
    tokens = torch.cat([tokenizer(list(texts[i : i + 4096])) for i in range(0, len(texts), 4096)])
    lengths = tokens.argmax(1) - 1  # the end token has the largest id
    body = tokens[:, 1 : ROOM + 1].clone()
    body[torch.arange(ROOM) >= lengths[:, None]] = 0
    return body, lengths


def join(*parts: Bodies) -> Bodies:
    """Bodies of several parts (N each), one after the other; what is too long is cut."""
    many, device = len(parts[0][1]), parts[0][0].device
    out = torch.zeros(many, (len(parts) + 1) * ROOM, dtype=torch.long, device=device)
    begin = torch.zeros(many, dtype=torch.long, device=device)
    place = torch.arange(ROOM, device=device)
    for ids, lengths in parts:
        there = place < lengths[:, None]
        where = torch.where(there, begin[:, None] + place, out.shape[1] - 1)
        out.scatter_(1, where, torch.where(there, ids, 0))
        begin = begin + lengths
    return out[:, :ROOM], begin.clamp(max=ROOM)


def pick(on: torch.Tensor, yes: Bodies, no: Bodies) -> Bodies:
    """Row by row the bodies of ``yes`` where ``on`` (N,) is true, else those of ``no``."""
    return torch.where(on[:, None], yes[0], no[0]), torch.where(on, yes[1], no[1])


def tokens(said: Bodies, start: int, end: int) -> torch.Tensor:
    """Whole token rows (N, ROOM + 2) of bodies."""
    ids, lengths = said
    place = torch.arange(ROOM + 2, device=ids.device)
    row = torch.nn.functional.pad(ids, (1, 1))
    row = torch.where(place == lengths[:, None] + 1, end, row)
    return torch.where(place == 0, start, row)


def features(model: Any, rows: torch.Tensor, groups: int = 4) -> torch.Tensor:
    """Unit text features (N, D) of token rows (N, L): equal ones once, and in groups of like
    length, so that little is padding."""
    different, back = rows.unique(dim=0, return_inverse=True)
    order = (different != 0).sum(1).argsort(stable=True)
    parts = [part for part in order.tensor_split(groups) if len(part)]
    seen = torch.cat([text_features(model, different[part]) for part in parts])
    return seen[order.argsort()[back]]
