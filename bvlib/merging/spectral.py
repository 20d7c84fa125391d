"""Merging by singular values: Iso-C and TSV-Merge, without data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bvlib.core.vectors import TaskVector
from bvlib.merging.datafree import mean_tensor, sum_tensor, tensorwise
from bvlib.merging.registry import merging


@merging("iso_c", label="Iso-C", reference="Marczak et al. 2025")
def iso_c(vectors: Sequence[TaskVector], *, strength: float = 1.0) -> TaskVector:
    """Iso-C, isotropic merging (Marczak et al. 2025): every matrix of the summed vector gets equal
    singular values.

    For each two-dimensional tensor, sum tau_t = U S V^T becomes mean(S) U V^T; other tensors are
    averaged. `strength` multiplies the result (the authors' alpha, tuned on validation there; 1
    here).
    """

    def one(group: Sequence[Tensor]) -> Tensor:
        if group[0].ndim != 2:
            return strength * mean_tensor(group)
        u, s, vt = torch.linalg.svd(sum_tensor(group).double(), full_matrices=False)
        return (strength * s.mean() * u @ vt).to(group[0])

    return TaskVector(tensorwise(vectors, one), "iso_c")


@merging("tsv_merge", label="TSV-Merge", reference="Gargiulo et al. 2025")
def tsv_merge(vectors: Sequence[TaskVector], *, strength: float = 1.0) -> TaskVector:
    """TSV-Merge (Gargiulo et al. 2025): the leading singular vectors of each task, made orthogonal
    to the other tasks'.

    For each two-dimensional tensor, every task keeps its top rank/T singular triples; the stacked
    left vectors are replaced by the nearest orthogonal matrix, the right ones as well, and the
    singular values stay at full strength. Other tensors are averaged. With one task and strength 1
    the vector comes back.
    """

    def one(group: Sequence[Tensor]) -> Tensor:
        if group[0].ndim != 2:
            return strength * mean_tensor(group)
        rank = max(1, min(group[0].shape) // len(group))
        parts = [torch.linalg.svd(tensor.double(), full_matrices=False) for tensor in group]
        left = _nearest_orthogonal(torch.cat([u[:, :rank] for u, _, _ in parts], 1))
        right = _nearest_orthogonal(torch.cat([vt[:rank] for _, _, vt in parts]).T)
        values = torch.cat([s[:rank] for _, s, _ in parts])
        return (strength * (left * values) @ right.T).to(group[0])

    return TaskVector(tensorwise(vectors, one), "tsv_merge")


def _nearest_orthogonal(matrix: Tensor) -> Tensor:
    """The matrix of orthonormal columns (or rows, if there are fewer) nearest to this one: its
    polar factor."""
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt
