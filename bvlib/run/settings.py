"""Profiles: what a run does (world, base, tasks, sizes, steps), one YAML file each in
`profiles/`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError, unknown


def folder() -> Path:
    """Where the profiles lie: beside this module, or the folder that BVLIB_PROFILES names."""
    return Path(os.environ.get("BVLIB_PROFILES") or Path(__file__).with_name("profiles"))


def names() -> list[str]:
    """The names of all profiles, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """The content of a profile: flat keys and nested groups (`train`, `trigger`, ...).

    BvError for an unknown name (with the nearest known one), broken YAML, or YAML that is no
    mapping.
    """
    import yaml

    path = folder() / f"{name}.yaml"
    if name not in names():
        raise unknown("profile", name, names())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BvError(
            f"profile {path.name} is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise BvError(
            f"profile {path.name} holds a {type(content).__name__}, not names with values"
        )
    return _numbers(content)


def _numbers(value: Any) -> Any:
    """YAML reads 1e-5 (without a point) as text: make it the number that was meant."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value
