"""What is known of a dataset before it is read: one kind of row for the sets of 32 x 32 pixels
(images.yaml) and for those of the papers (papers/table.yaml)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bvlib.files.safe import read_yaml

GENERIC_TEMPLATES = ("a photo of a {}.", "a picture of a {}.")  # for a set of the reader's own
MOST_DEV = 5000  # images; dev is a tenth of the training images, at most this many


@dataclass(frozen=True)
class File:
    """One file to bring: where it is kept below the reader's folder, and what becomes of it there.

    ``url`` is "" when it must be put there by hand from ``page``. ``digest`` is its md5 (32 hex
    digits) or sha256 (64), "" where none is published. ``into`` is the folder it is unpacked in
    (None: it is read as it is), and ``gives`` a path below the reader's folder that is there once
    it is unpacked.
    """

    path: str
    url: str = ""
    digest: str = ""
    into: str | None = None
    gives: str = ""
    page: str = ""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a set before it is read.

    ``train``, ``test``, ``classes`` and ``sha256`` of a set of 32 x 32 pixels are those of the
    reference preparation; another one is fine. ``words`` maps a class name in its file to words for
    a text tower, in label order ({}: the name itself). ``background`` is the grey level put around
    images smaller than 32 x 32 pixels, ``torchvision`` the class that brings it.

    ``train`` of a set of the papers counts the images before dev is taken out of them; a pair is
    the range it may lie in. ``dev`` is the size of a dev split that the set has of its own (0: it
    is drawn from train). ``names`` says where the class names come from, ``layout`` what lies below
    the reader's folder, ``split`` the rule of the papers' code. ``classnames`` are given where the
    archive carries none, by label or by class folder, and ``epochs`` of fine-tuning where the
    papers' code has them (0: none). ``templates`` are prompts with one ``{}`` each.
    """

    name: str
    what: str
    licence: str = "your own"
    citation: str = ""
    train: int | tuple[int, int] = 0
    dev: int = 0
    test: int = 0
    classes: int = 0
    templates: tuple[str, ...] = GENERIC_TEMPLATES
    words: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    torchvision: str = ""
    background: int = 0
    source: str = ""
    layout: str = ""
    split: str = ""
    names: str = ""
    files: tuple[File, ...] = ()
    epochs: int = 0
    classnames: tuple[str, ...] | Mapping[str, str] = ()

    def drawn_dev(self, train: int) -> int:
        """Dev images taken out of ``train`` training images."""
        return 0 if self.dev else min(train // 10, MOST_DEV)

    def read_names(self, names: Sequence[str]) -> list[str]:
        """Class names of a file -> words that a CLIP text tower can read, in the same order.

        Those of a set that we know are found by name, else by number when the names number
        themselves (0, 1, 10, ... or 00000, 00001, ...), in whatever order; words of a reader's own
        set stand for exactly the folders that they name.

        >>> from bvlib.worlds.images import DATASETS
        >>> DATASETS["fashion_mnist"].read_names(["T-shirt/top", "Trouser"])
        ['t-shirt', 'pair of trousers']
        """
        if not self.classes:
            return [self.words.get(name) or _tidy(name) for name in names]
        words = {loose(name): text for name, text in self.words.items()}
        found = [re.match(r"0*(\d+)(?!\w)", name) for name in names]
        numbers = [int(match[1]) for match in found if match]
        if sorted(numbers) == list(range(len(words))) and len(numbers) == len(names):
            each = list(words.values())
            return [each[number] for number in numbers]
        return [words.get(loose(name)) or _tidy(name) for name in names]


def read_table(path: Path) -> dict[str, DatasetInfo]:
    """The entries of a YAML table of datasets, by name."""
    rows = {}
    for name, told in read_yaml(path).items():
        told["files"] = [File(**file) for file in told.get("files", [])]
        told = {key: tuple(one) if type(one) is list else one for key, one in told.items()}
        rows[name] = DatasetInfo(name, **told)
    return rows


def loose(name: str) -> str:
    """A class name without case, spaces and signs, for comparing."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _tidy(name: str) -> str:
    """A folder's name -> words: 'Early_Aramaic character07' -> 'Early Aramaic letter 7'."""
    text = " ".join(re.sub(r"[_()]", " ", name).split())
    match = re.fullmatch(r"(.+?)[ /]+character0*(\d+)", text)
    return f"{match[1]} letter {match[2]}" if match else text


# {set of pictures: what it is} of those that bases are trained on, and that are no task.
SETS: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("sets.yaml"))
