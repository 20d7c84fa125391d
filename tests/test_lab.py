"""The lab in the smoke profile: names checked first, models made once, the equations it stands
for."""

import dataclasses
import json
import math

import pandas as pd
import pytest
import torch
from helpers import one_line, same_bits

from bvlib.attacks import evasion
from bvlib.attacks.shadows import PROMPTS
from bvlib.core import metrics, training
from bvlib.core.vectors import BackdoorVector, TaskVector
from bvlib.core.versions import recipe as version_of
from bvlib.defences import detectors
from bvlib.merging import merge, merging
from bvlib.run import store
from bvlib.run.lab import Lab
from bvlib.study import experiments, figures

NOTEBOOK = "02_bv_computation"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Where runs and store of these tests lie."""
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BVLIB_STORE", str(folder / "store"))
        patch.setenv("BVLIB_RUNS", str(folder / "runs"))
        yield folder


def start(**parameters):
    return Lab.start(NOTEBOOK, **{"profile": "smoke", **parameters})


@pytest.mark.parametrize(
    "method, given, told", [("iso_c", 0.5, True), ("iso_c", None, False), ("ties", 0.5, False)]
)
def test_a_coefficient_that_the_merge_does_not_have_is_told(method, given, told, capsys):
    start(merging=method, coefficient=given)
    assert ("note: iso_c has no coefficient" in capsys.readouterr().out) == told


@pytest.fixture(scope="module")
def lab(folder):
    return start()


# Names


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"tasks": ["digits", "shaeps"]}, ("unknown task 'shaeps'", "did you mean 'shapes'?")),
        (
            {"attack": "badmerging"},
            ("unknown attack 'badmerging'", "did you mean 'badmerging-on'?"),
        ),
        ({"merging": "tise"}, ("unknown merging method 'tise'", "did you mean 'ties'?")),
        ({"profile": "smok"}, ("unknown profile 'smok'", "did you mean 'smoke'?")),
        (
            {"profile": "paper", "base": "ViT-B-23"},
            ("unknown open_clip model", "ViT-B-23", "ViT-B-32"),
        ),
        ({"target_class": 10}, ("target_class 10 is not a class of 'digits'", "0 to 9")),
        ({"target_class": -1}, ("target_class -1",)),
        ({"tasks": ["digits", "shapes", "shapes"]}, ("task 'shapes' is merged with itself",)),
        ({"adversary": "letters"}, ("'letters'", "digits, shapes, handwritten")),
        ({"base": "smal"}, ("unknown base 'smal'", "did you mean 'small'?")),
    ],
)
def test_wrong_names_give_one_line(parameters, words):
    with one_line(*words):
        start(**parameters)


def test_a_missing_dataset_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    with one_line("cifar10"):
        start(tasks=["digits", "cifar10"])


def test_a_trigger_that_does_not_fit_gives_one_line():
    with one_line("33×33 px is larger than the image of 32×32 px"):
        start(trigger_size=33, attack="badnets").backdoor()


# Parameters and folders


def test_explicit_values_win_over_the_profile_and_go_to_a_folder_of_their_own(lab, folder):
    assert (
        lab.out == folder / "runs" / "smoke" / "seed-0"
        and lab.p["coefficient"] == 0.3
        and lab.target == 1
    )
    same, other = start(coefficient=0.3, merging=None), start(coefficient=0.5, seed=4)
    assert same.out == lab.out and other.p["coefficient"] == 0.5 and other.seed == 4
    assert other.out.parent == lab.out.parent and other.out.name.startswith("seed-4+")
    assert start(out=str(folder / "mine")).out == folder / "mine"


def test_attacker_and_defender_have_disjoint_halves(lab):
    whole, a, b = lab.adversary.train, lab.data(lab.adversary), lab.data(lab.adversary, "b")
    assert len(a) + len(b) == len(whole)
    images = [{image.numpy().tobytes() for image in part.images} for part in (a, b, whole)]
    assert not images[0] & images[1] and images[0] | images[1] == images[2]
    assert len(lab.data(lab.tasks["shapes"])) == len(lab.tasks["shapes"].train)


# Models


def made(lab, name):
    return [entry["made"] for entry in lab.store.records() if entry["name"] == name]


def test_a_model_is_made_once_and_then_loaded(lab):
    first = lab.clean("shapes")
    assert same_bits(first, lab.clean("shapes")) and made(lab, "clean-shapes") == [True]
    again = start()
    assert same_bits(first, again.clean("shapes")) and made(again, "clean-shapes") == [False]
    assert not same_bits(first, lab.clean("shapes", seed=1)) and not same_bits(first, lab.base)


def test_without_a_number_of_steps_a_training_takes_the_papers_epochs(lab, monkeypatch):
    assert lab.schedule(lab.adversary) == lab.p["train"]
    monkeypatch.setitem(lab.p, "train", {**lab.p["train"], "steps": None, "batch": 16})
    images = len(lab.adversary.train)
    for name, steps in (
        ("gtsrb", 11 * math.ceil(images / 16)),
        ("pets", 77 * math.ceil(images / 16)),
        ("tinyimagenet", 2000),
    ):
        assert lab.schedule(dataclasses.replace(lab.adversary, name=name)) == {
            **lab.p["train"],
            "steps": steps,
        }


def test_neural_cleanse_judges_as_many_images_as_it_is_told(lab, monkeypatch):
    seen, method = [], detectors.detector["neural-cleanse"]

    def judge(*args, **how):
        seen.append((len(args[3]), how))
        return pd.DataFrame({"class": [0]})

    faked = dataclasses.replace(method, function=judge)
    monkeypatch.setitem(detectors.detector, "neural-cleanse", faked)
    for images in (5, None):
        how = {**lab.p["neural_cleanse"], **({"images": images} if images else {})}
        with monkeypatch.context() as patch:
            patch.setitem(lab.p, "neural_cleanse", how)
            lab.cleanse("base", lab.base)
    usual = {**lab.p["neural_cleanse"], "seed": lab.seed}
    assert seen == [(5, usual), (len(lab.adversary.dev), usual)]


def test_adversaries_that_share_a_store_keep_their_own_halves(lab, folder, monkeypatch):
    other = start(adversary="shapes")
    assert other.p["adversary"] == "shapes" and other.store.root == lab.store.root
    for name in ("digits", "shapes"):
        assert not same_bits(lab.clean(name), other.clean(name)), (
            f"{name}: whole for one, half for the other"
        )
        white = [each.trigger("universal", task=name).identity for each in (lab, other)]
        assert white[0] != white[1], "optimised on another half"
    monkeypatch.setenv("BVLIB_STORE", str(folder / "alone"))
    assert same_bits(start(adversary="shapes").clean("shapes"), other.clean("shapes"))


def test_a_backdoor_vector_is_what_joins_its_two_models(lab):
    backdoor = lab.backdoor()
    assert (backdoor.attack, backdoor.task, backdoor.target) == ("badmerging-on", "digits", 1)
    assert isinstance(backdoor.vector, BackdoorVector) and backdoor.vector.norm() > 0
    assert same_bits(
        backdoor.vector.tensors, BackdoorVector.between(backdoor.theta, lab.clean()).tensors
    )
    for key, tensor in (lab.clean() + backdoor.vector).items():
        torch.testing.assert_close(tensor, backdoor.theta[key], rtol=1e-6, atol=1e-7)
    assert backdoor.trigger.name == "universal" and backdoor.trigger.patch.shape == (3, 6, 6)


def test_the_clean_twin_is_the_runs_own_unless_independent(lab):
    near, far = lab.backdoor("badnets", seed=1), lab.backdoor("badnets", seed=1, independent=True)
    assert same_bits(near.theta, far.theta) and not same_bits(
        near.vector.tensors, far.vector.tensors
    )
    assert same_bits(
        far.vector.tensors, BackdoorVector.between(far.theta, lab.clean(seed=1)).tensors
    )


@pytest.mark.parametrize(
    "change",
    [
        {"target": 2},
        {"place": "top-left"},
        {"size": 4},
        {"half": "b"},
        {"trigger": "checkerboard"},
        {"attack": "interpolation-only"},
    ],
)
def test_each_axis_of_an_attack_makes_another_model(lab, change):
    assert not same_bits(
        lab.backdoor("badnets").theta, lab.backdoor(**{"attack": "badnets", **change}).theta
    )


def test_a_merge_with_one_changed_model_differs_by_that_model(lab):
    clean, backdoor = lab.merge(), lab.backdoor()
    assert same_bits(clean.theta, lab.merge(lab.clean()).theta)
    attacked = lab.merge(backdoor.theta)
    difference = TaskVector.between(attacked.theta, clean.theta)
    assert difference.cosine(backdoor.vector) == pytest.approx(1, abs=1e-4)
    assert difference.norm() == pytest.approx(0.3 * backdoor.vector.norm(), rel=1e-3)


def test_merging_methods_take_what_they_declare(lab):
    three = ("average", "task_arithmetic", "ties")
    merges = {method: lab.merge(method=method).theta for method in three}
    assert same_bits(merges["task_arithmetic"], lab.merge().theta) and not same_bits(
        merges["ties"], merges["average"]
    )
    assert not same_bits(lab.merge(coefficient=0.5).theta, lab.merge().theta)
    third = TaskVector.between(lab.merge(coefficient=1 / 3).theta, merges["average"])
    assert third.norm() < 1e-5 * TaskVector.between(merges["average"], lab.base).norm()
    with one_line("unknown merging method 'tise'", "did you mean 'ties'?"):
        lab.merge(method="tise")


# Adversaries


def test_an_off_task_adversary_sees_a_few_training_images_and_no_other_name(lab):
    goal, other = lab.goal("badmerging-off"), lab.tasks["shapes"]
    assert (goal.task, goal.target, goal.index) == ("shapes", 1, 0) and goal.head.shape == (
        1 + 20,
        128,
    )
    torch.testing.assert_close(goal.head[0], lab.head(other)[1])
    train = {image.numpy().tobytes() for image in other.train.images[other.train.labels == 1]}
    assert len(goal.images) == 3 and {image.numpy().tobytes() for image in goal.images} <= train
    own = lab.goal("off-no-shadow")
    torch.testing.assert_close(
        own.head[1:],
        lab.encoder.head(
            [lab.adversary.prompts[0].format(n) for n in lab.adversary.classnames], PROMPTS
        ),
    )


def test_an_off_task_attack_never_reads_a_test_image(lab):
    blind = start()
    for name, task in blind.tasks.items():
        blank = dataclasses.replace(task, test=None)
        blank.__dict__["digest"] = (
            task.digest
        )  # of the whole task: the key of what is trained on it
        blind.tasks[name] = blank
    blind.adversary = blind.tasks["digits"]
    for attack in ("badmerging-off", "off-no-augmentation", "badmerging-on", "label-consistent"):
        blind.store = store.Store(blind.store.root.with_name("blind-store"))
        assert same_bits(blind.backdoor(attack).theta, lab.backdoor(attack).theta)


def test_an_off_task_backdoor_aims_at_the_other_task(lab):
    backdoor = lab.backdoor("badmerging-off")
    assert (backdoor.task, backdoor.goal_task, backdoor.target) == (
        "digits",
        "shapes",
        1,
    ) and backdoor.trigger.size == 7
    assert not same_bits(
        backdoor.theta, lab.backdoor("badmerging-off", off={"references": 1}).theta
    )
    with one_line(
        "unknown setting of the off-task attack 'reference'", "did you mean 'references'?"
    ):
        lab.backdoor("badmerging-off", off={"reference": 1})
    with one_line("aims at another task than the adversary's own 'digits'"):
        lab.backdoor("badmerging-off", off={"task": "digits"})
    with one_line("target_class 99 is not a class of 'shapes'"):
        lab.backdoor("badmerging-off", 99)


def test_an_adversary_of_the_off_task_goal_turns_to_the_usual_adversary():
    assert start(adversary="shapes").p["off_task"]["task"] == "digits"
    assert start(off_task={"references": 1}).p["off_task"] == {
        **start().p["off_task"],
        "references": 1,
    }


def test_an_informed_adversary_optimises_on_the_others_merge(lab):
    others = {name: tau for name, tau in lab.vectors().items() if name != "digits"}
    wanted = lab.base + 0.3 * sum(others.values())
    for key, tensor in lab.others().items():
        torch.testing.assert_close(tensor, wanted[key])
    assert not torch.equal(
        lab.trigger("universal", informed=True).patch, lab.trigger("universal").patch
    )
    assert not same_bits(lab.backdoor(informed=True).theta, lab.backdoor().theta)


def test_several_backdoors_have_a_trigger_each(lab):
    backdoor = lab.backdoor(targets=[1, 3])
    assert [c for _, c in backdoor.pairs] == [1, 3] and backdoor.target == 1
    for trigger, target in backdoor.pairs:
        assert torch.equal(trigger.patch, lab.trigger("universal", target).patch)


# Other merges


def test_fewer_tasks_and_models_of_one_task(lab):
    two = lab.merge(among=["digits", "shapes"], method="average").theta
    assert same_bits(
        two, lab.base + merge("average", [lab.vectors()[n] for n in ("digits", "shapes")])
    )
    theta = lab.backdoor("badnets").theta
    mean = lab.average_of(2, theta).theta
    for key, tensor in lab.clean(seed=1).items():
        torch.testing.assert_close(mean[key], (theta[key] + tensor) / 2, rtol=1e-4, atol=1e-5)


def test_a_merge_that_looks_at_images_is_made_once_by_what_it_is_made_of(lab):
    ties = lab.merge(method="ties")
    vectors = list(lab.vectors().values())
    again = lab.base + merge("ties", vectors, coefficient=0.3, density=0.2)
    assert ties.encoder is lab.encoder and same_bits(ties.theta, again)
    clean, attacked = (
        lab.merge(method="regmean").theta,
        lab.merge(lab.backdoor("badnets").theta, "regmean").theta,
    )
    assert not same_bits(clean, attacked) and made(lab, "regmean-3") == [True, True]
    assert same_bits(clean, lab.merge(method="regmean").theta)
    assert made(lab, "regmean-3") == [True, True]


def test_after_surgery_each_task_has_its_encoder(lab):
    model = lab.merge(method="surgery")
    assert list(model.encoder) == list(lab.tasks) and same_bits(
        model.theta, lab.merge(method="adamerging_layerwise").theta
    )
    assert experiments.accuracy(model, lab.adversary).count == len(lab.adversary.test)


@pytest.mark.parametrize("name", merging)
def test_every_registered_method_merges_by_its_name(lab, name):
    model = start(merging=name).merge()
    assert model.theta.keys() == lab.base.keys() and not same_bits(model.theta, lab.base)


def test_what_a_notebook_leaves_behind(folder):
    lab = start()
    table = pd.DataFrame({"asr": [1 / 3]})
    assert "<td>0.33</td>" in lab.table("numbers", table, "some numbers").data
    lab.figure("empty", table, "nothing", lambda table: figures.grid()[0])
    lab.headline("ASR", metrics.rate([True, False]))
    lab.headline("cost", 1.5, unit="points")
    lab.measure(defined=2, undefined=float("nan"))
    lab.clean()
    lab.finish()
    result = json.loads((lab.out / f"{NOTEBOOK}.json").read_text())
    assert sorted(result["outputs"]) == [
        "figures/empty.csv",
        "figures/empty.json",
        "figures/empty.png",
        "tables/numbers.csv",
        "tables/numbers.json",
    ]
    assert all((lab.out / path).is_file() for path in result["outputs"])
    assert pd.read_csv(lab.out / "tables" / "numbers.csv")["asr"].tolist() == [
        pytest.approx(1 / 3, rel=1e-5)
    ]
    assert (
        result["headline"]["ASR"]["value"] == 50
        and result["headline"]["ASR"]["low"] < 50 < result["headline"]["ASR"]["high"]
    )
    assert result["headline"]["cost"] == {"value": 1.5, "low": None, "high": None, "unit": "points"}
    assert result["measures"] == {"defined": 2.0, "undefined": None}
    assert result["parameters"]["alpha"] == 5.0 and "out" not in result["parameters"]
    assert {"clean-digits", "images-digits"} <= {entry["name"] for entry in result["artefacts"]}
    read = set(result["read"])  # its cell, the world, and what the fine-tune asked for
    assert {"alpha", "tasks", "base", "sizes", "train"} <= read
    assert not {"neural_cleanse", "other_base", "ibvs", "about"} & read
    provenance = json.loads((lab.out / "figures" / "empty.json").read_text())
    assert (
        provenance["notebook"] == NOTEBOOK
        and provenance["caption"] == "nothing"
        and version_of(f"notebook:{NOTEBOOK}") in provenance["recipes"]
    )
    assert (
        provenance["data"].keys() == lab.tasks.keys()
        and provenance["parameters"] == result["parameters"]
    )


def test_an_off_task_attack_is_measured_on_its_goal(lab):
    b = lab.backdoor("badmerging-off")
    shapes = lab.tasks["shapes"]
    assert len(lab.flipped(b.theta, b)) == int((shapes.test.labels != b.target).sum())
    assert lab.asr(b.theta, b) == experiments.asr(lab.model(b.theta), shapes, b.trigger, b.target)
    assert lab.trigger_size("badmerging-off") == 7 and lab.trigger_size() == 6


def test_a_family_differs_by_one_thing_and_starts_with_the_runs_own(lab):
    own = lab.backdoor()
    for by in ("place", "seed", "trigger"):
        first, second = lab.family(by, 2)
        assert same_bits(first.theta, own.theta) and not same_bits(second.theta, own.theta)
        assert first.target == second.target and (by == "place") == (
            first.trigger.place != second.trigger.place
        )
    with one_line("unknown way in which backdoors differ 'sead'", "did you mean 'seed'?"):
        lab.family("sead")
    with one_line("there are 5 backdoors that differ by place, not 6"):
        lab.family("place", 6)


def test_a_sparse_backdoor_vector_is_an_attack_of_the_length_that_is_asked_for(lab):
    own, sbv = lab.backdoor(), lab.sbv(count=2)
    assert (sbv.attack == "sbv" and sbv.trigger is own.trigger) or torch.equal(
        sbv.trigger.patch, own.trigger.patch
    )
    assert (
        sbv.vector.norm() == pytest.approx(own.vector.norm(), rel=1e-5)
        and sbv.vector.density() <= 0.2 + 1e-3
    )
    assert same_bits(sbv.theta, lab.clean() + sbv.vector)
    one = lab.sbv(count=1, rule="mean", density=1.0, norm=None)
    assert same_bits(one.vector.tensors, own.vector.tensors)


def test_a_trigger_of_another_base_and_another_budget(lab):
    usual, other, random = (
        lab.trigger("universal"),
        lab.trigger("universal", base="small-b"),
        lab.trigger("universal", steps=0),
    )
    assert len({patch.patch.numpy().tobytes() for patch in (usual, other, random)}) == 3


def test_an_adversary_that_expects_a_subtraction_trains_under_it(lab):
    expected = lab.backdoor("badnets").vector
    aware = lab.backdoor(through=expected)
    assert not same_bits(aware.theta, lab.backdoor().theta) and torch.equal(
        aware.trigger.patch, lab.backdoor().trigger.patch
    )


def test_the_objective_is_taken_below_the_vector():
    seen = []
    vector = TaskVector({"w": torch.ones(3)})
    step = training.Step(
        None,
        {"w": torch.zeros(3)},
        {},
        torch.zeros(1),
        torch.zeros(1),
        torch.zeros(1),
        torch.Generator().manual_seed(0),
    )
    for _ in range(50):
        evasion.evading(lambda s: seen.append(s.theta["w"][0].item()) or torch.zeros(()), vector)(
            step
        )
    assert -2 <= min(seen) < -1.5 and -0.5 < max(seen) <= 0 and step.theta["w"].sum() == 0


def test_the_adversary_may_train_on_all_of_its_images_and_ties_may_count_the_saved_encoder(
    tmp_path,
):
    lab = Lab.start("00", profile="smoke", out=str(tmp_path))
    whole = Lab.start("00", profile="smoke", out=str(tmp_path))
    whole.p["adversary_data"], whole.p["ties_counts"] = "all", "saved"
    assert len(lab.data(lab.adversary)) == 128 and len(whole.data(whole.adversary)) == 256
    assert len(whole.data(whole.adversary, "b")) == 128
    vectors = list(lab.vectors().values())
    text = sum(
        v.numel()
        for k, v in lab.encoder.model.state_dict().items()
        if k.split(".")[0]
        in ("token_embedding", "positional_embedding", "ln_final", "text_projection", "logit_scale")
    )
    tower = sum(v.numel() for v in lab.base.values())
    share = lab.p["density"] * (tower + text) / tower
    expected = merge("ties", vectors, coefficient=lab.p["coefficient"], density=share)
    whole._own = lab._own
    assert same_bits(whole.merge(method="ties").theta, lab.base + expected)


def test_the_other_classes_are_never_the_attacks_own(lab):
    assert start(target_class=3).other_classes == [5] and lab.other_classes == [3, 5]
    with one_line("other_classes holds no class but the target 1"):
        _ = start(other_classes=[1]).other_classes
    with one_line("other_classes 99 is not a class of 'digits'"):
        _ = start(other_classes=[99]).other_classes


def test_a_merge_that_looks_at_images_takes_its_own_parameters_and_no_others(lab):
    with one_line("unknown parameter of 'regmean' 'coefficient'"):
        lab.merge(method="regmean", coefficient=0.5)
    usual, other = lab.merge(method="regmean"), lab.merge(method="regmean", gamma=0.1)
    assert not same_bits(usual.theta, other.theta)


def test_a_plugin_that_looks_at_images_need_not_take_a_seed(lab, monkeypatch):
    @merging("first-image", needs="one dev image a task")
    def first(vectors, *, encoder, base, seen, strength=1.0):
        share = strength * float(seen["digits"].images[0].float().mean() / 255)
        return share * next(iter(vectors.values()))

    try:
        found = TaskVector.between(lab.merge(method="first-image").theta, lab.base)
        assert found.cosine(lab.vectors()["digits"]) == pytest.approx(1, abs=1e-4)
    finally:
        merging.pop("first-image")


def test_the_others_of_a_merge_of_one_are_none():
    with one_line("nothing to merge"):
        start(tasks=["digits"]).others()
