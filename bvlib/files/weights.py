"""Weight files: dicts of tensors as safetensors, each with a card (a small JSON file) that says
what it is.

Only safetensors is read and written, as other formats can run code when loaded. Importing this
module does not import torch.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BadCheckpoint, BvError
from bvlib.files.safe import file_sha256, read_json, write_json, write_whole

if TYPE_CHECKING:
    from torch import Tensor

    StateDict = dict[str, Tensor]


def save_weights(path: str | Path, theta: StateDict, card: Mapping[str, Any] | None = None) -> None:
    """Write a state dict as safetensors, and its card (plain values, plus the file's sha256)
    beside it."""
    path = _weights_path(path)
    write_whole(path, lambda draft: write_tensors(draft, theta))
    write_json(card_of(path), {**(card or {}), "sha256": file_sha256(path)})


def load_weights(path: str | Path) -> tuple[StateDict, dict[str, Any]]:
    """(state dict, card) of a safetensors file; the card is {} when there is none.

    BadCheckpoint for another format, a missing, cut short or damaged file, or one that differs
    from its card.
    """
    path = _weights_path(path)
    if not path.is_file():
        raise BadCheckpoint(f"no weight file {path}: check the path, or make it first")
    card = read_card(path)
    if card.get("sha256") not in (None, file_sha256(path)):
        raise BadCheckpoint(
            f"{path} is not the file that its card {card_of(path).name} describes "
            "(its sha256 differs): copy or make it again"
        )
    try:
        return read_tensors(path), card
    except Exception as error:  # safetensors raises its own error and OSError alike
        reason = str(error).splitlines()[0]
        raise BadCheckpoint(
            f"{path} is cut short or no safetensors file ({reason}): copy or make it again"
        ) from None


def read_card(weights: Path) -> dict[str, Any]:
    """The card of a weight file, {} if it has none. BadCheckpoint for one that is damaged."""
    if not (path := card_of(weights)).is_file():
        return {}
    try:
        card = read_json(path)
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise BadCheckpoint(f"the card {path} is damaged: copy or make it again, or remove it")
    return card


def digest(theta: StateDict) -> str:
    """16 hex digits of a state dict: names, shapes, types and bits, wherever the tensors live."""
    from torch import uint8

    h = hashlib.sha256()
    for key in sorted(theta):
        tensor = theta[key].detach().cpu().contiguous()
        h.update(f"{key} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        h.update(tensor.reshape(-1).view(uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def check_matches(theta: StateDict, reference: StateDict, name: str = "checkpoint") -> None:
    """BadCheckpoint naming the first tensor that is missing from `theta`, unexpected, or of
    another shape."""
    mend = "was it made for another encoder?"
    for key, tensor in reference.items():
        if key not in theta:
            raise BadCheckpoint(f"{name} lacks the tensor {key!r}: {mend}")
        if theta[key].shape != tensor.shape:
            raise BadCheckpoint(
                f"{name}: {key!r} has shape {tuple(theta[key].shape)}, "
                f"the encoder wants {tuple(tensor.shape)}: {mend}"
            )
    extra = [key for key in theta if key not in reference]
    if extra:
        raise BadCheckpoint(
            f"{name} has a tensor {extra[0]!r} that the encoder does not know: {mend}"
        )


def _weights_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadCheckpoint(
            f"{path.name} is refused: only .safetensors is read and written, as other "
            "formats can run code when loaded. Convert it once: safetensors.torch.save_file("
            "torch.load(path, weights_only=True), 'name.safetensors')"
        )
    return path


def card_of(path: Path) -> Path:
    """Where the card of a file lies: `name.json` beside `name.safetensors`."""
    stem = path.name.removesuffix(".value.json") if path.name.endswith(".value.json") else path.stem
    return path.with_name(stem + ".json")


def write_tensors(path: Path, theta: StateDict, metadata: dict[str, str] | None = None) -> None:
    """Write a dict of tensors as safetensors, without a card. BvError if a value is no tensor."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    for key, tensor in theta.items():
        if wrong := no_tensor(key, tensor):
            raise BvError(f"weights are a dict of tensors: {key!r} is {wrong}")
    kept = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in theta.items()}
    try:
        save_file(kept, path, metadata=metadata)
    except SafetensorError as error:
        code = re.search(r"(?:os error|code:) (\d+)", str(error))
        raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code else error) from None


def no_tensor(key: Any, value: Any) -> str:
    """What an entry of a dict is if it is no name with a plain tensor, else ""."""
    from torch import Tensor, strided

    if not isinstance(key, str):
        return f"a {type(value).__name__} whose name is no text"
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    plain = value.layout is strided and not value.is_meta
    return "" if plain else "a tensor that is sparse or has no data"


def read_tensors(path: Path) -> StateDict:
    """The dict of tensors of a safetensors file, on the CPU."""
    from safetensors.torch import load_file

    return load_file(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that were written beside the tensors of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
