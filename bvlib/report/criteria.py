"""What is asked of a base by `bv admit`, as data: the criteria with their texts, and the merge and
patch that they speak of."""

TABLES = ("tasks", "heads", "cosines", "weakness", "criteria")  # what an admission writes
LAMBDA = 0.3  # of the merge that the criteria speak of
MAX_SIZE = 6  # px: 3.5 % of a 32 x 32 image

CRITERIA = {  # id: (what the page says, is the bound a least value?); None: reported, no criterion
    "gain": (
        "tasks on which fine-tuning gains at least 15 points over zero-shot (bound: most)",
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
    "weakness": (
        f"target classes with 50 % ASR of a universal patch of at most {MAX_SIZE} px on the base "
        "(bound: most)",
        True,
    ),
    "random": ("ASR of random patches of that size, mean over target classes, %", False),
    "smallest_size": ("smallest patch, px, with 50 % ASR for most target classes", None),
}
