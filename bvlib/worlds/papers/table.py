"""The datasets of both papers as one table: source, layout, licence, split rule, counts, class
names, prompts.

Addresses and md5 are those that torchvision publishes (0.28), else those of torchgeo (RESISC45),
of torchvision's prototype datasets (the lists of SUN397) or of Avalanche (Tiny-ImageNet); an entry
without hash has none that we found. Splits, class names and prompts follow the public BadMerging
code; its prompts and many of its names are those of CLIP (github.com/openai/CLIP,
data/prompts.md). Licences are from general knowledge: check them before passing images on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from bvlib.core.errors import unknown

EPOCHS = {
    "cars": 35,
    "dtd": 76,
    "eurosat": 12,
    "gtsrb": 11,
    "mnist": 5,
    "resisc45": 15,
    "sun397": 14,
    "svhn": 4,
    "stl10": 5,
    "cifar100": 5,
    "flowers": 251,
    "pets": 77,
    "imagenet100": 3,
}  # of fine-tuning, by the public BadMerging code
USUAL_STEPS = 2000  # what those come to, for a dataset that is not among them
MOST_DEV = 5000  # images; dev is a tenth of the training images, at most this many
RANDOM_DEV = "dev: a seeded random tenth of train, at most 5,000"


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
class Row:
    """What is known of a dataset. ``train`` counts the images before dev is taken out (a pair: the
    range it may lie in).

    ``dev`` is the size of a dev split that the set has of its own (0: it is drawn from train),
    ``names`` says where the class names come from, ``layout`` what lies below the reader's folder,
    ``split`` the rule of the papers' code.
    """

    name: str
    what: str
    classes: int
    train: int | tuple[int, int]
    test: int
    licence: str
    source: str
    layout: str
    split: str
    names: str
    prompts: tuple[str, ...]
    files: tuple[File, ...]
    dev: int = 0

    def drawn_dev(self, train: int) -> int:
        """Dev images taken out of ``train`` training images."""
        return 0 if self.dev else min(train // 10, MOST_DEV)


def _photos(*kinds: str, articles: tuple[str, ...] = ("a", "the")) -> tuple[str, ...]:
    return tuple(kind.replace("ARTICLE", article) for article in articles for kind in kinds)


_CIFAR = _photos(
    "a photo of ARTICLE {}.",
    *(
        f"a {kind} photo of ARTICLE {{}}."
        for kind in ("blurry", "black and white", "low contrast", "high contrast", "bad", "good")
    ),
    "a photo of ARTICLE small {}.",
    "a photo of ARTICLE big {}.",
)
_PLAIN = _photos("a photo of ARTICLE {}.")
_NUMBER = ('a photo of the number: "{}".',)
_FROM_ABOVE = tuple(
    f"{kind} of {article}{{}}."
    for article in ("", "a ", "the ")
    for kind in (
        "satellite imagery",
        "aerial imagery",
        "satellite photo",
        "aerial photo",
        "satellite view",
        "aerial view",
    )
)
IMAGENET = ("ImageNet",)  # stands for the 80 prompts that open_clip carries

_TERMS = (
    "ImageNet terms: non-commercial research and education; images' copyright with their owners"
)
_ROBOTS = "https://www.robots.ox.ac.uk/~vgg/data"
_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
_RESISC = (
    "https://hf.co/datasets/torchgeo/resisc45/resolve/a826b44d938a883185f11ebe3d512d38b464312f"
)
_EUROSAT = "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd"
_CARS = (
    "https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset and "
    "github.com/pytorch/vision/issues/7545"
)


def _mnist(name: str, digest: str) -> File:
    return File(
        f"MNIST/raw/{name}-ubyte.gz",
        f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}-ubyte.gz",
        digest,
    )


_ROWS = (
    Row(
        "cifar100",
        "small photos of 100 kinds of things",
        100,
        50_000,
        10_000,
        "no formal licence; research use with citation",
        "torchvision CIFAR100",
        "cifar-100-python/{train,test,meta}: pickles, read without running them",
        f"official; {RANDOM_DEV}",
        "meta (with underscores, as the papers' code has them)",
        _CIFAR,
        (
            File(
                "cifar-100-python.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
                "",
                "cifar-100-python",
            ),
        ),
    ),
    Row(
        "gtsrb",
        "German traffic signs",
        43,
        26_640,
        12_630,
        "no formal licence; research use with citation",
        "torchvision GTSRB",
        "gtsrb/GTSRB/Training/00000/*.ppm, gtsrb/GTSRB/Final_Test/Images/*.ppm, "
        "gtsrb/GT-final_test.csv",
        f"official train (torchvision's, 26,640) and final test; {RANDOM_DEV}",
        "CLIP's 43 (bvlib.worlds.papers.names)",
        tuple(
            f'a {kind} photo of a "{{}}" traffic sign.'
            for kind in ("zoomed in", "centered", "close up")
        ),
        (
            File(
                "gtsrb/GTSRB-Training_fixed.zip",
                f"{_GTSRB}/GTSRB-Training_fixed.zip",
                "513f3c79a4c5141765e10e952eaa2478",
                "gtsrb",
                "gtsrb/GTSRB/Training",
            ),
            File(
                "gtsrb/GTSRB_Final_Test_Images.zip",
                f"{_GTSRB}/GTSRB_Final_Test_Images.zip",
                "c7e4e6327067d32654124b0fe9e82185",
                "gtsrb",
                "gtsrb/GTSRB/Final_Test/Images",
            ),
            File(
                "gtsrb/GTSRB_Final_Test_GT.zip",
                f"{_GTSRB}/GTSRB_Final_Test_GT.zip",
                "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
                "gtsrb",
                "gtsrb/GT-final_test.csv",
            ),
        ),
    ),
    Row(
        "eurosat",
        "land use seen by Sentinel-2",
        10,
        21_600,
        2_700,
        "MIT; Copernicus Sentinel data terms",
        "torchvision EuroSAT (Hugging Face torchgeo/eurosat, pinned by revision)",
        "eurosat/2750/CLASS/*.jpg",
        "80/10/10 of each class, the same cut for every seed (the papers' cut was not seeded)",
        "CLIP's ten, by folder name (bvlib.worlds.papers.names)",
        tuple(f"a centered satellite photo of {a}{{}}." for a in ("", "a ", "the ")),
        (
            File(
                "eurosat/EuroSAT.zip",
                f"{_EUROSAT}/EuroSAT.zip",
                "c8fa014336c82ac7804f0398fcb19387",
                "eurosat",
                "eurosat/2750",
            ),
        ),
        dev=2_700,
    ),
    Row(
        "cars",
        "Stanford Cars, by make and model",
        196,
        8_144,
        8_041,
        "non-commercial research; images' copyright with their owners",
        "by hand: Stanford's own addresses are gone",
        "stanford_cars/{devkit/*.mat, cars_train/*.jpg, cars_test/*.jpg, "
        "cars_test_annos_withlabels.mat}",
        f"official; {RANDOM_DEV}",
        "devkit/cars_meta.mat",
        (
            *(f"a photo of {w} {{}}." for w in ("a", "the", "my")),
            "i love my {}!",
            *(f"a photo of my {w} {{}}." for w in ("dirty", "clean", "new", "old")),
        ),
        (
            File(
                "stanford_cars/car_devkit.tgz",
                "https://github.com/pytorch/vision/files/11644847/car_devkit.tgz",
                "c3b158d763b6e2245038c8ad08e45376",
                "stanford_cars",
                "stanford_cars/devkit",
                _CARS,
            ),
            File(
                "stanford_cars/cars_train.tgz",
                "",
                "065e5b463ae28d29e77c1b4b166cfe61",
                "stanford_cars",
                "stanford_cars/cars_train",
                _CARS,
            ),
            File(
                "stanford_cars/cars_test.tgz",
                "",
                "4ce7ebf6a94d07f1952d94dd34c4d501",
                "stanford_cars",
                "stanford_cars/cars_test",
                _CARS,
            ),
            File(
                "stanford_cars/cars_test_annos_withlabels.mat",
                "",
                "b0a2b23655a3edd16d84508592a98d10",
                page=_CARS,
            ),
        ),
    ),
    Row(
        "sun397",
        "scenes of 397 kinds",
        397,
        19_850,
        19_850,
        "research use; images' copyright with their owners",
        "torchvision SUN397 and the official lists",
        "SUN397/a/abbey/*.jpg, SUN397/Partitions/{Training,Testing}_01.txt",
        f"official partition 1; {RANDOM_DEV}",
        "folders that the lists name, _ and / as spaces",
        _PLAIN,
        (
            File(
                "SUN397.tar.gz",
                "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                "8ca2778205c41d23104230ba66911c7a",
                "",
                "SUN397/a",
            ),
            File(
                "SUN397-Partitions.zip",
                "https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
                "e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9",
                "SUN397/Partitions",
                "SUN397/Partitions",
            ),
        ),
    ),
    Row(
        "pets",
        "Oxford-IIIT Pet: breeds of cats and dogs",
        37,
        3_680,
        3_669,
        "CC BY-SA 4.0",
        "torchvision OxfordIIITPet",
        "oxford-iiit-pet/{images/*.jpg, annotations/trainval.txt, annotations/test.txt}",
        f"official lists trainval and test; {RANDOM_DEV}",
        "file names in the lists; in the order of sorted folders (cats first), as the papers' "
        "code has it",
        ("a photo of a {}, a type of pet.",),
        (
            File(
                "oxford-iiit-pet/images.tar.gz",
                f"{_ROBOTS}/pets/data/images.tar.gz",
                "5c4f3ee8e5d25df40f4fd59a7f44e54c",
                "oxford-iiit-pet",
                "oxford-iiit-pet/images",
            ),
            File(
                "oxford-iiit-pet/annotations.tar.gz",
                f"{_ROBOTS}/pets/data/annotations.tar.gz",
                "95a8c909bbe2e81eed6a22bccdf3f68f",
                "oxford-iiit-pet",
                "oxford-iiit-pet/annotations",
            ),
        ),
    ),
    Row(
        "mnist",
        "handwritten digits, grey",
        10,
        60_000,
        10_000,
        "commonly given as CC BY-SA 3.0",
        "torchvision MNIST",
        "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, as they are or .gz",
        f"official; {RANDOM_DEV}",
        "0 to 9",
        _NUMBER,
        (
            _mnist("train-images-idx3", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            _mnist("train-labels-idx1", "d53e105ee54ea40749a09fcbcd1e9432"),
            _mnist("t10k-images-idx3", "9fb629c4189551a2d022fa330f9573f3"),
            _mnist("t10k-labels-idx1", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    Row(
        "svhn",
        "house numbers in street photos",
        10,
        73_257,
        26_032,
        "non-commercial use only",
        "torchvision SVHN",
        "svhn/{train,test}_32x32.mat (or without svhn/)",
        f"official, without the extra images; {RANDOM_DEV}",
        "0 to 9",
        _NUMBER,
        tuple(
            File(
                f"svhn/{part}_32x32.mat",
                f"http://ufldl.stanford.edu/housenumbers/{part}_32x32.mat",
                digest,
            )
            for part, digest in (
                ("train", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                ("test", "eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
    ),
    Row(
        "stl10",
        "photos of ten kinds of things",
        10,
        5_000,
        8_000,
        _TERMS,
        "torchvision STL10",
        "stl10_binary/{train,test}_{X,y}.bin, stl10_binary/class_names.txt (or below stl10/)",
        f"official, without the unlabelled images; {RANDOM_DEV}",
        "class_names.txt",
        _PLAIN,
        (
            File(
                "stl10_binary.tar.gz",
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                "91f7769df0f17e558f3565bffb0c7dfb",
                "",
                "stl10_binary",
            ),
        ),
    ),
    Row(
        "dtd",
        "describable textures",
        47,
        3_760,
        1_880,
        "research purposes only; images' copyright with their owners",
        "torchvision DTD",
        "dtd/dtd/{images/CLASS/*.jpg, labels/{train,val,test}1.txt}",
        f"official partition 1, its train and val lists together as train; {RANDOM_DEV}",
        "folders that the lists name",
        _photos(
            *(
                f"a photo of ARTICLE {{}} {kind}."
                for kind in ("texture", "pattern", "thing", "object")
            )
        ),
        (
            File(
                "dtd/dtd-r1.0.1.tar.gz",
                f"{_ROBOTS}/dtd/download/dtd-r1.0.1.tar.gz",
                "fff73e5086ae6bdbea199a49dfb8a4c1",
                "dtd",
                "dtd/dtd",
            ),
        ),
    ),
    Row(
        "resisc45",
        "land seen from above (NWPU-RESISC45)",
        45,
        18_900,
        6_300,
        "research use; images from Google Earth",
        "Hugging Face torchgeo/resisc45, pinned by revision",
        "resisc45/{NWPU-RESISC45/CLASS/*.jpg, resisc45-{train,test}.txt}",
        f"lists of arXiv 1911.06721 (val list unused); {RANDOM_DEV}",
        "folders, _ as space",
        _FROM_ABOVE,
        (
            File(
                "resisc45/NWPU-RESISC45.zip",
                f"{_RESISC}/NWPU-RESISC45.zip",
                "75206b2e16446591afa88e2628744886",
                "resisc45",
                "resisc45/NWPU-RESISC45",
            ),
            *(
                File(f"resisc45/resisc45-{part}.txt", f"{_RESISC}/resisc45-{part}.txt", digest)
                for part, digest in (
                    ("train", "b5a4c05a37de15e4ca886696a85c403e"),
                    ("test", "3dda9e4988b47eb1de9f07993653eb08"),
                )
            ),
        ),
    ),
    Row(
        "flowers",
        "Oxford 102 flowers",
        102,
        1_020,
        6_149,
        "no formal licence; research use with citation",
        "torchvision Flowers102",
        "flowers-102/{jpg/image_*.jpg, imagelabels.mat, setid.mat}",
        f"official train and test (val unused); {RANDOM_DEV}",
        "CLIP's 102 (bvlib.worlds.papers.names)",
        ("a photo of a {}, a type of flower.",),
        (
            File(
                "flowers-102/102flowers.tgz",
                f"{_ROBOTS}/flowers/102/102flowers.tgz",
                "52808999861908f626f3c1f4e79d11fa",
                "flowers-102",
                "flowers-102/jpg",
            ),
            File(
                "flowers-102/imagelabels.mat",
                f"{_ROBOTS}/flowers/102/imagelabels.mat",
                "e0620be6f572b9609742df49c70aed4d",
            ),
            File(
                "flowers-102/setid.mat",
                f"{_ROBOTS}/flowers/102/setid.mat",
                "a5357ecc9cb78c4bef273ce3793fc85c",
            ),
        ),
    ),
    Row(
        "imagenet100",
        "100 classes of ImageNet",
        100,
        (73_200, 130_000),
        5_000,
        _TERMS,
        "by hand: Kaggle ambityga/imagenet100",
        "imagenet100/{train,val}/CLASS/*, or imagenet100/{train.X1 … train.X4, val.X}/WNID/*.JPEG "
        "and Labels.json",
        f"official train, val as test; {RANDOM_DEV}",
        "folders, _ as space; for WordNet ids the first name in Labels.json",
        IMAGENET,
        (
            File(
                "imagenet100/imagenet100.zip",
                "",
                "",
                "imagenet100",
                "imagenet100/val.X",
                "https://www.kaggle.com/datasets/ambityga/imagenet100",
            ),
        ),
    ),
    Row(
        "tinyimagenet",
        "small photos of 200 kinds of things",
        200,
        100_000,
        10_000,
        _TERMS,
        "cs231n.stanford.edu",
        "tiny-imagenet-200/{train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt, "
        "wnids.txt, words.txt}",
        f"official train, val as test; {RANDOM_DEV}",
        "words.txt, the first name",
        IMAGENET,
        (
            File(
                "tiny-imagenet-200.zip",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "90528d7ca1a48142e341f4ef8d21d0de",
                "",
                "tiny-imagenet-200",
            ),
        ),
    ),
)
ROWS: dict[str, Row] = {row.name: row for row in _ROWS}


def row(name: str) -> Row:
    """The entry of a dataset. Raises BvError for an unknown name.

    >>> row("pets").classes
    37
    """
    if name not in ROWS:
        raise unknown("dataset of the papers", name, ROWS)
    return ROWS[name]


@cache
def prompts(name: str) -> tuple[str, ...]:
    """Prompt templates of a dataset, each with one ``{}``. Raises BvError for an unknown name."""
    if row(name).prompts != IMAGENET:
        return row(name).prompts
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    from bvlib.core import _torchvision  # noqa: F401  (must come before open_clip)

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def steps(name: str, images: int, train: Mapping[str, Any]) -> int:
    """Steps of a fine-tuning on ``images`` training images: those of the recipe ``train`` (steps,
    batch); where it names none,
    the epochs of the public BadMerging code, or our 2,000 for a dataset that it does not have."""
    return train["steps"] or (
        EPOCHS[name] * -(-images // train["batch"]) if name in EPOCHS else USUAL_STEPS
    )


def describe() -> "pandas.DataFrame":  # noqa: F821
    """The table, a row a dataset: train is counted after dev is taken out of it (a text "a to b"
    where it may vary)."""
    import pandas

    rows = []
    for one in ROWS.values():
        ends = one.train if isinstance(one.train, tuple) else (one.train,)
        train = [n - one.drawn_dev(n) for n in ends]
        rows.append(
            {
                "name": one.name,
                "what": one.what,
                "classes": one.classes,
                "train": train[0] if len(train) == 1 else f"{train[0]:,} to {train[-1]:,}",
                "dev": one.dev or one.drawn_dev(ends[0]),
                "test": one.test,
                "licence": one.licence,
                "source": one.source,
                "layout": one.layout,
                "split": one.split,
                "class names": one.names,
                "prompts": 80 if one.prompts == IMAGENET else len(one.prompts),
                "by hand": any(not file.url for file in one.files),
            }
        )
    return pandas.DataFrame(rows)
