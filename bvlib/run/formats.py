"""What a store can keep: how each kind of result is written to a file and read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BvError
from bvlib.files.digests import canonical
from bvlib.files.safe import read_json, write_json
from bvlib.files.weights import read_metadata, read_tensors, write_tensors

if TYPE_CHECKING:
    from bvlib.files.weights import StateDict


def write_trigger(path: Path, value: tuple[StateDict, dict]) -> None:
    tensors, meta = value
    write_tensors(path, tensors, {"meta": canonical(meta)})


def read_trigger(path: Path) -> tuple[StateDict, dict]:
    return read_tensors(path), json.loads(read_metadata(path).get("meta", "{}"))


def write_table(path: Path, table: Any) -> None:
    if not table.index.equals(type(table)(index=range(len(table))).index):
        raise BvError("a stored table has no index of its own: call .reset_index() first")
    table.to_csv(path, index=False)


def read_table(path: Path) -> Any:
    import pandas

    return pandas.read_csv(path, keep_default_na=False, na_values=[""])


Format = tuple[str, Callable[[Path, Any], None], Callable[[Path], Any]]
FORMATS: dict[str, Format] = {
    "weights": ("safetensors", write_tensors, read_tensors),  # a state dict
    "trigger": ("safetensors", write_trigger, read_trigger),  # (tensors, dict of plain values)
    "table": ("csv", write_table, read_table),  # a pandas DataFrame without an index
    "json": ("value.json", write_json, read_json),  # a plain value
}
