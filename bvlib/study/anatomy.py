"""Where a vector lives in the image tower, and how concentrated it is: by block, by kind of
weight, by singular direction."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from bvlib.core.errors import BvError
from bvlib.core.vectors import TaskVector, check_same

KINDS = {
    "in_proj": "attention in (q, k, v)",
    "out_proj": "attention out",
    "c_fc": "MLP in",
    "c_proj": "MLP out",
    "conv1": "patches in",
    "ln_": "norms",
    "embedding": "embeddings",
    "proj": "projection out",
}


def block_of(key: str) -> str:
    """The part of an open_clip ViT that a tensor belongs to: "block 0" …, "before", or "after" the
    blocks."""
    found = re.search(r"resblocks\.(\d+)\.", key)
    if found:
        return f"block {found[1]}"
    return "after" if key == "proj" or key.startswith("ln_post") else "before"


def kind_of(key: str) -> str:
    """The kind of weight that a tensor is, one of the values of :data:`KINDS`, or "other"."""
    return next((kind for part, kind in KINDS.items() if part in key), "other")


def shares(vector: TaskVector, beside: TaskVector, by=kind_of) -> pd.DataFrame:
    """Where the squared norm of a vector lies, and how it lies to another one there.

    One row for each value of ``by(key)``: share of the squared norm (%), share of the entries (%),
    and the cosine with ``beside`` within that part (blank where either is zero). Raises BvError
    when the two do not fit.
    """
    check_same(vector.tensors, beside.tensors, "the vector", "the one beside it")
    rows = [
        {
            "part": by(key),
            "square": float((v := tensor.double()).square().sum()),
            "entries": tensor.numel(),
            "dot": float((v * (b := beside.tensors[key].double())).sum()),
            "other": float(b.square().sum()),
        }
        for key, tensor in vector.tensors.items()
    ]
    total = pd.DataFrame(rows).groupby("part", sort=False).sum()
    lengths = np.sqrt(total["square"] * total["other"])
    out = pd.DataFrame(
        {
            "share of squared norm (%)": 100 * total["square"] / total["square"].sum(),
            "share of entries (%)": 100 * total["entries"] / total["entries"].sum(),
            "cosine": total["dot"] / lengths.where(lengths > 0),
        }
    )
    return out.reset_index()


def where(bv: TaskVector, clean: TaskVector) -> pd.DataFrame:
    """:func:`shares` of a BV and of the clean task vector of the same task, by kind of weight and
    by block (column "by")."""
    tables = [
        shares(bv, clean, by)
        .rename(columns={"cosine": "cosine with the clean task vector"})
        .assign(
            **{
                "by": name,
                "the same, clean task vector (%)": shares(clean, bv, by)[
                    "share of squared norm (%)"
                ],
            }
        )
        for name, by in (("kind", kind_of), ("block", block_of))
    ]
    return pd.concat(tables, ignore_index=True)


def lengths(vectors: Mapping[str, TaskVector], bv: TaskVector, clean: TaskVector) -> pd.DataFrame:
    """Norms of named vectors, relative to the clean task vector too, and cosine with the BV."""
    return pd.DataFrame(
        [
            {
                "vector": name,
                "norm": v.norm(),
                "relative to the clean task vector": v.norm() / clean.norm(),
                "cosine with BV": bv.cosine(v),
            }
            for name, v in vectors.items()
        ]
    )


def spectra(vectors: Mapping[str, TaskVector]) -> pd.DataFrame:
    """:func:`spectrum` of named vectors, one a row."""
    table = pd.DataFrame({name: spectrum(v) for name, v in vectors.items()}).T
    return table.rename_axis("vector").reset_index()


def spectrum(vector: TaskVector, tops=(1, 4, 16)) -> pd.Series:
    """How low-rank a vector's matrices are, averaged over them with their squared norms as weights.

    "stable rank" is ‖M‖_F² / ‖M‖₂²; "top r" the share (%) of ‖M‖_F² in the r largest singular
    directions. Tensors that are no matrices are left out. Raises BvError when there is none with
    an entry that is not zero.
    """
    weights, found = [], []
    for tensor in vector.tensors.values():
        if tensor.ndim != 2 or not tensor.any():
            continue
        energy = torch.linalg.svdvals(tensor.double()).square()
        total = float(energy.sum())
        weights.append(total)
        found.append(
            [total / float(energy[0]), *(100 * float(energy[:r].sum()) / total for r in tops)]
        )
    if not found:
        raise BvError("no spectrum: the vector has no matrix with an entry that is not zero")
    return pd.Series(
        np.average(found, axis=0, weights=weights),
        index=["stable rank", *(f"top {r}" for r in tops)],
    )
