"""Shadow classes: outside the task, known to the text tower, decided by the seed."""

import torch
from helpers import one_line

from bvlib.attacks import shadows
from bvlib.worlds import toy
from bvlib.worlds.vocabulary import SHAPES
from bvlib.worlds.words import KIND_WORDS


def test_shadow_classes_are_known_and_none_is_the_target():
    drawn = shadows.shadow_phrases("square", 100)
    assert len(set(drawn)) == 100 and set(drawn) <= set(shadows.known_phrases())
    every = shadows.shadow_phrases("square", len(shadows.known_phrases()) - 1)
    assert "a square" not in every  # and all other shapes, which the attacker does not know of
    assert {toy.phrase("shapes", name) for name in SHAPES} - {"a square"} <= set(every)
    again, other = (shadows.shadow_phrases("square", 100, seed=seed) for seed in (0, 1))
    assert drawn == again != other
    assert set(shadows.known_phrases("real32").values()) >= {*KIND_WORDS, "circle"}

    clip = shadows.shadow_phrases("goldfish", 300, world="paper")
    assert len(shadows.known_phrases("paper")) > 990
    assert len(set(clip)) == 300 and "goldfish" not in clip


def test_more_than_are_known_gives_one_line():
    with one_line("10000 shadow classes", "beside the target"):
        shadows.shadow_phrases("square", 10000)


def test_target_and_shadow_classes_have_the_same_prompts(encoder):
    phrases = ["the digit two", "something red"]
    found = shadows.shadow_head(encoder, shadows.phrase("shapes", "square"), phrases)
    assert found.shape == (3, 128)
    torch.testing.assert_close(found, encoder.head(["a square", *phrases], shadows.PROMPTS))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert shadows.phrase("handwritten", "seven") == "the digit seven"
    assert shadows.phrase("fashion_mnist", "ankle boot", "real32") == "an ankle boot"
    assert shadows.phrase("cars", "Audi TT", "paper") == "Audi TT"
    clip = shadows.prompts("paper")
    assert len(clip) == 80 and "a bad photo of a {}." in clip
