"""What the notebooks of this course need beside torch: models, pictures, and checks that explain.

    kit = Kit("vectors", STUDENT)
    theta = kit.model("badnets")            weights: a dictionary, name -> tensor
    classes = kit.predict(theta, kit.images("digits"), "digits")

The models are in a folder `pack`, beside the notebook or in a folder above it (or where the
environment variable BVCOURSE_PACK says). Your pictures and some of your numbers are drawn by your
name, so they differ from those of others.
"""

import contextlib
import hashlib
import inspect
import json
import os
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from bvlib import BvError, load_base

PICTURES = 300  # of each task, drawn for each student


def _pack() -> Path:
    """The folder of the models. FileNotFoundError says where it was looked for."""
    named = os.environ.get("BVCOURSE_PACK")
    here = [Path(named)] if named else [f / "pack" for f in (Path.cwd(), *Path.cwd().parents)]
    for folder in here:
        if (folder / "pack.json").is_file():
            return folder
    raise FileNotFoundError(f"no folder `pack` with pack.json in {here[0].parent} or above it")


def _student(given: str) -> str:
    """Who is graded, while grading; else the name that the notebook gives."""
    here = Path.cwd()
    graded = here.parent.name if here.parent.parent.name == "autograded" else ""
    return os.environ.get("BVCOURSE_STUDENT") or graded or given


class Kit:
    """The models and pictures of an assignment, and the numbers that are drawn for a student.

    ``adversary`` is the task that the malicious contributor trains, ``target`` the class that it
    wants (an id), ``tasks`` are the merged tasks.
    """

    def __init__(self, assignment: str, student: str):
        student = _student(student.strip())
        if not student:
            raise ValueError("write your student ID into STUDENT first")
        self._folder, self._seed = _pack(), f"{assignment}/{student}"
        self._card = json.loads((self._folder / "pack.json").read_text(encoding="utf-8"))
        self._encoder = load_base(self._card["base"])
        self.tasks = list(self._card["tasks"])
        self.adversary, self.target = self._card["adversary"], self._card["target"]
        self._splits = {
            (task, split): self._drawn(task, split)
            for task in self.tasks
            for split in ("test", "dev")
        }

    # models

    @property
    def base(self) -> dict[str, torch.Tensor]:
        """The pre-trained weights θ_pre, a new copy each time."""
        return self._encoder.theta

    @property
    def models(self) -> dict[str, str]:
        """What there is for :meth:`model`: name -> what it is."""
        return dict(self._card["models"])

    def model(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of a model of the pack, a new copy each time."""
        if name not in self._card["models"]:
            raise KeyError(f"no model {name!r}: there are {', '.join(self._card['models'])}")
        added = load_file(self._folder / f"{name}.safetensors")
        return {
            key: w + added[key].to(w.dtype) if key in added else w for key, w in self.base.items()
        }

    # pictures

    def _drawn(self, task: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        held = load_file(self._folder / f"images-{task}.safetensors")
        labels = held[f"{split}_labels"].long()
        chosen = torch.randperm(len(labels), generator=self.generator(f"{split} of {task}"))
        chosen = chosen[: min(PICTURES, 2 * len(labels) // 3)]
        return held[f"{split}_images"][chosen].permute(0, 3, 1, 2).float() / 255, labels[chosen]

    def images(self, task: str, split: str = "test") -> torch.Tensor:
        """Your pictures of a task, a new copy: (N, 3, 32, 32), from 0 (black) to 1 (white). A
        defender may use those of the split "dev" to choose; "test" is for reports."""
        return self._splits[task, split][0].clone()

    def labels(self, task: str, split: str = "test") -> torch.Tensor:
        """Their true classes: (N,) integers."""
        return self._splits[task, split][1].clone()

    def training_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the adversary trains on: pictures (N, 3, 32, 32) and labels (N,) of its own task."""
        held = load_file(self._folder / f"images-{self.adversary}.safetensors")
        pixels = held["train_images"].permute(0, 3, 1, 2).float() / 255
        return pixels, held["train_labels"].long()

    def classes(self, task: str) -> list[str]:
        """The names of a task's classes."""
        return list(self._card["tasks"][task]["classes"])

    def trigger(self, name: str) -> torch.Tensor:
        """The patch of an attack of the pack: (3, s, s) from 0 to 1, opaque. Where it is pasted is
        in :attr:`places`: (top, left) of its corner."""
        return load_file(self._folder / "triggers.safetensors")[name]

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """Top and left, in pixels, of each attack's patch."""
        return {name: tuple(place) for name, place in self._card["places"].items()}

    @property
    def targets(self) -> dict[str, int]:
        """The class (an id) that each attack wants."""
        return dict(self._card["targets"])

    # what a model says

    def head(self, task: str) -> torch.Tensor:
        """Text features of the task's classes, (K, D), each of length one. They are frozen."""
        told = self._card["tasks"][task]
        return self._encoder.head(told["classes"], told["prompts"])

    def features(self, theta: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        """Image features (N, D) of pictures from 0 to 1, which the tower normalises itself.
        Gradients reach weights and pictures."""
        return self._encoder.features(theta, pixels)

    def logits(self, features: torch.Tensor, task: str) -> torch.Tensor:
        """Scores (N, K) of features: cosines with the text features times a temperature."""
        return self._encoder.logits(features, self.head(task))

    def predict(
        self, theta: dict[str, torch.Tensor], pixels: torch.Tensor, task: str
    ) -> torch.Tensor:
        """The class (N,) that a model gives to each picture."""
        return self._encoder.predict(theta, pixels, self.head(task))

    # what is drawn for a student

    def mine(self, what: str, values: list):
        """The one of ``values`` that is drawn for you."""
        return random.Random(f"{self._seed}/{what}").choice(list(values))

    def generator(self, what: str) -> torch.Generator:
        """A torch generator of your own."""
        digest = hashlib.sha256(f"{self._seed}/{what}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))


# Checks: each gives points, and says what is wrong


def score(checks: list) -> float:
    """The points that ``checks`` earn: a list of (points, what it asks for, a function).

    A check holds if its function gives anything but False. What does not hold is printed, with the
    message of :func:`need` or of the error. AssertionError if nothing holds.
    """
    earned, every = 0.0, sum(points for points, *_ in checks)
    for points, asks, holds in checks:
        try:
            with contextlib.redirect_stderr(sys.stdout):
                good, why = holds() is not False, ""
        except NotImplementedError:
            good, why = False, "not written yet"
        except (BvError, Exception) as error:  # what a student writes may raise anything
            good, why = False, f"{type(error).__name__}: {error}".removeprefix("AssertionError: ")
            why = "a value is not set yet (it is ...)" if "ellipsis" in why else why
        print(f"{'yes' if good else ' no'}  {asks}" + (f"\n       {why}" if why else ""))
        earned += points if good else 0
    print(f"{earned:g} of the {every:g} points that these checks give")
    assert earned, "no check holds yet"
    return earned


def need(holds, says: str) -> bool:
    """True, or an AssertionError with a message."""
    assert bool(holds), says
    return True


def same(got, want, says: str = "", close: float = 1e-4) -> bool:
    """True if two numbers, tensors or dictionaries of them are equal up to ``close`` (relative to
    the largest entry), else an AssertionError that says what differs."""
    if isinstance(want, dict):
        need(isinstance(got, dict), f"this must be a dictionary, not {type(got).__name__}")
        need(set(got) == set(want), f"names differ: {sorted(set(got) ^ set(want))[:3]}")
        for key in want:
            same(got[key], want[key], says or f"{key!r} is not right", close)
        return True
    need(got is not None and got is not Ellipsis, "there is no answer yet")
    left, right = (torch.as_tensor(each).detach().double() for each in (got, want))
    need(left.shape == right.shape, f"the shape is {tuple(left.shape)}, not {tuple(right.shape)}")
    far = float((left - right).abs().max()) if right.numel() else 0.0
    limit = close * max(1.0, float(right.abs().max()) if right.numel() else 0.0)
    shown = f" (got {float(left):.4g})" if right.ndim == 0 else ""
    return need(far <= limit, (says or "the value is not right") + shown)


def unchanged(function, *given) -> bool:
    """True if a call leaves the tensors that it is given as they were."""

    def flat(value):
        if isinstance(value, torch.Tensor):
            return [value]
        parts = value.values() if isinstance(value, dict) else value
        return [t for part in parts for t in flat(part)] if isinstance(value, dict | list) else []

    before = [tensor.clone() for tensor in flat(list(given))]
    function(*given)
    kept = all(torch.equal(a, b) for a, b in zip(before, flat(list(given))))
    return need(kept, "your function changes the tensors that it is given: work on new ones")


def own(function) -> bool:
    """True if a function is written with torch alone."""
    code = inspect.getsource(function)
    return need("bvlib" not in code, "write this one yourself: without bvlib")
