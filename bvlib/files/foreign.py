"""Weight files of others, read without running any code that they bring."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from bvlib.core.errors import BadCheckpoint
from bvlib.files.safe import read_json
from bvlib.files.weights import load_weights

StateDict = dict[str, torch.Tensor]
INDEX = "model.safetensors.index.json"  # of a model in several files, as on the Hugging Face hub
HARMFUL = ("os.", "posix.", "nt.", "sys.", "subprocess.", "builtins.eval", "builtins.exec")


def tensors(path: Path) -> StateDict:
    """The state dict of a file, without running any code. BadCheckpoint in one line for anything
    else."""
    if not path.is_file():
        raise BadCheckpoint(f"no weight file {path}: check the path, or fetch it first")
    with path.open("rb") as file:
        begins = file.read(64).lstrip()
    if path.name.endswith(INDEX):
        return _shards(path)
    if begins.startswith(b"version https://git-lfs"):
        raise BadCheckpoint(f"{path.name} is a pointer of Git LFS, not the file: git lfs pull")
    if begins[:1] in (b"<", b"{"):
        what = "a web page" if begins[:1] == b"<" else "JSON"
        raise BadCheckpoint(f"{path.name} is {what}, not weights: fetch the file itself")
    if path.suffix == ".safetensors":
        return load_weights(path)[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on old pickles before it refuses them
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, KeyError, …: whatever the bytes lead to
        raise _refusal(path.name, str(error)) from None
    while isinstance(held, Mapping) and (
        inner := [held[k] for k in ("state_dict", "model") if isinstance(held.get(k), Mapping)]
    ):
        held = inner[0]
    wrong = [f"holds a {type(held).__name__}, not a state dict"]
    if isinstance(held, Mapping) and held:
        wrong = [
            f"is no state dict, {key!r} is a {type(value).__name__}"
            for key, value in held.items()
            if not isinstance(key, str) or not isinstance(value, torch.Tensor)
        ]
    if wrong:
        raise BadCheckpoint(f"{path.name} {wrong[0]}: save model.state_dict()")
    return dict(held)


def _shards(index: Path) -> StateDict:
    """The tensors of a model in several safetensors files, by the index beside them."""
    try:
        named = read_json(index)["weight_map"]
        files = sorted({str(name) for name in named.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadCheckpoint(f"{index.name} is no index of shards: fetch it again") from None
    if strange := [name for name in files if name != Path(name).name]:
        raise BadCheckpoint(f"{index.name} names {strange[0]!r}, which leads out of its folder")
    found = {key: t for name in files for key, t in load_weights(index.with_name(name))[0].items()}
    if missing := [key for key in named if key not in found]:
        raise BadCheckpoint(f"the shards of {index.name} lack {some(missing)}: fetch them again")
    return found


def _refusal(name: str, said: str) -> BadCheckpoint:
    """Why torch would not read a file as weights only, and the way out."""
    culprit, script = re.search(r"GLOBAL ([\w.]+)", said), "TorchScript" in said
    if not culprit and not script and "Weights only load failed" not in said:
        return BadCheckpoint(f"{name} is cut short or no checkpoint of torch: fetch it again")
    if culprit and culprit[1].startswith(HARMFUL):
        why = f"loading it would use {culprit[1]}, which no weights need"
        return BadCheckpoint(f"{name} is refused: {why}: delete it")
    what, read = "a bare pickle", f"pickle.load(open({name!r}, 'rb'))"
    if culprit:
        what, read = culprit[1], f"torch.load({name!r}, map_location='cpu', weights_only=False)"
    elif script:
        what, read = "a TorchScript program", f"torch.jit.load({name!r}, map_location='cpu')"
    return BadCheckpoint(
        f"{name} is refused: it holds {what}, not only tensors, and loading that can run any code. "
        "If you trust its authors, convert it in a throwaway container without network that has "
        f"their code: import pickle, torch; m = {read}; "
        "torch.save(m['state_dict'] if isinstance(m, dict) else m.state_dict(), 'plain.pt'), then "
        "import plain.pt"
    )


def some(keys: list[str]) -> str:
    """Up to three names, and how many more."""
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
