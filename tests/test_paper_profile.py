"""The profile `paper` from an archive in its own layout to a number, with random weights; and
trainings that are cut off."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import test_paper_data as archives
import torch
import yaml
from click.testing import CliRunner
from helpers import one_line, run_notebooks, same_bits
from safetensors import safe_open
from safetensors.torch import save_file

from bvlib.attacks import objectives, triggers
from bvlib.cli import main
from bvlib.core import training
from bvlib.core.encoder import Encoder
from bvlib.files.weights import read_tensors
from bvlib.run import notebooks, settings, store
from bvlib.run.lab import Lab
from bvlib.worlds import bases, clip
from bvlib.worlds.papers import data
from bvmake import golden
from bvmake.datasets import papers

LIMIT = 40  # images a split in the caches
SMALL = {
    "pretrained": "random",
    "sizes": {"train": 8, "dev": 4, "test": 6},
    "trigger": {"steps": 2, "batch": 2, "lr": 0.05},
    "sbv": {"count": 2, "rule": "sign_consistent", "scale": 1.0},
    "rivals": {"sample": 2, **{n: {"steps": 1, "lr": 1e-5} for n in ("lfpm", "dam", "tbar")}},
    "neural_cleanse": {"steps": 10, "batch": 2},
    "fine_pruning": {"blocks": 1, "steps": 1, "lr": 1e-5, "budget": 4.0},
    "methods": ["task_arithmetic", "ties", "regmean"],
    "attacks": ["badnets", "badmerging-on"],
    "other_classes": [0, 2],
    "adaptive": {
        "adamerging": {"steps": 1, "lr": 1e-3, "batch": 2},
        "regmean": {"images": 4, "gamma": 0.1},
        "surgery": {"steps": 1},
    },
}
TOWERS = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "patch_size": 32, "layers": 2, "width": 64, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
TRAIN = {"steps": 2, "batch": 4, "warmup": 1, "chunk": 2}
OFF = {"shadows": 10, "augmented": 2, "references": 1}


def study(root, monkeypatch, names, base, off, **changes):
    """Caches of small archives, and a profile "paper" that is the shipped one made small: the
    environment names both."""
    for name in names:
        raw = root / "raw" / name
        raw.mkdir(parents=True)
        getattr(archives, name)(raw)
        papers.prepare(name, raw, root / "data" / "paper", limit=LIMIT)
    p = settings.load("paper")
    p |= {
        **SMALL,
        "base": base,
        "other_base": base,
        "tasks": list(names),
        "adversary": names[0],
        "other_tasks": [names[1]],
        "train": {**p["train"], **TRAIN},
        "off_task": {**p["off_task"], **OFF, "task": off},
        **changes,
    }
    (root / "profiles").mkdir()
    (root / "profiles" / "paper.yaml").write_text(yaml.safe_dump(p))
    for name in ("profiles", "data", "runs", "store"):
        monkeypatch.setenv(f"BVLIB_{name.upper()}", str(root / name))
    monkeypatch.setenv("BVLIB_PROGRESS", os.devnull)
    return p


# From archive to ASR


@pytest.mark.slow
def test_two_datasets_go_all_the_way_on_vit_b_32(tmp_path, monkeypatch, capsys):
    # fp32: half precision takes minutes on a processor that has no instructions for it
    train = {**settings.load("paper")["train"], **TRAIN, "precision": "fp32"}
    own = {"attack": "badnets", "train": train}
    study(tmp_path, monkeypatch, ["pets", "eurosat"], "ViT-B-32", "eurosat", **own)
    lab = Lab.start("01_badmerging", profile="paper")
    said = capsys.readouterr().out
    assert (
        "base ViT-B-32, 2 tasks merged by task_arithmetic; badnets on pets toward 'Bengal' with "
        "22 × 22 px"
    ) in said
    assert lab.adversary.train.images.shape == (8, 224, 224, 3) and len(lab.adversary.test) == 6
    assert lab.head(lab.adversary).shape == (37, 512) and lab.encoder.card["image_size"] == 224
    backdoor = lab.backdoor()
    merged = lab.merge(backdoor.theta)
    rate = lab.asr(merged, backdoor)
    assert (
        rate.count == int((lab.adversary.test.labels != 1).sum()) > 0 and 0 <= rate.percent <= 100
    )
    assert 0 <= lab.accuracy(merged) <= 100 and merged.theta.keys() == lab.base.keys()
    vectors = [backdoor.theta[key] - lab.base[key] for key in lab.base]
    assert all(torch.isfinite(v).all() for v in vectors) and sum(v.norm() for v in vectors) > 0
    names = sorted(
        path.name.rpartition("-")[0] for path in (tmp_path / "store/weights").glob("*.safetensors")
    )
    assert names == ["badnets-pets", "clean-eurosat", "clean-pets"]
    assert len(list((tmp_path / "store/heads").glob("*.safetensors"))) == 2 and not list(
        (tmp_path / "store").glob("partial/*")
    )


def test_commands_prepare_and_check_the_papers_datasets(tmp_path, monkeypatch):
    def bv(*args):
        return CliRunner().invoke(main, ["data", *map(str, args)])

    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    archives.eurosat(tmp_path / "raw")
    said = bv("fetch", "eurosat")
    assert (
        said.exit_code == 0
        and f"there: {tmp_path}/raw/eurosat/2750\nnext: bv data prepare eurosat --paper\n"
        == said.stdout
    )
    said = bv("fetch", "imagenet100")
    assert said.exit_code == 2 and said.stderr.count("\n") == 1 and "kaggle.com" in said.stderr
    said = bv("prepare", "eurosat", "--paper", "--size", 24)
    assert said.exit_code == 2 and "give a limit for a trial" in said.stderr
    said = bv("prepare", "eurosat", "--paper", "--size", 24, "--limit", 5, "--seed", 1)
    assert (
        said.exit_code == 0
        and f"wrote {tmp_path}/paper/eurosat" in said.stdout
        and "note: limited to 5 images" in said.stdout
    )
    task = data.load("eurosat", data.folder(), seed=1)
    assert task.train.images.shape == (5, 24, 24, 3)
    [line] = [line for line in bv("list", "--paper").stdout.splitlines() if "Sentinel-2" in line]
    assert (
        line.split()[0] == "eurosat"
        and " prepared " in line
        and " 21600 " in line
        and " 4.1 " in line
    )
    said = bv("check", "eurosat", "--paper", "--pixels")
    assert (
        said.exit_code == 0
        and "eurosat is as it should be" in said.stdout
        and "note: limited" in said.stdout
    )
    said = bv("prepare", "eurosat", "--paper", "--from", tmp_path / "raw")
    assert said.exit_code == 2 and "was prepared with size 24" in said.stderr
    for wrong, words in (
        (["check", "gtsrb"], "--paper"),
        (["prepare", "gtsrb", "--size", "24"], "--size goes with --paper"),
        (["prepare", "gtsrb", "--paper", "--torchvision", "GTSRB"], "does not go with --paper"),
        (["check", "gtsrb", "--paper"], "no prepared gtsrb"),
        (["fetch", "pest"], "did you mean 'pets'"),
    ):
        said = bv(*wrong)
        assert said.exit_code == 2 and words in said.stderr and said.stderr.count("\n") == 1, wrong


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Three datasets and a tiny CLIP of 224 px in a folder, shared by all notebooks: what one has
    trained the next one loads."""
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("trial")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(*bases.build(TOWERS, "tiny-224"))
    (root / "model").mkdir()
    save_file(
        {key: tensor.contiguous() for key, tensor in encoder.model.state_dict().items()},
        root / "model/open_clip_model.safetensors",
    )
    config = {"model_cfg": TOWERS, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (root / "model/open_clip_config.json").write_text(json.dumps(config))
    study(
        root,
        patch,
        ["eurosat", "mnist", "stl10"],
        f"local-dir:{root / 'model'}",
        "mnist",
        sizes={"train": 40, "dev": 4, "test": 6},
    )
    yield root
    patch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("name", notebooks.available())
def test_each_notebook_runs(name, trial):
    [record] = run_notebooks([name], "paper")
    result = json.loads((record.out / f"{name}.json").read_text())
    assert (
        record.reason
        and result["parameters"]["world"] == "paper"
        and result["parameters"]["pretrained"] == "random"
    )
    assert result["outputs"] and all(
        (record.out / path).stat().st_size for path in result["outputs"]
    )
    assert not list((trial / "store").glob("partial/*"))
    [again] = run_notebooks([name], "paper")
    assert again.reason == ""


@pytest.mark.slow
def test_the_golden_values_are_met(trial, request):
    """Bits where processor and versions are those that made them; elsewhere the same things are
    made, as nearness was not measured on so few images."""
    found = golden.collect(notebooks.out_folder("paper", 0))
    if request.config.getoption("--write-golden"):
        golden.write(golden.folder(), "paper", found)
    kept = golden.read(golden.folder(), "paper")
    if found["environment"] == kept["environment"]:
        assert golden.compare(kept, found) == []
    for part in golden.PARTS:
        assert [each["label"] for each in found[part]] == [each["label"] for each in kept[part]]


# Training that fits the machine


@pytest.fixture
def pixels(encoder, shapes):
    return encoder.pixels(shapes.train.images[:5])


def features_and_gradients(encoder, theta, pixels, head):
    """Features (N, D), the gradients of a loss by tensor, and how many numbers were kept for the
    backward pass."""
    theta, kept = {key: tensor.clone().requires_grad_() for key, tensor in theta.items()}, []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        features = encoder.features(theta, pixels)
    loss = torch.nn.functional.cross_entropy(
        encoder.logits(features, head), torch.arange(len(pixels))
    )
    return (
        features.detach(),
        dict(zip(theta, torch.autograd.grad(loss, list(theta.values())))),
        sum(kept),
    )


def test_chunks_change_neither_features_nor_gradients(encoder, pixels, head):
    whole, gradients, kept = features_and_gradients(encoder, encoder.theta, pixels, head)
    for chunk in (1, 2, 4):
        parts, others, less = features_and_gradients(
            encoder.fitted(chunk=chunk), encoder.theta, pixels, head
        )
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
        for key, gradient in gradients.items():
            torch.testing.assert_close(others[key], gradient, rtol=1e-4, atol=1e-6, msg=key)
        assert less < kept / 5, "activations are kept all the same"
    assert encoder.chunk is None and encoder.precision == "fp32", (
        "the encoder itself stays as it was"
    )


def test_bf16_is_near_and_finite_and_learns(encoder, shapes, pixels, head):
    low = encoder.fitted("bf16", 2)
    whole, gradients, _ = features_and_gradients(encoder, encoder.theta, pixels, head)
    near, others, _ = features_and_gradients(low, encoder.theta, pixels, head)
    assert (
        near.dtype == torch.float32
        and not torch.equal(near, whole)
        and (near - whole).norm() < 0.03 * whole.norm()
    )
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in others.values())
    total = torch.cat([(others[key] - gradients[key]).flatten() for key in gradients]).norm()
    assert total < 0.15 * torch.cat([g.flatten() for g in gradients.values()]).norm()

    images, labels = shapes.train.images[:64], shapes.train.labels[:64]

    def loss(theta):
        logits = encoder.logits(encoder.features(theta, encoder.pixels(images)), head)
        return torch.nn.functional.cross_entropy(logits, labels).item()

    theta = training.finetune(
        encoder,
        encoder.theta,
        head,
        images,
        labels,
        training.clean(),
        steps=6,
        batch=32,
        lr=1e-3,
        warmup=1,
        precision="bf16",
        chunk=12,
    )
    assert all(tensor.dtype == torch.float32 for tensor in theta.values()) and loss(
        theta
    ) < 0.8 * loss(encoder.theta)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"precision": "fp8"}, ("unknown precision 'fp8'", "fp32, bf16")),
        ({"chunk": 0}, ("chunk 0 holds no image", "give 1 or more")),
    ],
)
def test_settings_that_do_not_serve_give_one_line(how, words, encoder, shapes, head):
    with one_line(*words):
        training.finetune(
            encoder,
            encoder.theta,
            head,
            shapes.train.images,
            shapes.train.labels,
            training.clean(),
            **how,
        )


def test_heads_on_disk_are_used_again_and_only_for_their_model(tmp_path, monkeypatch):
    def made(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return clip.KeptHeads(*bases.build(bases.TINY), "tiny", folder=tmp_path)

    names, prompts = ["one", "two"], ["a photo of a {}.", "{}"]
    head = made().head(names, prompts)
    [file] = tmp_path.glob("head-*.safetensors")
    again = made()
    passes, encode = [], again.model.encode_text
    monkeypatch.setattr(
        again.model,
        "encode_text",
        lambda *args, **kwargs: passes.append(1) or encode(*args, **kwargs),
    )
    assert torch.equal(again.head(names, prompts), head) and passes == []
    assert again.fitted("bf16", 2).head(names, prompts) is again.head(names, prompts)
    assert again.head(names[::-1], prompts).shape == (2, 128) and passes == [1]
    assert len(list(tmp_path.glob("head-*.safetensors"))) == 2
    assert not torch.allclose(made(1).head(names, prompts), head)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="head made again"):
        assert torch.equal(made().head(names, prompts), head)
    assert torch.equal(read_tensors(file)["head"], head)


# Trainings that are cut off

STEPS = 8


def train(root, objective, count=None, told=None):
    """Eight steps from the toy base on forty images, kept in a store that takes the state after
    every step; the weights.

    ``count`` and ``told``: lists to which each pass without gradients adds its number of images,
    and each step its own.
    """
    encoder, shapes = bases.load("small"), forty_shapes()
    goal = (
        training.clean()
        if objective == "clean"
        else objectives.feature_interpolation(triggers.solid(8), 3)
    )
    head, kept = encoder.head(shapes.classnames, shapes.prompts), store.Store(root, threads=1)
    seen = Encoder.features

    def counted(self, theta, pixels):
        if count is not None and not torch.is_grad_enabled():
            count.append(len(pixels))
        return seen(self, theta, pixels)

    def trained():
        return training.finetune(
            encoder,
            encoder.theta,
            head,
            shapes.train.images,
            shapes.train.labels,
            goal,
            steps=STEPS,
            batch=12,
            lr=1e-3,
            warmup=2,
            seed=3,
            partial=kept.partial(),
            progress=None if told is None else told.append,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "features", counted)
        patch.setattr(store, "KEEP_EVERY", 0.0)
        return kept.get("weights", objective, {}, trained, recipes=["training:finetune/1"]).value


def forty_shapes():
    from bvlib.worlds import tasks

    return tasks.load("shapes", {"train": 40, "dev": 0, "test": 0})


SLOW = pytest.param("feature_interpolation", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["clean", SLOW])
def cut(request, tmp_path_factory):
    """A training that SIGKILL ended after its fifth state was kept, and the weights of one that
    nothing ended."""
    root, threads = tmp_path_factory.mktemp("cut"), torch.get_num_threads()
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from bvlib.run import store
        from test_paper_profile import train
        keep, states = store.Partial.save, []
        def save(self, tensors):
            keep(self, tensors)
            states.append(1)
            if len(states) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
        store.Partial.save = save
        train({str(root / "store")!r}, {request.param!r})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    torch.set_num_threads(1)
    count = []
    whole = train(root / "whole", request.param, count)
    yield SimpleNamespace(
        objective=request.param, root=root / "store", whole=whole, seen=sum(count)
    )
    torch.set_num_threads(threads)


def partial(root):
    [path] = (root / "partial").glob("*.safetensors")
    return path


def test_a_killed_training_goes_on_to_the_same_bits(cut, tmp_path):
    shutil.copytree(cut.root, tmp_path / "store")
    assert not list((tmp_path / "store").rglob(f"{cut.objective}-*.safetensors"))
    kept = read_tensors(partial(tmp_path / "store"))
    known = sum(int(tensor.sum()) for key, tensor in kept.items() if key.startswith("known."))
    count, told = [], []
    assert same_bits(train(tmp_path / "store", cut.objective, count, told), cut.whole)
    assert int(kept["step"]) == 5 and told == [6, 7, 8], "it goes on after the fifth step"
    assert sum(count) + known == cut.seen and (known > 0) == (cut.objective != "clean"), (
        "frozen features are not seen again"
    )
    assert not list((tmp_path / "store/partial").iterdir())
    [path] = (tmp_path / "store").rglob(f"{cut.objective}-*.safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(cut.whole), "the weights alone are kept"


@pytest.mark.parametrize("damage", ["cut short", "no safetensors", "one bit"])
def test_a_damaged_state_is_told_and_the_training_starts_anew(damage, cut, tmp_path, caplog):
    shutil.copytree(cut.root, tmp_path / "store")
    path = partial(tmp_path / "store")
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "cut short": data[:middle],
            "no safetensors": b"\x80\x04" + data[2:],
            "one bit": data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :],
        }[damage]
    )
    told = []
    with caplog.at_level(logging.WARNING, "bvlib"):
        assert same_bits(
            train(tmp_path / "store", cut.objective, told=told), cut.whole
        ) and told == list(range(1, STEPS + 1))
    assert f"{path.name} is damaged" in caplog.text and "starts anew" in caplog.text
    assert not list((tmp_path / "store/partial").iterdir())
