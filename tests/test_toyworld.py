"""The toy world: deterministic, balanced, captions that tell the truth, and factors that are
really held out."""

from itertools import combinations

import numpy as np
import pytest
from helpers import one_line

from bvlib.core.rng import numpy_rng
from bvlib.worlds import glyphs, painter, tasks, toy
from bvlib.worlds.vocabulary import COLOUR_NAMES, RGB
from bvmake.pretrain import scenes

SPLITS = ("train", "dev", "test")


@pytest.fixture
def drawn(monkeypatch):
    """(things, frequency range) of every call that paints, in order."""
    calls, draw = [], painter.draw

    def record(canvas, things, rng, *frequency):
        calls.append((things, *frequency))
        draw(canvas, things, rng, *frequency)

    monkeypatch.setattr(painter, "draw", record)
    return calls


@pytest.fixture
def stamped(monkeypatch):
    """The atlas keys of every mask that is placed, as a set; clear it between uses."""
    keys, stamp = set(), painter.stamp
    names = {index: key for key, index in painter.atlas()[1].items()}

    def record(index, *rest):
        keys.update(names[i] for i in index.tolist())
        return stamp(index, *rest)

    monkeypatch.setattr(painter, "stamp", record)
    return keys


def objects(drawn, task, split, n=600):
    """What a split draws as its objects (not the clutter behind them), and the frequencies of its
    patterns."""
    drawn.clear()
    toy.task_arrays(task, split, n, 0)
    return drawn[-1]


def disjoint(sets):
    return all(not a & b for a, b in combinations(sets, 2))


# The same for a seed, and balanced


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", toy.TASKS)
def test_a_seed_decides_the_images(task, split):
    images, labels = toy.task_arrays(task, split, 30, 7)
    again, labels_again = toy.task_arrays(task, split, 30, 7)
    assert images.shape == (30, 32, 32, 3) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)
    assert not np.array_equal(images, toy.task_arrays(task, split, 30, 8)[0])


@pytest.mark.parametrize("crowded", [False, True])
def test_a_seed_decides_the_scenes(crowded):
    first, same, other = (
        scenes.scenes(20, numpy_rng(seed, "scenes"), crowded) for seed in (0, 0, 1)
    )
    assert np.array_equal(first[0], same[0]) and first[1] == same[1]
    assert not np.array_equal(first[0], other[0]) and first[1] != other[1]


@pytest.mark.parametrize("task", toy.TASKS)
def test_classes_are_all_there_and_balanced_to_one(task):
    classes = len(toy.KINDS[task])
    for split in SPLITS:
        counts = np.bincount(toy.task_arrays(task, split, 3 * classes + 2, 0)[1], minlength=classes)
        assert len(counts) == classes and counts.min() == 3 and counts.max() == 4


@pytest.mark.parametrize("name", [*toy.TASKS, tasks.HANDWRITTEN])
def test_splits_share_no_image(name):
    task = tasks.load(name, {"train": 1100, "dev": 200, "test": 497})
    assert disjoint(
        [{image.numpy().tobytes() for image in getattr(task, split).images} for split in SPLITS]
    )


# Held out


@pytest.mark.parametrize("task", toy.TASKS)
def test_pairs_of_colours_are_held_out_and_readable(drawn, task):
    pairs = []
    for split in SPLITS:
        things = objects(drawn, task, split)[0]
        assert (np.abs(things.colour - things.back).max(1) > 0.1).all()
        pairs.append(
            {(tuple(f), tuple(b)) for f, b in zip(things.colour.tolist(), things.back.tolist())}
        )
        assert {f for f, _ in pairs[-1]} == {tuple(rgb) for rgb in RGB.tolist()}
    assert disjoint(pairs)


def test_fonts_are_distinct_across_splits_and_the_base():
    fonts = [font for group in glyphs.FONTS.values() for font in group]
    assert set(glyphs.FONTS) == {"base", *SPLITS} and len(set(fonts)) == len(fonts)
    masks, where = painter.atlas()[0][0], painter.atlas()[1]
    for word in toy.NUMBER_WORDS:
        written = [
            masks[where["digits", word, split, f]]
            for split in glyphs.FONTS
            for f in range(len(glyphs.FONTS[split]))
        ]
        assert all(np.abs(a - b).max() > 0.5 for a, b in combinations(written, 2))


@pytest.mark.parametrize("task", ["digits", "letters"])
def test_a_split_writes_in_its_own_fonts_only(stamped, task):
    for split in SPLITS:
        stamped.clear()
        toy.task_arrays(task, split, 300, 0)
        assert {key[2:] for key in stamped if key[0] == task} == {
            (split, f) for f in range(len(glyphs.FONTS[split]))
        }


@pytest.mark.parametrize("crowded", [False, True])
def test_the_base_sees_only_its_own_fonts(stamped, crowded):
    scenes.scenes(300, numpy_rng(0, "scenes"), crowded)
    assert {key[2] for key in stamped if key[0] in ("digits", "letters")} == {"base"}


@pytest.mark.parametrize("task", ["shapes", "signs"])
def test_tilts_are_held_out(drawn, task):
    train, dev, test = (np.abs(objects(drawn, task, split)[0].turn) for split in SPLITS)
    assert train.max() <= dev.min() and dev.max() <= test.min()


def test_frequencies_of_textures_are_held_out(drawn):
    train, dev, test = (objects(drawn, "textures", split, 20)[1] for split in SPLITS)
    assert train[0] < train[1] <= dev[0] < dev[1] <= test[0] < test[1]


# Stickers


def test_a_sticker_changes_one_small_square_and_says_what_it_shows(drawn):
    images = np.full((60, 32, 32, 3), 128, np.uint8)
    stuck, words, names = scenes.stickers(images, numpy_rng(0, "stickers"))
    [(things, *_)] = drawn
    edge = 0
    for before, after, word, name, kind, drawn_name in zip(
        images, stuck, words, names, things.kind, things.name
    ):
        rows, columns = np.nonzero((before != after).any(-1))
        assert np.ptp(rows) < 9 and np.ptp(columns) < 9
        assert toy.NAMES[name] == (kind, drawn_name) and kind != "textures"
        assert all(part in word for part in toy.phrase(kind, drawn_name).split()[1:])
        edge += rows.min() == 0 or rows.max() == 31 or columns.min() == 0 or columns.max() == 31
    assert (
        edge > 20 and (images == 128).all()
    )  # many against an edge; what was handed over stays as it was
    again = scenes.stickers(images, numpy_rng(0, "stickers"))
    assert np.array_equal(stuck, again[0]) and words == again[1]


# Names and captions


def test_the_text_tower_is_told_more_than_300_names():
    assert len({name for _, name in toy.NAMES}) >= 300 and len(set(toy.NAMES)) == len(toy.NAMES)


@pytest.mark.parametrize(
    "words, text",
    [
        (("digits", "seven", "red"), "a red digit seven"),
        (("digits", "seven"), "the digit seven"),
        (("shapes", "arrow"), "an arrow"),
        (("shapes", "arrow", "orange"), "an orange arrow"),
        (("signs", "stop"), "a stop sign"),
        (("colours", "blue", "blue"), "something blue"),
        (("textures", "dots", "pink"), "a pink pattern of dots"),
    ],
)
def test_phrases(words, text):
    assert toy.phrase(*words) == text


@pytest.mark.parametrize("crowded", [False, True])
def test_captions_name_what_was_drawn(drawn, crowded):
    _, captions, names, colours = scenes.scenes(200, numpy_rng(3, "scenes"), crowded)
    said, told_colours = [[] for _ in captions], [[] for _ in captions]
    background = drawn[0][0].back
    for k, (things, _) in enumerate(drawn):
        shown = np.flatnonzero(names[:, k] >= 0)
        assert len(shown) == len(things.kind)
        for i, kind, name, rgb in zip(shown, things.kind, things.name, things.colour):
            assert toy.NAMES[names[i, k]] == (kind, name)
            colour = None if kind == "signs" else COLOUR_NAMES[colours[i, k]]
            assert colour is None or np.array_equal(RGB[colours[i, k]], rgb)
            said[i].append(toy.phrase(kind, name))
            told_colours[i].append(toy.phrase(kind, name, colour))
    for caption, plain, coloured, back in zip(captions, said, told_colours, background):
        text, _, ground = caption.removeprefix("a photo of ").partition(" on ")
        assert sorted(text.split(" and ")) in (sorted(plain), sorted(coloured))
        assert not ground or np.array_equal(RGB[COLOUR_NAMES.index(ground)], back)
    assert max(map(len, said)) == (4 if crowded else 1)


def test_unknown_names_give_one_line():
    with one_line("unknown toy task 'shape'", "did you mean 'shapes'?"):
        toy.task_arrays("shape", "train", 4, 0)
    with one_line("unknown split 'val'", "known: train, dev, test"):
        toy.task_arrays("shapes", "val", 4, 0)
