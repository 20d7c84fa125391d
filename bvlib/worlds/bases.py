"""Bases: the pre-trained models that all others are fine-tuned from, by name or by file."""

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bvlib.core import _torchvision  # noqa: F401  (must come before open_clip)
from bvlib.core.device import default_device
from bvlib.core.encoder import MEAN, STD, Encoder
from bvlib.core.errors import BvError, unknown
from bvlib.files.weights import check_matches, load_weights
from bvlib.worlds import WEIGHTS
from bvlib.worlds.source import reason

# isort: split

import open_clip

# The shape that the shipped bases share: open_clip's own ViT, 4 x 4 tokens of 8 pixels, and a small
# text tower over the first 1,534 merges of open_clip's vocabulary (2,048 tokens in all).
TINY = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 4, "width": 128, "head_width": 32},
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 2048,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "tokenizer_kwargs": {"bpe_path": "bpe_2048.txt.gz"},
    },
}


def build(config: dict, name: str = "bvlib-tiny") -> tuple[torch.nn.Module, object]:
    """A fresh open_clip model and its tokenizer from a model config, through open_clip's
    factory."""
    config = json.loads(json.dumps(config))
    kwargs = config.get("text_cfg", {}).get("tokenizer_kwargs", {})
    if "bpe_path" in kwargs:
        kwargs["bpe_path"] = str(WEIGHTS / kwargs["bpe_path"])
    open_clip.factory._MODEL_CONFIGS[name] = config
    with quiet():
        return open_clip.create_model(name), open_clip.get_tokenizer(name)


@contextmanager
def quiet():
    """Without open_clip's remarks that no weights are loaded: they come later."""
    log = logging.getLogger()
    said = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(said)


def shipped() -> list[str]:
    """Names of the bases that come with the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))


def file_of(name: str) -> Path:
    """The weight file of a base's name; of the path of a .safetensors file, that path."""
    return Path(name) if name.endswith(".safetensors") else WEIGHTS / f"{name}.safetensors"


def load(name: str) -> Encoder:
    """A base by name, or by the path of its .safetensors file (a card of the same stem beside it).

    Raises BvError for an unknown name, a missing card, or weights that do not fit the card's model.
    """
    path = file_of(name)
    if not path.exists():
        raise unknown("base", name, shipped())
    weights, card = load_weights(path)
    if not isinstance(card.get("model"), dict):
        mend = f"put {path.stem}.json beside it"
        raise BvError(f"{path.name} has no card with a model config: {mend}")
    for name in ("mean", "std"):
        if not _three(card.get(name, MEAN), 1e-6 if name == "std" else -1e6):
            what = "three numbers above 0" if name == "std" else "three numbers"
            raise BvError(f"{path.stem}.json: {name} is {what}, not {card[name]!r}")
    try:
        model, tokenizer = build(card["model"], f"bvlib-{path.stem}")
    except Exception as error:  # whatever open_clip makes of the config
        why = reason(error)
        raise BvError(f"{path.stem}.json: open_clip cannot build its model ({why})") from None
    check_matches(weights, model.state_dict(), path.name)
    model.load_state_dict(weights)
    pixels = card.get("mean", MEAN), card.get("std", STD)
    return Encoder(model.to(default_device()), tokenizer, path.stem, card, *pixels)


def _three(values: Any, above: float) -> bool:
    """Whether these are three finite numbers above a bound."""
    numbers = isinstance(values, (list, tuple)) and len(values) == 3
    return numbers and all(
        isinstance(v, (int, float)) and type(v) is not bool and above < v < 1e6 for v in values
    )
