"""Training a base: the smoke recipe end to end, and a resumed training equal to one that was never
stopped."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bvlib.core.encoder import text_features
from bvlib.core.errors import BvError
from bvlib.worlds import bases, images, pretrain, toy

RECIPE = pretrain.RECIPES["smoke"]


def quiet(line):
    pass


def test_the_smoke_recipe_gives_a_base_that_loads(tmp_path):
    path = pretrain.main("smoke", seed=1, out=tmp_path / "mine.safetensors", say=quiet)
    encoder = bases.load(str(path))
    assert encoder.card["recipe"]["steps"] == RECIPE.steps and encoder.card["seed"] == 1
    assert set(encoder.card["zero_shot_dev_percent"]) == set(pretrain.toy.TASKS)
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
            pretrain.train(
                RECIPE,
                0,
                state,
                every=2,
                say=lambda line, said=said: (
                    said.append(line) or (stop(line) if len(said) == 2 else None)
                ),
            )
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


def test_stickers_come_in_the_second_stage_and_captions_mostly_name_them_alone():
    recipe = replace(pretrain.RECIPES["toy"], steps=10, batch=200)
    plain, _, first = pretrain.Scenes(replace(recipe, stickers=0.0), 0)(9)
    for step, stuck in ((0, False), (9, True)):
        images, captions, names = pretrain.Scenes(recipe, 0)(step)
        assert (
            images.shape == (200, 32, 32, 3)
            and len(captions) == 200
            and names.shape == (200, len(toy.NAMES))
        )
        assert any("sticker" in c for c in captions) == stuck
    changed = (images != plain).any((1, 2, 3))
    assert changed.sum() == 80 and (changed & (names.sum(1) == 1).numpy()).sum() > 50
    assert torch.equal(names[~torch.from_numpy(changed)], first[~torch.from_numpy(changed)])


def test_real_images_bring_their_names_and_thumbnails(monkeypatch):
    rng = np.random.default_rng(0)
    pools = {
        n: SimpleNamespace(
            classnames=[f"{n} {i}" for i in range(3)],
            train_labels=np.arange(30) % 3,
            train_images=rng.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8),
        )
        for n in ("tinyimagenet", "omniglot")
    }
    monkeypatch.setattr(images, "load", pools.__getitem__)
    scenes = pretrain.Scenes(replace(pretrain.RECIPES["real32"], steps=4, batch=100), 0)
    drawn, captions, names = scenes(3)
    assert names.shape == (100, len(toy.NAMES) + 6) and drawn.dtype == np.uint8
    real = names[:, len(toy.NAMES) :].sum(1) > 0
    assert (
        50 <= real.sum() <= 80
    )  # 60 photographs, some under a sticker of the toy world, and thumbnails on toy scenes
    for caption, row in zip(captions, names):
        assert all(scenes.names[i][1].split()[-1] in caption for i in torch.nonzero(row)[:, 0])


def test_captions_in_groups_of_like_length_have_the_same_features():
    model, tokenizer = bases.build(bases.TINY)
    captions = [
        "the digit one",
        "a red circle and a blue square on green",
        "the digit one",
        "dots",
        "a photo of a stop sign",
    ]
    grouped = pretrain.caption_features(model, tokenizer, captions, torch.device("cpu"))
    assert torch.allclose(grouped, text_features(model, tokenizer(captions)), atol=1e-5)


def test_a_recipe_may_start_from_a_shipped_base():
    model, _ = pretrain.train(replace(RECIPE, start="toy", steps=0), 0, say=quiet)
    toy = bases.load("toy").model.state_dict()
    assert all(torch.equal(tensor, toy[name].cpu()) for name, tensor in model.state_dict().items())
    with pytest.raises(BvError, match="did you mean 'toy'"):
        pretrain.train(replace(RECIPE, start="toi"), 0, say=quiet)
