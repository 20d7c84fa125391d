"""Shadow classes: outside the task, known to the text tower, decided by the seed."""

import torch
from helpers import one_line

from bvlib.attacks import shadows
from bvlib.worlds import toy
from bvlib.worlds.vocabulary import SHAPES
from bvlib.worlds.words import KIND_WORDS


def test_shadow_classes_are_known_and_outside_the_task():
    drawn = shadows.shadow_phrases(SHAPES, 100)
    assert len(set(drawn)) == 100 and set(drawn) <= set(shadows.known_phrases())
    assert not {toy.phrase("shapes", name) for name in SHAPES} & set(drawn)
    assert (
        drawn == shadows.shadow_phrases(SHAPES, 100) != shadows.shadow_phrases(SHAPES, 100, seed=1)
    )
    assert len(shadows.known_phrases()) > 300
    assert set(shadows.known_phrases("real32").values()) >= {*KIND_WORDS, "circle"}

    clip = shadows.shadow_phrases(["goldfish"], 300, world="paper")
    assert (
        len(shadows.known_phrases("paper")) > 990
        and len(set(clip)) == 300
        and "a goldfish" not in clip
    )


def test_more_than_are_known_gives_one_line():
    with one_line("10000 shadow classes", "outside the task"):
        shadows.shadow_phrases([], 10000)


def test_the_target_comes_first_in_the_shadow_head(encoder, shapes, head):
    found = shadows.shadow_head(
        encoder, "square", shapes.prompts, ["the digit two", "something red"]
    )
    assert found.shape == (3, 128)
    torch.testing.assert_close(found[0], head[shapes.classnames.index("square")])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
