"""Merging checkpoints from file to file: N models, the memory of a fraction of one, the bits of
the in-memory merge.

The merges that stream work entry by entry, but for one number a task: the threshold at which TIES
trims. So files are read in blocks of 65,536 entries, by several threads with buffers of their own,
and the result is written as it comes; nothing is mapped into memory, as mapped pages count. The
threshold, the k-th largest |tau| of a whole vector, is found exactly without sorting or keeping
entries, as a rule in one pass over the files: see :mod:`bvlib.merging.selection`.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bvlib.core.errors import BadCheckpoint, BvError
from bvlib.core.vectors import TaskVector, check_finite, check_same
from bvlib.core.versions import environment
from bvlib.files.safe import file_sha256, write_json, write_whole
from bvlib.files.weights import _weights_path, card_of, read_card
from bvlib.merging.datafree import mean_tensor, sum_tensor, ties_tensor
from bvlib.merging.registry import merge, merging
from bvlib.merging.selection import Largest
from bvlib.merging.weight_file import Span, WeightFile

STREAMING = ("average", "task_arithmetic", "ties")
AHEAD = 16  # blocks that the threads may be ahead of the writer
SAMPLE = 1 << 18  # entries of each tau_t that say about where its threshold lies


def merge_files(
    method: str,
    base: str | Path,
    finetuned: Sequence[str | Path],
    out: str | Path,
    *,
    device: str | torch.device | None = None,
    check: bool = True,
    **parameters: Any,
) -> Path:
    """Write theta_0 + merge(method, [tau_1, ..., tau_T]) to `out` and return its path; see
    `bvlib.merging.merge`.

    `base` holds theta_0 and `finetuned` theta_1 to theta_T, image towers as .safetensors; tensors
    keep name, shape and dtype. Methods: average, task_arithmetic, ties, with their parameters. The
    bits are those of the in-memory merge on the same device (default: the GPU when there is one).
    float16 and bfloat16 are computed in float32, from tau to the sum with theta_0, and rounded
    once, to the base's dtype. Tensors that are not floating point must be equal in all and are
    copied.

    The card beside `out` tells method, parameters, and each file with its sha256. `check` reads
    every input once more for that, and refuses one that differs from its card; without it the word
    of a card is taken and only files without one are hashed. While this runs, torch ops on the CPU
    use one thread each.

    Memory on the CPU: a few MB, up to 8 MB a task for ties, and T blocks of 256 KB for each of at
    most eight threads.

    BvError for a method that does not stream, an unknown parameter or value, no file to merge,
    and, naming tensor and file, for names, shapes or dtypes that differ and entries that are not
    finite; BadCheckpoint for a missing, damaged or refused file. Nothing is written then.
    """
    settings = _settings(method, len(finetuned), parameters)
    out, paths = _weights_path(out), [_weights_path(path) for path in (base, *finetuned)]
    if out.resolve() in [path.resolve() for path in paths]:
        raise BvError(f"{out} is one of the files to merge: name another file for the result")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with ExitStack() as stack:
        files = [WeightFile(path, stack) for path in paths]
        for file in files[1:]:
            check_same(file.like, files[0].like, str(file.path), str(files[0].path))
        pool = stack.enter_context(_workers(device))
        hashes = [pool.submit(_sha256, path, check) for path in paths]
        work = _Merge(files, device, pool, settings.get("density", 1))
        written = hashlib.sha256()

        def write(draft: Path) -> None:
            if method == "average":
                combine = mean_tensor
            elif method == "task_arithmetic":
                combine = partial(sum_tensor, weight=settings["coefficient"])
            else:
                others = {name: value for name, value in settings.items() if name != "density"}
                combine = partial(ties_tensor, thresholds=work.thresholds(), **others)
            blocks = work.each(lambda span: work.merged(span, combine), work.spans())
            with open(draft, "wb") as target:
                for part in chain([files[0].header()], blocks):
                    target.write(part)
                    written.update(part)
            for digest in hashes:
                digest.result()  # an input that differs from its card leaves no output

        write_whole(out, write)
    told = [
        {"file": path.name, "sha256": digest.result()}
        for path, digest in zip(paths, hashes, strict=True)
    ]
    plain = {name: v if isinstance(v, str) else float(v) for name, v in settings.items()}
    card = {
        "kind": "merged",
        "method": method,
        "parameters": plain,
        "base": told[0],
        "finetuned": told[1:],
        "environment": environment(device.type),
        "sha256": written.hexdigest(),
    }
    write_json(card_of(out), card)
    return out


def _settings(method: str, count: int, parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters of the method with their values; the in-memory merge of tiny vectors finds
    what is wrong with them."""
    if method in merging and method not in STREAMING:
        mend = f"only {', '.join(STREAMING)}: use bvlib.merging.merge"
        raise BvError(f"merging method {method!r} does not stream from files, {mend}")
    merge(method, [TaskVector({"w": torch.zeros(2)})] * count, **parameters)
    return {name: parameters.get(name, value) for name, value in merging[method].parameters.items()}


def _sha256(path: Path, check: bool) -> str:
    told = read_card(path).get("sha256")
    found = told if told and not check else file_sha256(path)
    if told not in (None, found):
        raise BadCheckpoint(
            f"{path} is not the file that its card {card_of(path).name} describes "
            "(its sha256 differs): copy or make it again"
        )
    return found


@contextmanager
def _workers(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool of as many threads as torch has (at most eight, two for a GPU), in which a torch op
    keeps to its thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads start with this
    pool = ThreadPoolExecutor(min(threads, 8 if device.type == "cpu" else 2))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


class _Merge:
    """theta_0 and T fine-tuned files, gone through block by block."""

    def __init__(
        self,
        files: list[WeightFile],
        device: torch.device,
        pool: ThreadPoolExecutor,
        density: float,
    ):
        self.files, self.device, self.pool, self.like = files, device, pool, files[0].like
        self.local = threading.local()
        # fits the cache of a core; keeps a GPU busy
        self.size = 1 << (16 if device.type == "cpu" else 20)
        floating = [tensor for tensor in self.like.values() if tensor.is_floating_point()]
        self.whole = sum(tensor.numel() for tensor in floating)
        self.keep = max(1, round(density * self.whole))
        double = any(tensor.dtype == torch.float64 for tensor in floating)
        self.number = torch.float64 if double else torch.float32

    def spans(self, floating: bool = False) -> list[Span]:
        """All blocks, or those of floating-point tensors, in the order of the base's file."""
        return [
            (key, first, min(first + self.size, tensor.numel()))
            for key, tensor in self.like.items()
            if tensor.is_floating_point() or not floating
            for first in range(0, tensor.numel(), self.size)
        ]

    def each(self, work: Callable[[Span], Any], spans: list[Span]) -> Iterator[Any]:
        """work(span) of every span, in order, by several threads that run only a little ahead."""
        ahead: deque[Future] = deque()
        for number in range(len(spans) + AHEAD):
            if number < len(spans):
                ahead.append(self.pool.submit(work, spans[number]))
            if number >= AHEAD:
                yield ahead.popleft().result()

    def entries(self, number: int, span: Span) -> Tensor:
        """Entries of file `number`, on the device, floating point in at least float32; they may
        lie in this thread's buffer."""
        if not hasattr(self.local, "buffers"):
            widest = max(tensor.dtype.itemsize for tensor in self.like.values())
            self.local.buffers = torch.empty(len(self.files), widest * self.size, dtype=torch.uint8)
        entries = self.files[number].read(span, self.local.buffers[number]).to(self.device)
        return entries.float() if entries.dtype in (torch.float16, torch.bfloat16) else entries

    def vectors(self, span: Span, theta: Tensor) -> Iterator[Tensor]:
        """tau_t = theta_t - theta_0 for t = 1 ... T, checked to be finite."""
        for number in range(1, len(self.files)):
            tau = self.entries(number, span).sub_(theta)
            if not torch.isfinite(tau.sum()):  # a finite sum has finite entries and is found faster
                try:
                    check_finite(span[0], tau)
                except BvError as error:
                    raise BvError(f"{self.files[number].path}: {error}") from None
            yield tau

    def merged(self, span: Span, combine: Callable[[list[Tensor]], Tensor]) -> memoryview:
        """The bytes of the result's entries."""
        theta, dtype = self.entries(0, span), self.like[span[0]].dtype
        if dtype.is_floating_point:
            merged = (theta + combine(list(self.vectors(span, theta)))).to(dtype)
            if not torch.isfinite(merged.sum(dtype=torch.float64)):
                raise BvError(
                    f"tensor {span[0]!r} of the merge has entries that are not finite in {dtype}: "
                    "lower the coefficient, or merge files of a wider type"
                )
            return merged.cpu().view(torch.uint8).numpy().data
        for number, file in enumerate(self.files[1:], start=1):
            if not torch.equal(self.entries(number, span), theta):
                both = f"{self.files[0].path} and {file.path}"
                what = f"tensor {span[0]!r} is {dtype} and differs between {both}"
                raise BvError(f"{what}: only floating-point weights can be merged")
        return theta.cpu().clone().view(torch.uint8).numpy().data

    def thresholds(self) -> list[float]:
        """For each tau_t over all floating-point tensors, exactly
        `bvlib.core.vectors.magnitude_threshold(tau_t, density)`.

        Where all is kept these are zeros, and no file is read. A few entries of every block say
        where to look first.
        """
        tasks, blocks = len(self.files) - 1, self.spans(floating=True)
        if self.keep >= self.whole:
            return [0.0] * tasks
        found = [Largest(self.keep, self.number) for _ in range(tasks)]

        def magnitudes(span: Span) -> list[Tensor]:
            return [tau.abs_().to(self.number) for tau in self.vectors(span, self.entries(0, span))]

        def count(span: Span) -> None:
            for search, values in zip(found, magnitudes(span), strict=True):
                search.see(values)

        apart = -(-self.whole // SAMPLE)
        few = [(key, first, first + -(-(last - first) // apart)) for key, first, last in blocks]
        samples = self.each(lambda span: [values.clone() for values in magnitudes(span)], few)
        for search, sample in zip(found, zip(*samples, strict=True), strict=True):
            search.guess(torch.cat(sample), self.keep / self.whole)
        while not all(search.done for search in found):
            deque(self.each(count, blocks), maxlen=0)
            for search in found:
                search.narrow()
        return [search.found for search in found]
