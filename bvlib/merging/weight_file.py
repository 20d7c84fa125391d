"""One safetensors file read in spans of entries, without mapping it into memory."""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from bvlib.core.errors import BadCheckpoint, BvError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
Span = tuple[str, int, int]  # tensor name, first entry, last entry + 1


class WeightFile:
    """One safetensors file: where each tensor lies, and its entries read into a buffer."""

    def __init__(self, path: Path, stack: ExitStack):
        from safetensors import safe_open

        if not path.is_file():
            raise BadCheckpoint(f"no weight file {path}: check the path, or make it first")
        try:
            with safe_open(path, framework="numpy"):  # it checks the header and the file's length
                pass
        except Exception as error:  # safetensors raises its own error and OSError alike
            raise BadCheckpoint(
                f"{path} is cut short or no safetensors file ({str(error).splitlines()[0]}): copy "
                "or make it again"
            ) from None
        self.path, self.file = path, stack.enter_context(path.open("rb", buffering=0))
        self.start = 8 + int.from_bytes(self.file.read(8), "little")
        table = json.loads(self.file.read(self.start - 8))
        table.pop("__metadata__", None)
        self.table = dict(sorted(table.items(), key=lambda item: item[1]["data_offsets"]))
        for key, entry in self.table.items():
            if entry["dtype"] not in DTYPES:
                what = f"tensor {key!r} in {path} is {entry['dtype']}, which does not stream"
                raise BvError(f"{what}, only {', '.join(DTYPES)}")
        self.like = {
            key: torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device="meta")
            for key, entry in self.table.items()
        }

    def header(self) -> bytes:
        """The head of a file with the same tensors in the same places."""
        head = {"__metadata__": {"format": "pt"}, **self.table}
        text = json.dumps(head, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def read(self, span: Span, buffer: Tensor) -> Tensor:
        """The entries of a span, shape [entries], in the bytes of `buffer`."""
        key, first, last = span
        dtype = self.like[key].dtype
        part = buffer[: (last - first) * dtype.itemsize]
        at = self.start + self.table[key]["data_offsets"][0] + first * dtype.itemsize
        if os.preadv(self.file.fileno(), [part.numpy()], at) != len(part):  # pyright: ignore[reportArgumentType]
            what = "was cut short while it was read"
            raise BadCheckpoint(f"{self.path} {what}: copy or make it again")
        return part.view(dtype)
