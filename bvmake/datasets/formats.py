"""Files of the papers' archives as plain arrays and lines: pickles, idx, .mat and text lists.

Nothing in a file is run: pickles are read by an unpickler that knows plain values and number arrays
only. Every function raises BvError when the file is damaged or another.
"""

import gzip
import io
import pickle
import re
import zlib
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from bvlib.core.errors import told_as
from bvmake.datasets.source import ANEW, broken

_empty_array = np.empty(0).__reduce__()[0]  # numpy's, which pickles name by its place
_PLAIN = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # a pickle of protocol 2 writes bytes with it, for that one use only
    ("_codecs", "encode"): lambda text, form: text.encode({"latin1": "latin1"}[form]),
}


class _Plain(pickle.Unpickler):
    """Reads plain values and number arrays; refuses any other name before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"{module}.{name} is wanted, which no images need")
        return _PLAIN[module, name]


def plain_pickle(path: Path) -> dict:
    """A pickled dict of plain values and number arrays. Raises BvError for any other pickle.

    Nothing in it is run.
    """
    # a damaged pickle raises many kinds
    with told_as(f"{path}: refused without running it", mend=ANEW):
        found = _Plain(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    if not isinstance(found, dict):
        raise broken(path, "it holds no dict")
    return found


def idx(path: Path, dims: int) -> np.ndarray:
    """The unsigned bytes of an idx file with ``dims`` dimensions, gzipped or not."""
    with told_as(broken(path, "no whole gzip file"), OSError, EOFError, zlib.error):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    shape = np.frombuffer(data[4 : 4 + 4 * dims], ">u4").astype(np.int64)
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) != 4 + 4 * dims + shape.prod():
        raise broken(path, f"no whole idx file of {dims} dimensions")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def mat(path: Path, *keys: str) -> list[np.ndarray]:
    """Arrays of a MATLAB file, "a.b" for field b of a. BvError if it lacks one or is damaged."""
    from scipy.io import loadmat

    # scipy raises many kinds for damaged files
    with told_as(broken(path, f"no MATLAB file with {', '.join(keys)}")):
        whole = loadmat(path, squeeze_me=True)
        return [np.atleast_1d(reduce(getitem, key.split("."), whole)) for key in keys]


def lines_of(path: Path) -> list[str]:
    """The lines of a text file without empty ones and #. Raises BvError when it is no text."""
    with told_as(broken(path, "no list in plain text"), OSError, UnicodeDecodeError):
        lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and line[0] != "#"]


def matched(path: Path, form: str) -> list[re.Match]:
    """Each line of a list matched whole against ``form``. Raises BvError if one does not fit."""
    found = [re.fullmatch(form, line) for line in lines_of(path)]
    if None in found:
        raise broken(path, f"line {found.index(None) + 1} is not of the form this list has")
    return found
