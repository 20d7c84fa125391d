"""Let ``import torchvision`` succeed beside a CPU build of torch.

PyPI's torchvision for Linux is built for CUDA. Next to a CPU torch its compiled operators do not load, and the
import stops at "operator torchvision::nms does not exist", because fake kernels are registered for operators that
nobody declared. Declaring the schemas first is enough: bvlib and open_clip use torchvision's transforms and
datasets, never these operators. Import this module before torchvision or open_clip; it does nothing where
torchvision is whole.
"""

import importlib.util

import torch

_library = None
if importlib.util.find_spec("torchvision") and not torch.cuda.is_available():
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
        try:
            _library.define(_schema)
        except RuntimeError:  # torchvision was imported before and declared it itself
            pass
