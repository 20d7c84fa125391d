"""The parts of a profile: every setting once, with its type, its range and its help.

A field without a default must be in a profile; one whose type allows None may be null there.
Names that only a registry knows are looked up on demand, as registries import torch.
"""

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field
from typing import Any, dataclass_transform

# Where the names of a registry are, for pkgutil.resolve_name
ATTACKS = "bvlib.attacks.recipes:attack"
TRIGGERS = "bvlib.attacks.recipes:trigger_kind"
PLACES = "bvlib.attacks.triggers:PLACES"
METHODS = "bvlib.merging:merging"
RULES = "bvlib.attacks.sbv:sbv_rule"

Choices = str | Iterable[str] | None


def setting(help: str, *, default: Any = MISSING, **rule: float | Choices) -> Any:
    """A field: its help, its range (from ``low`` or ``above``, to ``high``) or its ``choices``.

    ``over``: a part that is given as a parameter goes over the profile's, so it may name a few.
    """
    return field(metadata={"help": help, **rule}, default=default)


# Parts


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(setting,))
class Part:
    """A part of a profile: its subclasses are frozen dataclasses of :func:`setting`."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class Run(Part):
    """What every notebook is told beside the settings."""

    profile: str = setting(
        "smoke, mini, real32 (real images, needs BVLIB_DATA) or paper", default="mini"
    )
    seed: int = setting("root seed; every use derives its own from it", low=0, default=0)
    out: str | None = setting(
        "folder of the results; None: runs/<profile>/seed-<seed>", default=None
    )


class Sizes(Part):
    """How many images of each task; None for all."""

    train: int | None = setting("training images of a task", low=1)
    dev: int | None = setting("images of a task to choose by", low=1)
    test: int | None = setting("images of a task that results are taken on", low=1)


class Trigger(Part):
    """How a trigger is optimised."""

    steps: int = setting("steps of the optimisation", low=0)
    batch: int = setting("images a step", low=1)
    lr: float = setting("learning rate", above=0)


class Train(Part):
    """How a base is fine-tuned."""

    steps: int | None = setting("steps; None: the epochs of BadMerging's code, by task", low=0)
    batch: int = setting("images a step", low=1)
    lr: float = setting("highest learning rate", above=0)
    weight_decay: float = setting("weight decay of AdamW", low=0)
    warmup: int = setting("steps of linear warm-up", low=0)
    precision: str = setting("precision of a pass", choices=("fp32", "bf16"), default="fp32")
    chunk: int | None = setting("images in memory at once; None: a batch", low=1, default=None)
    crop: float | None = setting(
        "least share of its area that a random crop keeps; None: whole images",
        above=0,
        high=1,
        default=None,
    )


class Sbv(Part):
    """Sparse Backdoor Vectors."""

    count: int = setting("how many backdoor vectors are merged", low=1)
    rule: str = setting("how they are merged, in other notebooks than 03", choices=RULES)
    scale: float = setting("λ_BV at which one vector and an SBV are compared", above=0)


class Ibvs(Part):
    """The trigger of the backdoor that a defender injects and subtracts."""

    size: int = setting("side in pixels", low=1)
    place: str = setting("where it lies", choices=PLACES)
    pattern: str = setting("kind of trigger", choices=TRIGGERS)
    budget: float = setting("clean accuracy that the defence may cost, in points", low=0)


class Steps(Part):
    """A short training of a defence."""

    steps: int = setting("steps", low=0)
    lr: float = setting("learning rate", above=0)


class Rivals(Part):
    """Defences beside IBVS."""

    sample: int = setting("test images of each task for occlusion", low=1)
    lfpm: Steps = setting("LFPM")
    dam: Steps = setting("DAM")
    tbar: Steps = setting("TBAR")


class OffTask(Part):
    """Goal and means of the off-task attack."""

    task: str = setting("the task that is attacked, another than the adversary's")
    target: int = setting("class index of that task", low=0)
    size: int = setting("side of the trigger in pixels", low=1)
    references: int = setting("known images of the target class", low=1)
    shadows: int = setting("shadow classes in place of the unknown ones", low=0)
    augmented: int = setting("images made of the known ones", low=0)


class Adamerging(Part):
    """AdaMerging."""

    steps: int = setting("steps on unlabelled dev images", low=0)
    lr: float = setting("learning rate", above=0)
    batch: int = setting("images of each task a step", low=1, default=16)


class Regmean(Part):
    """RegMean."""

    images: int = setting("training images of each task", low=1)
    gamma: float = setting("shrinks inner products off the diagonal", low=0, high=1, default=0.9)


class Surgery(Part):
    """Representation Surgery."""

    steps: int = setting("steps on unlabelled dev images", low=0)


class Adaptive(Part):
    """Merging algorithms that look at images."""

    adamerging: Adamerging = setting("AdaMerging")
    regmean: Regmean = setting("RegMean")
    surgery: Surgery = setting("Representation Surgery, after layer-wise AdaMerging")


class NeuralCleanse(Part):
    """The search of Neural Cleanse."""

    steps: int = setting("steps for each class at most; fewer where its norm settles", low=1)
    batch: int = setting("images a step", low=1)
    images: int | None = setting("of the dev images; None: all", low=1, default=None)


class FinePruning(Part):
    """Fine-pruning."""

    blocks: int = setting("last transformer blocks that are pruned", low=1)
    steps: int = setting("steps of fine-tuning after it", low=0)
    lr: float = setting("its learning rate", above=0)
    budget: float = setting("clean accuracy that pruning may cost, in points", low=0)


class Admission(Part):
    """What `bv admit` measures."""

    seed: int = setting("root seed; those below 100 are for reporting", low=100)
    classes: tuple[int, ...] = setting("target classes", low=0)
    sizes: tuple[int, ...] = setting("sides of triggers in pixels", low=1)
    random_patches: int = setting("random patches to compare with", low=1)
    steps: tuple[int, ...] = setting("steps of recipes of fine-tuning to compare", low=1)
    rates: tuple[float, ...] = setting("their learning rates, each with each", above=0)
    cost: float = setting("a training step's time, in steps of the base of smoke", above=0)


class Resources(Part):
    """What the run of one notebook takes; it decides no result but the number of threads."""

    threads: int | None = setting("threads of torch; None: one a core", low=1, default=1)
    memory: float = setting("at most, in GB", above=0, default=2.0)
    gpus: int = setting("GPUs to ask a cluster for", low=0, default=0)


class Settings(Part):
    """A whole profile."""

    about: str = setting("what the profile is for", default="")
    world: str = setting("where images come from", choices=("toy", "real32", "paper"))
    base: str = setting("a shipped base, or the path of a .safetensors with its card")
    second_base: str | None = setting("base of the headline's second runs", default=None)
    pretrained: str | None = setting(
        "a tag of open_clip, random for no weights; None: a shipped base", default=None
    )
    world_seed: int = setting("draws the images; the run's seed trains", low=0)
    sizes: Sizes = setting("images of each task")
    tasks: tuple[str, ...] = setting("tasks that are merged, in order; None: from the profile")
    adversary: str = setting("the task whose model is attacked")
    adversary_data: str = setting(
        "its training images: all, or a half; a defender has the second half",
        choices=("half", "all"),
        default="half",
    )
    second_adversary: str | None = setting("adversary of the headline's other runs", default=None)
    target_class: int = setting("class index that the attack aims at", low=0)
    other_classes: tuple[int, ...] = setting("target classes beside the attack's", low=0)
    other_tasks: tuple[str, ...] = setting("tasks of other adversaries, or that a defender guesses")
    other_base: str = setting("base of another seed, on which a trigger is optimised too")
    attack: str = setting("the attack that is studied; see `bv list`", choices=ATTACKS)
    alpha: float = setting("weight α of the backdoor loss", low=0)
    trigger_size: int = setting("side of the trigger in pixels", low=1)
    trigger: Trigger = setting("optimisation of triggers")
    train: Train = setting("fine-tuning")
    merging: str = setting("average, task_arithmetic, ties, ...; see `bv list`", choices=METHODS)
    coefficient: float = setting("merging coefficient λ", low=-100, high=100)
    density: float = setting("share of entries that SBVs and TIES keep", above=0, high=1)
    ties_counts: str = setting(
        "what TIES trims: the image tower, or all that CLIP saves",
        choices=("tower", "saved"),
        default="tower",
    )
    sbv: Sbv = setting("Sparse Backdoor Vectors")
    ibvs: Ibvs = setting("backdoor of the defender")
    rivals: Rivals = setting("defences beside IBVS")
    off_task: OffTask = setting("off-task attack", over=True)
    attacks: tuple[str, ...] = setting("attacks of the main table; see `bv list`", choices=ATTACKS)
    methods: tuple[str, ...] = setting("merging algorithms; see `bv list`", choices=METHODS)
    adaptive: Adaptive = setting("merging by images")
    neural_cleanse: NeuralCleanse = setting("Neural Cleanse")
    fine_pruning: FinePruning = setting("fine-pruning")
    admission: Admission | None = setting("of `bv admit`", default=None)
    resources: Resources = setting("of one notebook's run", default=Resources())
