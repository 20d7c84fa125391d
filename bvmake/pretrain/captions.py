"""Captions as tensors, so that a batch is told without a loop over its images.

A caption's *body* is its token ids without start and end. Bodies are int64 (N, 1 + ROOM): first how
many ids a body has, then the ids, padded with 0. Words are tokenised one by one, so bodies can be
joined.
"""

from collections.abc import Sequence
from typing import Any

import torch

ROOM = 30  # tokens of a body: the context of 32 without start and end


def bodies(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """The bodies of texts; of a longer one, the beginning."""
    tokens = torch.cat([tokenizer(list(texts[i : i + 4096])) for i in range(0, len(texts), 4096)])
    lengths = tokens.argmax(1, keepdim=True) - 1  # the end token has the largest id
    ids = torch.where(torch.arange(ROOM) < lengths, tokens[:, 1 : ROOM + 1], 0)
    return torch.cat([lengths, ids], 1)


def join(*parts: torch.Tensor) -> torch.Tensor:
    """Bodies of several parts (N each), one after the other; what is too long is cut."""
    out = parts[0].new_zeros(len(parts[0]), (len(parts) + 1) * ROOM)
    begin = torch.zeros_like(parts[0][:, :1])
    place = torch.arange(ROOM, device=out.device)
    for part in parts:
        lengths, ids = part[:, :1], part[:, 1:]
        there = place < lengths
        where = torch.where(there, begin + place, out.shape[1] - 1)
        out.scatter_(1, where, torch.where(there, ids, 0))
        begin = begin + lengths
    return torch.cat([begin.clamp(max=ROOM), out[:, :ROOM]], 1)


def tokens(said: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """Whole token rows (N, ROOM + 2) of bodies."""
    place = torch.arange(ROOM + 2, device=said.device)
    row = torch.nn.functional.pad(said[:, 1:], (1, 1))
    row = torch.where(place == said[:, :1] + 1, end, row)
    return torch.where(place == 0, start, row)


def text_features(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Unit text features (N, D) of tokens (N, L), without the passes over padding that
    ``encode_text`` makes.

    Attention in the text tower looks back only, so positions after the longest text change nothing.
    """
    tokens = tokens[:, : int((tokens != 0).sum(1).max())]
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    ends = tokens.argmax(-1)  # the end token has the largest id
    x = x[torch.arange(len(x)), ends] @ model.text_projection
    return torch.nn.functional.normalize(x, dim=-1)


def features(model: Any, rows: torch.Tensor, groups: int = 4) -> torch.Tensor:
    """Unit text features (N, D) of token rows (N, L): equal ones once, and in groups of like
    length, so that little is padding."""
    different, back = rows.unique(dim=0, return_inverse=True)
    order = (different != 0).sum(1).argsort(stable=True)
    parts = [part for part in order.tensor_split(groups) if len(part)]
    seen = torch.cat([text_features(model, different[part]) for part in parts])
    return seen[order.argsort()[back]]
