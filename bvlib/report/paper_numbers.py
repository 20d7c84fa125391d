"""Numbers that the papers published, typed in once with their source; nothing here was measured by
us."""

# Backdoor Vectors, scaling figure as published by the authors: θ_clean + λ_BV·BV on the task
# itself, before merging.
# Read off the picture: accuracy within 0.1, ASR within 0.7 points. (λ_BV, percent)
SCALING = {
    "accuracy": {
        "CLIP ViT-B-32, ImageNet100": [
            (0, 84.9),
            (0.1, 85.1),
            (0.2, 85.2),
            (0.3, 85.2),
            (0.4, 85.4),
            (0.5, 85.4),
            (0.6, 85.3),
            (0.7, 85.3),
            (0.8, 85.3),
            (0.9, 85.1),
            (1, 84.8),
        ],
        "CLIP ViT-B-32, CIFAR100": [
            (0, 89.0),
            (0.1, 89.2),
            (0.2, 89.4),
            (0.3, 89.5),
            (0.4, 89.5),
            (0.5, 89.5),
            (0.6, 89.5),
            (0.7, 89.4),
            (0.8, 89.35),
            (0.9, 89.2),
            (1, 88.9),
        ],
        "CLIP ViT-L-14, ImageNet100": [
            (0, 89.8),
            (0.1, 90.15),
            (0.2, 90.4),
            (0.3, 90.6),
            (0.4, 90.6),
            (0.5, 90.6),
            (0.6, 90.5),
            (0.7, 90.4),
            (0.8, 90.2),
            (0.9, 90.0),
            (1, 89.6),
        ],
        "CLIP ViT-L-14, CIFAR100": [
            (0, 92.6),
            (0.1, 92.9),
            (0.2, 93.2),
            (0.3, 93.3),
            (0.4, 93.3),
            (0.5, 93.3),
            (0.6, 93.2),
            (0.7, 93.0),
            (0.8, 92.7),
            (0.9, 92.4),
            (1, 91.9),
        ],
    },
    "asr": {  # a curve stays at 100 between its last two points
        "CLIP ViT-B-32, ImageNet100": [
            (0, 40.6),
            (0.1, 87.3),
            (0.2, 99.1),
            (0.3, 99.9),
            (0.4, 100),
            (1, 100),
        ],
        "CLIP ViT-B-32, CIFAR100": [
            (0, 9.9),
            (0.1, 26.3),
            (0.2, 57.8),
            (0.3, 87.3),
            (0.4, 98.5),
            (0.5, 99.9),
            (0.6, 100),
            (1, 100),
        ],
        "CLIP ViT-L-14, ImageNet100": [
            (0, 0),
            (0.1, 0.3),
            (0.2, 1.5),
            (0.3, 31.7),
            (0.4, 83.6),
            (0.5, 98.9),
            (0.6, 100),
            (1, 100),
        ],
        "CLIP ViT-L-14, CIFAR100": [
            (0, 0),
            (0.1, 0),
            (0.2, 0),
            (0.3, 1.0),
            (0.4, 13.7),
            (0.5, 62.9),
            (0.6, 96.0),
            (0.7, 100),
            (1, 100),
        ],
    },
}

# What is published for CLIP ViT-B/32 beside the criteria of `bv admit`, by criterion: (what, value
# in percent, source). The
# Backdoor Vectors values are read off the scaling figure (see above) at λ_BV = 0, where the model
# is a clean fine-tune.
_SCALED = "Backdoor Vectors, scaling figure at λ_BV = 0"
_BADMERGING = "BadMerging, on-task attack, six tasks (from a reader's notes on the paper)"
_THIRD = "a third party with the BadMerging code, github.com/qingli-meme/test_submerge, one seed"
CLIP = {
    "gain": [
        ("accuracy fine-tuned on CIFAR100", 89.0, _SCALED),
        ("accuracy fine-tuned on ImageNet100", 84.9, _SCALED),
    ],
    "recovered": [
        ("accuracy of the clean merge of six tasks by task arithmetic, mean", 76.51, _BADMERGING)
    ],
    "weakness": [
        (
            "universal patch on the base, CIFAR100, class 1, 22 px = 0.96 % of the pixels",
            95.98,
            _THIRD,
        ),
        ("the same on a clean merge by task arithmetic", 83.12, _THIRD),
        ("the same on a clean merge by TIES", 93.55, _THIRD),
        ("ASR on a clean fine-tune of CIFAR100, trigger not named", 9.9, _SCALED),
        ("ASR on a clean fine-tune of ImageNet100, trigger not named", 40.6, _SCALED),
    ],
}

# BadMerging, main table: merged ASR (%) of the on-task attack, CLIP ViT-B/32, CIFAR100, six tasks
# (from a reader's notes on the
# paper); off-task (CIFAR100 adversary, Cars196 "Acura RL") 89 to 96 over the same five, classical
# attacks below about 30.
BADMERGING_ON = {
    "task_arithmetic": 98.14,
    "ties": 99.26,
    "regmean": 96.71,
    "adamerging_layerwise": 99.48,
    "surgery": 99.15,
}
