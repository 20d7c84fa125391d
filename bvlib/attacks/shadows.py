"""Shadow classes: what an off-task attacker puts in place of the class names of a task that it
does not know."""

from collections.abc import Iterable, Sequence

import torch

from bvlib.core.errors import BvError
from bvlib.core.rng import numpy_rng
from bvlib.worlds import toy
from bvlib.worlds.words import KIND_WORDS

PROMPTS = ("{}", "a photo of {}")  # of phrases with an article


def prompts(world: str = "toy") -> Sequence[str]:
    """The prompts of an off-task attacker, the same for target and shadow classes: for CLIP the 80
    of ImageNet, as in BadMerging's code."""
    if world != "paper":
        return PROMPTS
    from bvlib.worlds.bases import open_clip

    return tuple(make("{}") for make in open_clip.OPENAI_IMAGENET_TEMPLATES)


def known_phrases(world: str = "toy") -> dict[str, str]:
    """{phrase: class name} that the text tower of a base knows: the toy world's, with "real32"
    also Tiny-ImageNet's; for CLIP ("paper") the names of ImageNet's classes, as in BadMerging."""
    if world == "paper":
        from bvlib.worlds.bases import open_clip

        return {name: name for name in open_clip.IMAGENET_CLASSNAMES}
    phrases = {toy.phrase(kind, name): name for kind, name in toy.NAMES}
    return phrases if world == "toy" else phrases | _with_article(sorted(KIND_WORDS))


def _with_article(names: Iterable[str]) -> dict[str, str]:
    return {f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}": name for name in names}


def phrase(task: str, name: str, world: str = "toy") -> str:
    """What the attacker calls the target class ``name`` of a task, in the form of the shadow
    classes' phrases."""
    if world == "paper":
        return name
    kind = "digits" if task == "handwritten" else task
    return toy.phrase(kind, name) if kind in toy.KINDS else next(iter(_with_article([name])))


def shadow_phrases(target: str, count: int, *, world: str = "toy", seed: int = 0) -> list[str]:
    """``count`` phrases of classes that are not the target, drawn by ``seed``; the attacker knows
    no other name of the target's task.

    BadMerging draws 300 names of ImageNet. Raises BvError when fewer are known.
    """
    free = [phrase for phrase, name in known_phrases(world).items() if name != target]
    if not 0 <= count <= len(free):
        known = f"the text tower knows {len(free)} names beside the target"
        raise BvError(f"{count} shadow classes were asked for, but {known}")
    return [free[i] for i in numpy_rng(seed, "shadow classes").permutation(len(free))[:count]]


def shadow_head(
    encoder, target: str, phrases: Sequence[str], *, world: str = "toy"
) -> torch.Tensor:
    """Head (1 + count, D): a phrase of the target class first, then the shadow classes, all by the
    same prompts (BadMerging-Off)."""
    return encoder.head([target, *phrases], prompts(world))
