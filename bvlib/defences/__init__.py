"""Defences and detectors; see :mod:`bvlib.defences.registry` for how a defence is added."""

from bvlib.defences.registry import Part, Situation, defence

# isort: split
from bvlib.defences import methods  # noqa: F401  it registers its methods
from bvlib.defences.detectors import detector

__all__ = ["Part", "Situation", "defence", "detector"]
