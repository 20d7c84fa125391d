"""Merging methods; see :mod:`bvlib.merging.registry` for how one is added."""

from bvlib.merging.registry import (
    Seen,
    data_free,
    looks,
    merge,
    merged_model,
    merging,
    see,
)

# isort: split
from bvlib.merging import datafree, regmean  # noqa: F401  they register their methods

# isort: split
from bvlib.merging import adamerging, spectral, surgery  # noqa: F401
from bvlib.merging.datafree import CLASSIC

__all__ = ["CLASSIC", "Seen", "data_free", "looks", "merge", "merged_model", "merging", "see"]
