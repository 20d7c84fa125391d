"""Where a vector lives in the image tower, and how concentrated it is: by block, by kind of
weight, by singular direction."""

import re

import numpy as np
import pandas as pd
import torch

from bvlib.core.errors import BvError
from bvlib.core.vectors import TaskVector, check_same
from bvlib.study.experiments import Vectors

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
    rows = []
    for key, tensor in vector.tensors.items():
        a, b = tensor.double(), beside.tensors[key].double()
        square, dot, other = (float((x * y).sum()) for x, y in ((a, a), (a, b), (b, b)))
        rows.append((by(key), square, tensor.numel(), dot, other))
    columns = ["part", "square", "entries", "dot", "other"]
    total = pd.DataFrame(rows, columns=columns).groupby("part", sort=False).sum()
    lengths = np.sqrt(total["square"] * total["other"])
    found = {
        "share of squared norm (%)": 100 * total["square"] / total["square"].sum(),
        "share of entries (%)": 100 * total["entries"] / total["entries"].sum(),
        "cosine": total["dot"] / lengths.where(lengths > 0),
    }
    return pd.DataFrame(found).reset_index()


def where(bv: TaskVector, clean: TaskVector) -> pd.DataFrame:
    """:func:`shares` of a BV and of the clean task vector of the same task, by kind of weight and
    by block (column "by")."""
    tables = []
    for name, by in (("kind", kind_of), ("block", block_of)):
        table = shares(bv, clean, by).assign(by=name)
        other = shares(clean, bv, by)["share of squared norm (%)"]
        tables.append(table.assign(**{"the same, clean task vector (%)": other}))
    table = pd.concat(tables, ignore_index=True)
    return table.rename(columns={"cosine": "cosine with the clean task vector"})


def lengths(vectors: Vectors, bv: TaskVector, clean: TaskVector) -> pd.DataFrame:
    """Norms of named vectors, relative to the clean task vector too, and cosine with the BV."""
    table = pd.DataFrame({"vector": list(vectors), "norm": [v.norm() for v in vectors.values()]})
    table["relative to the clean task vector"] = table["norm"] / clean.norm()
    return table.assign(**{"cosine with BV": [bv.cosine(v) for v in vectors.values()]})


def spectra(vectors: Vectors) -> pd.DataFrame:
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
        leading = [100 * float(energy[:r].sum()) / total for r in tops]
        found.append([total / float(energy[0]), *leading])
    if not found:
        raise BvError("no spectrum: the vector has no matrix with an entry that is not zero")
    names = ["stable rank", *(f"top {r}" for r in tops)]
    return pd.Series(np.average(found, axis=0, weights=weights), index=names)
