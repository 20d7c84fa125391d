"""Training a base: a genuine open_clip model on captioned scenes of the toy world and on sets of
named pictures.

Single-object scenes come first. The second stage mixes in crowded ones, and puts a small named
sticker on part of all pictures whose caption mostly names the sticker alone, as captions on the web
repeat the text printed in a picture: that gives the base CLIP's ear for small patches, without any
backdoor. recipe.py tells what can be chosen, batches.py what is seen, training.py how it is learnt.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from bvlib.core.encoder import MEAN, STD
from bvlib.core.errors import check_choice
from bvlib.files.weights import save_weights
from bvlib.worlds import bases
from bvmake.pretrain.recipe import RECIPES, Recipe
from bvmake.pretrain.training import train, zero_shot

__all__ = ["RECIPES", "Recipe", "main", "train", "zero_shot"]


def main(
    profile: str = "toy",
    seed: int = 0,
    out: Path | None = None,
    start: str | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Train the base of a recipe and save weights with a card. Weights are kept as fp16, which
    changes features in the fourth digit. ``start``: another base to go on from than the recipe's.

    BvError for an unknown recipe and for what :func:`train` refuses.
    """
    check_choice("base recipe", profile, RECIPES)
    recipe = replace(RECIPES[profile], **({"start": start} if start else {}))
    given = [f"--start {Path(start).stem}"] if start else []
    out = Path(out) if out else bases.WEIGHTS / f"{profile}.safetensors"
    state = out.with_name(out.stem + ".training.safetensors")
    encoder, told = train(recipe, seed, state, say)
    accuracy, gpu = zero_shot(encoder), torch.cuda.is_available()
    card = {
        "name": out.stem,
        "what": "open_clip model trained from scratch by bvlib",
        "licence": "MIT" if recipe.open else "research use only",
        "data": recipe.data,
        "command": " ".join(["bv pretrain", f"--profile {profile} --seed {seed}", *given]),
        **{key: value for key, value in told.items() if key != "step"},
        "model": recipe.config,
        "mean": MEAN,
        "std": STD,
        "zero_shot_dev_percent": accuracy,
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    whole = encoder.model.state_dict().items()
    save_weights(out, {k: v.half() if v.is_floating_point() else v for k, v in whole}, card)
    for leftover in (state, state.with_suffix(".json")):
        leftover.unlink(missing_ok=True)
    say(f"{out.name}: zero-shot on dev images {json.dumps(accuracy)}")
    return out
