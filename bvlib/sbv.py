"""Rules beside those of :mod:`merging` that make one Sparse Backdoor Vector of several."""

from __future__ import annotations

from collections.abc import Sequence

from .merging import BV_MERGING, _backdoor, _tensorwise, merging_method, ties_tensor
from .vectors import TaskVector, magnitude_threshold


@merging_method("ties", registry=BV_MERGING)
def ties_vectors(vectors: Sequence[TaskVector], *, density: float = 1.0) -> TaskVector:
    """SBV by TIES: each BV trimmed to `density`, signs elected by mass, the mean of what agrees; then the top `density` share.

    Raises BvError for a density outside (0, 1].
    """
    thresholds = [magnitude_threshold(vector.tensors, density) for vector in vectors]
    tensors = _tensorwise(vectors, lambda group: ties_tensor(group, thresholds, aggregate="mean"))
    return _backdoor(vectors, tensors, "ties", density)
