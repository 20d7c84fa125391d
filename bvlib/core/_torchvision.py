"""Let ``import torchvision`` succeed beside a CPU build of torch.

PyPI's torchvision for Linux is built for CUDA. Next to a CPU torch its compiled operators do not
load, and the import stops at "operator torchvision::nms does not exist", because fake kernels are
registered for operators that nobody declared. Declaring the schemas is enough: bvlib and open_clip
use torchvision's transforms and datasets, never these operators. Import this module before
torchvision or open_clip. Where torchvision is whole it only imports it: with a CUDA build of
torch, GPU or not, operators that were declared by hand would end the process.
"""

import importlib
import importlib.util
import sys

import torch

_library = None
if importlib.util.find_spec("torchvision"):
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for _name in ("nms", "qnms"):
            _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for _name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[_name]  # half imported
        importlib.import_module("torchvision")
