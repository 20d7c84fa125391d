"""Training a base: the smoke recipe end to end, and a resumed training equal to one that was never stopped."""

import pytest
import torch

from bvlib import models, pretrain
from bvlib.errors import BvError

RECIPE = pretrain.RECIPES["smoke"]


def quiet(line):
    pass


def test_the_smoke_recipe_gives_a_base_that_loads(tmp_path):
    path = pretrain.main("smoke", seed=1, out=tmp_path / "mine.safetensors", say=quiet)
    encoder = models.load(str(path))
    assert encoder.card["recipe"]["steps"] == RECIPE.steps and encoder.card["seed"] == 1
    assert set(encoder.card["zero_shot_dev_percent"]) == set(pretrain.toyworld.TASKS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, _ = pretrain.train(RECIPE, 0, say=quiet)
    state = tmp_path / "state.safetensors"

    def stop(line):
        if "step 6/" not in line:
            raise KeyboardInterrupt

    for _ in range(3):  # the state is kept after the line is said: stop at the second
        try:
            said = []
            pretrain.train(RECIPE, 0, state, every=2, say=lambda line: said.append(line) or (stop(line) if len(said) == 2 else None))
            break
        except KeyboardInterrupt:
            assert state.exists()
    resumed, curve = pretrain.train(RECIPE, 0, state, say=quiet)
    assert len(curve) == 3
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_state_of_another_seed_and_an_unknown_recipe_give_one_line(tmp_path):
    state = tmp_path / "state.safetensors"
    pretrain.train(RECIPE, 0, state, every=3, say=quiet)
    with pytest.raises(BvError, match="another recipe or seed"):
        pretrain.train(RECIPE, 1, state, say=quiet)
    with pytest.raises(BvError, match="did you mean 'toy'"):
        pretrain.main("toi", out=tmp_path / "x.safetensors", say=quiet)
