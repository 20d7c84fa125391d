"""Defences and detectors; see :mod:`bvlib.defences.registry` for how one is added."""
