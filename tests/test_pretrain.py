"""Training a base: the smoke recipe end to end, what a batch holds, and a resumed training equal to
one that was never stopped."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bvlib.core.encoder import Encoder
from bvlib.core.errors import BvError, MissingData
from bvlib.worlds import bases, tasks, toy
from bvlib.worlds.table import SETS as SETS_KNOWN
from bvmake import pretrain
from bvmake.pretrain import augment, captions, pictures
from bvmake.pretrain.batches import Batch, Batches
from bvmake.pretrain.training import contrastive_loss, naming_loss

RECIPE = pretrain.RECIPES["smoke"]
SETS = {"caltech101": 0.3, "emoji": 0.1, "omniglot": 0.1}
CPU = torch.device("cpu")


def quiet(line):
    pass


@pytest.fixture(scope="module")
def tokenizer():
    return bases.build(RECIPE.config)[1]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three small sets of pictures, each class of one colour; those of emoji half transparent."""
    folder = tmp_path / "data" / "base"
    folder.mkdir(parents=True)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path / "data"))
    for name, classes in (("caltech101", 3), ("omniglot", 2)):
        labels, files = np.arange(60) % classes, []
        for label in labels:
            file = io.BytesIO()
            colour = tuple(int(c) for c in np.eye(3, dtype=int)[label] * 255)
            Image.new("RGB", (32, 32), colour).save(file, "JPEG")
            files.append(file.getvalue())
        np.savez(
            folder / f"{name}.npz",
            train_jpeg=np.frombuffer(b"".join(files), np.uint8),
            train_offsets=np.cumsum([0, *map(len, files)]),
            train_labels=labels,
            classnames=np.array([f"{name} {i}" for i in range(classes)]),
        )
    rgba = np.full((4, 32, 32, 4), 255, np.uint8)
    rgba[:, :16, :, 3] = 0
    names = np.array([f"emoji {i}" for i in range(4)])
    np.savez(folder / "emoji.npz", rgba=rgba, names=names, groups=names)
    return folder


def told(batches, batch):
    """The captions of a batch."""
    ends = (0, batches.start, batches.end)
    decode = bases.build(RECIPE.config)[1].decode
    return [decode([i for i in row if i not in ends]) for row in batch.tokens.tolist()]


# End to end


def test_the_smoke_recipe_gives_a_base_that_loads_and_the_same_file_twice(tmp_path):
    path = pretrain.main("smoke", seed=1, out=tmp_path / "mine.safetensors", say=quiet)
    encoder = bases.load(str(path))
    assert encoder.card["recipe"]["batch"] == RECIPE.batch and encoder.card["seed"] == 1
    assert set(encoder.card["zero_shot_dev_percent"]) == set(toy.TASKS)
    assert encoder.card["licence"] == "MIT" and "toy world" in encoder.card["data"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]
    again = pretrain.main("smoke", seed=1, out=tmp_path / "again.safetensors", say=quiet)
    assert again.read_bytes() == path.read_bytes()
    other = pretrain.main("smoke", seed=2, out=tmp_path / "other.safetensors", say=quiet)
    assert other.read_bytes() != path.read_bytes()


def test_a_base_goes_on_from_another_one_and_its_card_tells(tmp_path):
    first = pretrain.main("smoke", out=tmp_path / "first.safetensors", say=quiet)
    kept = bases.load(str(first))
    still = replace(RECIPE, lr=0.0, images=RECIPE.batch, start=str(first))
    encoder, _ = pretrain.train(still, 1, say=quiet)
    for name, tensor in kept.model.state_dict().items():
        assert torch.equal(tensor, encoder.model.state_dict()[name]), name
    more = pretrain.main("smoke", 1, tmp_path / "more.safetensors", str(first), say=quiet)
    card = bases.load(str(more)).card
    assert card["start"] == {"name": "first", "sha256": kept.card["sha256"]}
    assert card["command"] == "bv pretrain --profile smoke --seed 1 --start first"
    assert card["licence"] == "MIT" and "what the base first saw" in card["data"]
    assert card["recipe"]["start"] == "first" and str(tmp_path) not in json.dumps(card)
    assert not replace(RECIPE, start="real32").open
    with pytest.raises(BvError, match="base 'toy' has towers of another size than the recipe"):
        pretrain.train(replace(RECIPE, start="toy"), 0, say=quiet)
    with pytest.raises(BvError, match="did you mean 'toy'"):
        pretrain.train(replace(RECIPE, start="toi"), 0, say=quiet)


def test_half_precision_keeps_the_features_to_three_digits():
    encoder = bases.load("small")
    images = torch.from_numpy(toy.task_arrays("signs", "dev", 64, 1)[0])
    half = {name: tensor.half().float() for name, tensor in encoder.theta.items()}
    pixels = encoder.pixels(images)
    whole, rounded = (encoder.features(theta, pixels) for theta in (encoder.theta, half))
    assert ((whole - rounded).norm(dim=1) / whole.norm(dim=1)).max() < 1e-3


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, _ = pretrain.train(RECIPE, 0, say=quiet)
    state = tmp_path / "state.safetensors"

    def stop(line):
        if "step 4/" in line:
            raise KeyboardInterrupt  # the state of step 2 is there

    with pytest.raises(KeyboardInterrupt):
        pretrain.train(RECIPE, 0, state, say=stop, every=2)
    assert state.exists()
    resumed, card = pretrain.train(RECIPE, 0, state, say=quiet, every=2)
    assert [point["step"] for point in card["curve"]] == [2, 4, 6]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_the_curve_tells_of_the_model_at_each_step():
    encoder, card = pretrain.train(replace(RECIPE, lr=0.01), 0, say=quiet, every=3)
    fresh = Encoder(encoder.model, encoder.tokenizer)  # has no heads of earlier steps
    shares = pretrain.zero_shot(fresh, count=100).values()
    assert card["curve"][-1]["toy"] == round(sum(shares) / len(shares), 2)


def test_how_long_it_will_take_is_said_beforehand():
    said = []
    pretrain.train(replace(RECIPE, images=8 * RECIPE.batch), 0, say=said.append)
    (line,) = [line for line in said if "images/s" in line]
    assert "by the tower alone" in line and "minutes to go" in line


# Refused


def test_a_state_of_another_seed_and_an_unknown_recipe_give_one_line(tmp_path):
    state = tmp_path / "state.safetensors"
    pretrain.train(RECIPE, 0, state, say=quiet, every=3)
    with pytest.raises(BvError, match="another recipe or seed"):
        pretrain.train(RECIPE, 1, state, say=quiet)
    with pytest.raises(BvError, match="did you mean 'toy'"):
        pretrain.main("toi", out=tmp_path / "x.safetensors", say=quiet)


def test_sets_that_are_unknown_missing_or_too_many_are_told(tmp_path, monkeypatch):
    with pytest.raises(BvError, match="did you mean 'emoji'"):
        replace(RECIPE, sets={"emojis": 0.5})
    with pytest.raises(BvError, match="no room for scenes"):
        replace(RECIPE, sets={"emoji": 0.97})
    with pytest.raises(BvError, match="too many stickers"):
        replace(RECIPE, sets={"caltech101": 0.9}, stickers=0.5)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    with pytest.raises(MissingData, match=r"no emoji.npz in .*BVLIB_DATA"):
        pretrain.train(replace(RECIPE, sets={"emoji": 0.5}), 0, say=quiet)


def test_a_damaged_set_is_told(data):
    (data / "emoji.npz").write_bytes(b"PK nothing")
    with pytest.raises(BvError, match=r"emoji.npz: it is truncated or no npz"):
        pictures.read("emoji")


def test_every_set_of_a_recipe_is_told_in_the_readme_of_the_data():
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    for name, told in SETS_KNOWN.items():
        assert f"| {name} | {told['kind']} | {told['licence']} |" in text
    assert pretrain.RECIPES["toy"].open and not pretrain.RECIPES["real32"].open
    assert not set(SETS_KNOWN) & set(tasks.known())  # what a base has seen is no task


# What a batch holds


def test_sets_are_read_and_a_tenth_of_each_class_is_held_out(data):
    found = pictures.read("caltech101")
    assert found.classnames == ["caltech101 0", "caltech101 1", "caltech101 2"]
    assert np.bincount(found.labels).tolist() == [18] * 3
    assert np.bincount(found.held[1]).tolist() == [2] * 3
    assert pictures.read("emoji").images.shape == (4, 32, 32, 4)


def test_every_picture_is_what_its_caption_and_names_say(data, tokenizer):
    recipe = replace(RECIPE, sets=SETS, batch=100, images=1000, stickers=0, erased=0, mixed=0)
    batches = Batches(recipe, 0, tokenizer, list(map(pictures.read, SETS)))
    batch = batches(2)
    assert batch.x.shape == (100, 3, 32, 32) and batch.x.min() >= 0 and batch.x.max() <= 1
    assert torch.allclose(batch.names.sum(1), torch.ones(100))
    said = told(batches, batch)
    for i in range(50):
        (name,) = batch.names[i].nonzero()[:, 0]
        assert "".join(batches.names[name].split()) in "".join(said[i].split())
    for i in range(30):  # photos of one colour each; their class is that colour
        strongest = batch.x[i].mean((1, 2))
        if strongest.max() - strongest.min() > 0.2:
            assert batches.names[batch.names[i].argmax()] == f"caltech101 {strongest.argmax()}"
    again = batches(2)
    assert torch.equal(batch.x, again.x) and torch.equal(batch.tokens, again.tokens)
    assert not torch.equal(batch.x, batches(3).x)


def test_stickers_come_in_the_second_stage_and_captions_mostly_name_them_alone(data, tokenizer):
    recipe = replace(RECIPE, sets=SETS, batch=200, images=2000, erased=0, mixed=0)
    with_them = Batches(recipe, 0, tokenizer, list(map(pictures.read, SETS)))
    without = Batches(replace(recipe, stickers=0), 0, tokenizer, list(map(pictures.read, SETS)))
    for step, stuck in ((0, 0), (9, 70)):
        batch, plain = with_them(step), without(step)
        changed = (batch.x != plain.x).flatten(1).any(1)
        assert changed.sum() <= stuck and changed.sum() >= 0.9 * stuck
        kept = ~changed & (batch.tokens == plain.tokens).all(1)
        assert torch.equal(batch.names[kept], plain.names[kept])
    shares = batch.names[changed].max(1).values
    assert 0.7 * len(shares) < (shares == 1).sum()  # one name: the sticker's
    assert any("a sticker of" in text for text in told(with_them, batch))


def test_mixed_photos_say_both_and_how_much(data, tokenizer):
    recipe = replace(RECIPE, sets=SETS, batch=100, images=1000)
    batches = Batches(recipe, 0, tokenizer, list(map(pictures.read, SETS)))
    batch, late = batches(0), batches(9)
    assert batch.partner[:15].tolist() == list(range(14, -1, -1))
    assert (batch.share[:15] < 1).sum() >= 13 and (batch.share[15:] == 1).all()
    assert (late.share == 1).all()


# Parts, by hand


def test_bodies_join_as_their_words_are_tokenised(tokenizer):
    parts = ["a photo of", "the digit one", "and", "a red circle"]
    split = [captions.bodies(tokenizer, [text]) for text in parts]
    start, end = tokenizer([""])[0, :2].tolist()
    rows = captions.tokens(captions.join(*split), start, end)
    assert torch.equal(rows, tokenizer([" ".join(parts)]))
    long = captions.join(*(split * 5))
    assert long[0, 0].item() == captions.ROOM and captions.tokens(long, start, end)[0, -1] == end


def test_captions_in_groups_of_like_length_have_the_same_features(tokenizer):
    model = bases.build(RECIPE.config)[0]
    texts = ["the digit one", "a red circle and a blue square", "the digit one", "dots", "a sign"]
    rows = tokenizer(texts)
    once, each = captions.features(model, rows), captions.text_features(model, rows)
    assert torch.allclose(once, each, atol=1e-5)


def test_layers_cover_what_is_below_as_much_as_they_are_opaque():
    below = torch.full((1, 3, 2, 2), 0.5)
    layers = torch.tensor([0.2, 0.2, 0.2, 0.8])[None, :, None, None].expand(1, 4, 2, 2)
    assert torch.allclose(augment.over(below, layers), torch.full((1, 3, 2, 2), 0.3))
    small = augment.as_layers(torch.ones(50, 3, 5, 5))
    large = augment.placed(small, augment.Dice(0, CPU))
    assert (large[:, 3].sum((1, 2)) == 25).all() and torch.equal(large[:, 0], large[:, 3])
    columns = large[:, 3].any(1).float().argmax(1)
    assert columns.min() == 0 and columns.max() == 27  # against both edges


def test_losses_by_hand():
    tokens = torch.tensor([[1, 2], [1, 3], [1, 2]])  # the first and the last caption are equal
    names = torch.eye(3)
    plain = Batch(torch.zeros(3), tokens, names, torch.ones(3), torch.arange(3))
    even = contrastive_loss(torch.zeros(3, 3), plain)
    assert torch.isclose(even, torch.tensor(3.0).log())
    sure = 30.0 * torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    expected = 2 / 3 * torch.tensor(2.0).log()  # two of three rows have two equal targets
    assert torch.isclose(contrastive_loss(sure, plain), expected, atol=1e-4)
    mixed = Batch(
        torch.zeros(3), tokens, names, torch.tensor([0.75, 1, 1]), torch.tensor([1, 1, 2])
    )
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]] * 3))
    by_hand = -(0.75 * np.log(0.6) + 0.25 * np.log(0.3) + np.log(0.3) + np.log(0.1)) / 3
    assert naming_loss(logits, mixed).item() == pytest.approx(by_hand, abs=1e-5)
