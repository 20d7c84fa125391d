"""Golden values: what is compared, what may be written anew."""

import copy
import json

import numpy as np
import pytest
import torch
from helpers import one_line

from bvmake import golden

HERE = {"processor": "one", "threads": 1}


def values(**changes):
    """A small collection: one training, one merge made of it, one table."""
    tensors = {"w": torch.arange(2000.0).sin(), "b": torch.ones(7)}
    artefact = {
        "label": "weights/clean-digits/00#1",
        "notebook": "00_setup",
        "recipes": ["training:finetune/1"],
        "digest": "aa",
        "sketch": golden.sketch(tensors).tolist(),
        "scale": 10.0,
    }
    plain = {k: v for k, v in artefact.items() if k not in ("sketch", "scale")}
    made = {**plain, "label": "table/cleanse/00#1", "notebook": "07_more"}
    table = {**plain, "label": "tables/main.csv", "rows": [["name", "ASR"], ["badnets", 50.0]]}
    found = {"environment": HERE, "artefacts": [artefact, made], "tables": [table]}
    return {**copy.deepcopy(found), **changes}


def test_a_sketch_is_as_far_from_another_as_the_tensors_are():
    base = {"w": torch.zeros(4000), "b": torch.zeros(50)}
    far = [
        np.linalg.norm(
            golden.sketch({k: torch.randn(v.shape, generator=g) for k, v in base.items()})
        )
        for g in (torch.Generator().manual_seed(i) for i in range(40))
    ]
    assert np.mean(np.square(far)) == pytest.approx(4050, rel=0.1)
    one = {"w": torch.ones(4000), "b": torch.ones(50)}
    twice = {k: 2 * v for k, v in one.items()}
    assert golden.sketch(twice) == pytest.approx(2 * golden.sketch(one))
    assert not golden.sketch(base).any()


def test_equal_values_say_nothing():
    assert golden.compare(values(), values()) == []


def test_on_the_same_processor_every_bit_counts_and_the_first_that_differs_is_named():
    found = values()
    found["artefacts"][0] |= {"digest": "bb"}
    found["artefacts"][0]["sketch"][0] += 0.001
    found["tables"][0] |= {"digest": "bb"}
    first, second = golden.compare(values(), found)
    assert first.startswith("weights/clean-digits/00#1 (00_setup): differs by 0.0001 of what was")
    assert second.startswith("tables/main.csv (00_setup): ")


def test_what_is_missing_or_new_is_told():
    found = values()
    found["artefacts"][0]["label"] = "weights/clean-digits/11#1"
    missing, new = golden.compare(values(), found)
    assert missing == "weights/clean-digits/00#1: missing" and "11#1: new" in new


def test_elsewhere_near_is_enough_and_five_percent_more_learning_rate_is_not():
    elsewhere = {**HERE, "processor": "another"}
    for far, told in ((0.5 * golden.WEIGHTS, 0), (0.045, 1)):  # 5 % more: 0.041 and more, measured
        found = values(environment=elsewhere)
        found["artefacts"][0] |= {"digest": "bb"}
        found["artefacts"][0]["sketch"][0] += far * 10.0
        assert len(golden.compare(values(), found)) == told


def test_elsewhere_a_rate_may_count_two_images_more():
    elsewhere = {**HERE, "processor": "another"}
    for rate, told in ((50.0 + 0.9 * golden.POINTS, 0), (50.0 + 1.1 * golden.POINTS, 1)):
        found = values(environment=elsewhere)
        found["tables"][0] |= {"digest": "bb", "rows": [["name", "ASR"], ["badnets", rate]]}
        assert len(golden.compare(values(), found)) == told


def test_a_changed_value_is_written_only_with_a_raised_recipe(tmp_path):
    golden.write(tmp_path, "smoke", values())
    assert golden.read(tmp_path, "smoke") == json.loads(json.dumps(values()))
    found = values()
    found["artefacts"][0]["digest"] = "bb"
    with one_line("weights/clean-digits/00#1 differs", "training:finetune/1", "raise the version"):
        golden.write(tmp_path, "smoke", found)
    assert golden.compare(golden.read(tmp_path, "smoke"), values()) == []
    found["artefacts"][0]["recipes"] = ["training:finetune/2"]
    found["tables"][0]["digest"] = "cc"  # of the same notebook: made from that artefact
    golden.write(tmp_path, "smoke", found)
    assert golden.compare(golden.read(tmp_path, "smoke"), found) == []


def test_values_of_another_machine_do_not_replace_those_that_are_there(tmp_path):
    golden.write(tmp_path, "smoke", values())
    with one_line("were made with", "smoke.json"):
        golden.write(tmp_path, "smoke", values(environment={**HERE, "threads": 2}))


def test_the_base_of_smoke_stays(tmp_path):
    """Smoke keeps the small base of the first study, whatever base the default takes later."""
    from bvlib.run import settings
    from bvlib.worlds import bases

    card = bases.load(settings.load("smoke")["base"]).card
    assert card["sha256"] == "0fdbcfa21ab5a8c4f6092e8af12a08dea5d835df0db3d246ee49879f6e63418d"
