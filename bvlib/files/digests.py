"""Hashes of plain values: what keys of stored results and names of run folders are made of."""

import dataclasses
import hashlib
import json
from typing import Any

from bvlib.core.errors import BvError


def canonical(value: Any) -> str:
    """The one JSON text of a plain value: keys sorted, no spaces. BvError for what is not plain."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return {type(item).__name__: dataclasses.asdict(item)}
        if isinstance(item, (set, frozenset)):
            return sorted(item)
        if getattr(item, "ndim", None) == 0 and (number := getattr(item, "item", None)):
            return number()
        raise BvError(
            f"a {type(item).__name__} cannot be part of a key: give plain values, "
            "or the sha256 of what it holds"
        )

    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of a plain value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
