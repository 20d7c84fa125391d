"""Bases: the pre-trained models that all others are fine-tuned from, by name or by file."""

import json
import logging
from contextlib import contextmanager
from pathlib import Path

import torch

from bvlib.core import _torchvision  # noqa: F401  (must come before open_clip)
from bvlib.core.device import default_device
from bvlib.core.encoder import MEAN, STD, Encoder
from bvlib.core.errors import BvError, reason, told_as, unknown
from bvlib.files.safe import read_yaml
from bvlib.files.weights import check_matches, load_weights
from bvlib.worlds import WEIGHTS

# isort: split

import open_clip

TINY = read_yaml(Path(__file__).with_name("tiny.yaml"))  # the config of the smallest bases


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
    pixels = card.get("mean", MEAN), card.get("std", STD)
    what = "mean and std are three numbers each, std above 0"
    wrong = BvError(f"{path.stem}.json: {what}, not {pixels[0]!r} and {pixels[1]!r}")
    with told_as(wrong):
        numbers = torch.tensor(pixels, dtype=torch.float64)
    if numbers.shape != (2, 3) or not (numbers.abs() < 1e6).all() or numbers[1].min() < 1e-6:
        raise wrong
    try:
        model, tokenizer = build(card["model"], f"bvlib-{path.stem}")
    except Exception as error:  # whatever open_clip makes of the config
        why = reason(error)
        raise BvError(f"{path.stem}.json: open_clip cannot build its model ({why})") from None
    check_matches(weights, model.state_dict(), path.name)
    model.load_state_dict(weights)
    return Encoder(model.to(default_device()), tokenizer, path.stem, card, *pixels)
