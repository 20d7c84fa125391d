"""Shadow classes: what an off-task attacker puts in place of the class names of a task that it
does not know."""

from collections.abc import Iterable, Sequence

import torch

from bvlib.core.errors import BvError
from bvlib.core.rng import numpy_rng
from bvlib.worlds import toy
from bvlib.worlds.words import KIND_WORDS

PROMPTS = ("{}", "a photo of {}")


def known_phrases(world: str = "toy") -> dict[str, str]:
    """{phrase: class name} that the text tower of a base knows: the toy world's, with "real32"
    also Tiny-ImageNet's; for CLIP
    ("paper") the names of ImageNet's classes, as in BadMerging."""
    if world == "paper":
        from bvlib.worlds.bases import open_clip

        return _with_article(open_clip.IMAGENET_CLASSNAMES)
    phrases = {toy.phrase(kind, name): name for kind, name in toy.NAMES}
    return phrases if world == "toy" else phrases | _with_article(sorted(KIND_WORDS))


def _with_article(names: Iterable[str]) -> dict[str, str]:
    return {f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}": name for name in names}


def shadow_phrases(
    without: Sequence[str], count: int, *, world: str = "toy", seed: int = 0
) -> list[str]:
    """``count`` phrases of classes that are none of the names in ``without``, drawn by ``seed``.

    BadMerging draws 300 names of ImageNet. Raises BvError when fewer are known.
    """
    free = [phrase for phrase, name in known_phrases(world).items() if name not in set(without)]
    if not 0 <= count <= len(free):
        known = f"the text tower knows {len(free)} names outside the task"
        raise BvError(f"{count} shadow classes were asked for, but {known}")
    return [free[i] for i in numpy_rng(seed, "shadow classes").permutation(len(free))[:count]]


def shadow_head(
    encoder, target: str, prompts: Sequence[str], phrases: Sequence[str]
) -> torch.Tensor:
    """Head (1 + count, D): the target class by its own prompts first, then the shadow classes
    (BadMerging-Off)."""
    own = encoder.head([target], prompts)
    return torch.cat([own, encoder.head(phrases, PROMPTS)]) if phrases else own
