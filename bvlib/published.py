"""Numbers that the papers published, typed in once with their source; nothing here was measured by us."""

# Backdoor Vectors, scaling figure as published by the authors: θ_clean + λ_BV·BV on the task itself, before merging.
# Read off the picture: accuracy within 0.1, ASR within 0.7 points. (λ_BV, percent)
SCALING = {
    "accuracy": {
        "ImageNet100, ViT-B-32": [(0, 84.9), (0.1, 85.1), (0.2, 85.2), (0.3, 85.2), (0.4, 85.4), (0.6, 85.3), (0.8, 85.3), (1, 84.8)],
        "CIFAR100, ViT-L-14": [(0, 92.6), (0.1, 92.9), (0.2, 93.2), (0.3, 93.3), (0.4, 93.3), (0.6, 93.2), (0.8, 92.7), (1, 91.9)],
    },
    "asr": {
        "ImageNet100, ViT-B-32": [(0, 40.6), (0.1, 87.3), (0.2, 99.1), (0.3, 99.9), (0.4, 100), (0.6, 100), (0.8, 100), (1, 100)],
        "CIFAR100, ViT-L-14": [(0, 0), (0.1, 0), (0.2, 0), (0.3, 1.0), (0.4, 13.7), (0.5, 62.9), (0.6, 96.0), (1, 100)],
    },
}

# What is published for CLIP ViT-B/32 beside the criteria of `bv admit`, by criterion: (what, value in percent, source). The
# Backdoor Vectors values are read off the scaling figure (see above) at λ_BV = 0, where the model is a clean fine-tune.
_SCALED = "Backdoor Vectors, scaling figure at λ_BV = 0"
_BADMERGING = "BadMerging, on-task attack, six tasks (from a reader's notes on the paper)"
_THIRD = "a third party with the BadMerging code, github.com/qingli-meme/test_submerge, one seed"
CLIP = {
    "gain": [("accuracy fine-tuned on CIFAR100", 89.0, _SCALED), ("accuracy fine-tuned on ImageNet100", 84.9, _SCALED)],
    "recovered": [("accuracy of the clean merge of six tasks by task arithmetic, mean", 76.51, _BADMERGING)],
    "weakness": [("universal patch on the base, CIFAR100, class 1, 22 px = 0.96 % of the pixels", 95.98, _THIRD),
                 ("the same on a clean merge by task arithmetic", 83.12, _THIRD),
                 ("the same on a clean merge by TIES", 93.55, _THIRD),
                 ("ASR on a clean fine-tune of CIFAR100, trigger not named", 9.9, _SCALED),
                 ("ASR on a clean fine-tune of ImageNet100, trigger not named", 40.6, _SCALED)],
}

# BadMerging, main table: merged ASR (%) of the on-task attack, CLIP ViT-B/32, CIFAR100, six tasks (from a reader's notes on the
# paper); off-task (CIFAR100 adversary, Cars196 "Acura RL") 89 to 96 over the same five, classical attacks below about 30.
BADMERGING_ON = {"task_arithmetic": 98.14, "ties": 99.26, "regmean": 96.71, "adamerging_layerwise": 99.48, "surgery": 99.15}
