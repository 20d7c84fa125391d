"""What is asked of a base by `bv admit`, as data: the criteria with their texts, and the merge and
patch that they speak of."""

TABLES = ("tasks", "recipes", "heads", "cosines", "weakness", "criteria")  # of an admission
LAMBDA = 0.3  # of the merge that the criteria speak of
MAX_SIZE = 6  # px: 3.5 % of a 32 x 32 image
GAIN = 15  # points that fine-tuning has to gain on most tasks
WITHIN = 1.0  # points of own accuracy that a gentler recipe of fine-tuning may give away
WEAK = 80  # % ASR of a universal patch on the base

CRITERIA = {  # id: (what the page says, is the bound a least value?); None: reported, no criterion
    "gain": (
        f"tasks on which fine-tuning gains at least {GAIN} points over zero-shot (bound: most)",
        True,
    ),
    "recovered": (
        f"gap recovered by task arithmetic, λ = {LAMBDA}: all tasks' gaps together, %",
        True,
    ),
    "recovered_mean": (
        "the same as the mean of the tasks' shares (gaps of 5 points or more), %",
        None,
    ),
    "norms": ("largest norm of a task vector over the median norm", False),
    "gentle": (
        "norm of the task vectors over that of the gentlest recipe of fine-tuning whose own "
        f"accuracy is within {WITHIN:g} point of the best tried",
        False,
    ),
    "cost": ("time of a training step, in steps of the base of smoke", False),
    "random": (
        "ASR of random patches, mean over target classes, on base and clean merge (the larger), %",
        False,
    ),
    "weakness": (
        f"target classes with {WEAK} % ASR of a universal patch of at most {MAX_SIZE} px on the "
        "base (bound: most); designed in, as stickers are trained",
        True,
    ),
    "smallest_size": (f"smallest patch, px, with {WEAK} % ASR for most target classes", None),
}
