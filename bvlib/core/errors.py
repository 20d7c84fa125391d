"""Errors that say in one line what is wrong and how to mend it."""

import difflib
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class BvError(Exception):
    """A mistake the reader can mend: one line that names the culprit and the way out."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback: one line."""
        return [f"{type(self).__name__}: {self}"]


class MissingData(BvError):
    """A data set or file that must be prepared first is not there."""


class BadCheckpoint(BvError):
    """A weight file is damaged, of a refused format, or does not fit the model."""


class NotebookFailed(BvError):
    """A notebook stopped with an error that is no BvError: a mistake in the notebook or in
    bvlib."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BvError:
    """The error for a name that is not known, with a known one that is spelt much like it, if there
    is one. It is returned, not raised.

    >>> unknown("merging method", "tise", ["average", "ties"])
    BvError("unknown merging method 'tise': did you mean 'ties'? known: average, ties")
    """
    names = [str(item) for item in known]
    lowered = {item.lower(): item for item in names}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    hint = f": did you mean {lowered[near[0]]!r}? known: " if near else "; known: "
    return BvError(f"unknown {kind} {name!r}{hint}{', '.join(names) or '(none)'}")


def check_choice(kind: str, value: str, known: Iterable[str]) -> None:
    """Raise the error of :func:`unknown` for a value that is none of those that are known."""
    if value not in (known := list(known)):
        raise unknown(kind, value, known)


@contextmanager
def told_as(what: str | BvError, *kinds: type[Exception], mend: str = "") -> Iterator[None]:
    """Raise a BvError in place of any exception, or of those of the named kinds only.

    ``what`` is that error, or what failed in words: the reason and ``mend`` follow.

    >>> with told_as("no list", KeyError, mend="give one"):
    ...     {}["list"]
    Traceback (most recent call last):
    bvlib.core.errors.BvError: no list ('list'): give one
    """
    try:
        yield
    except Exception as cause:
        if kinds and not isinstance(cause, kinds):
            raise
        told = f"{what} ({reason(cause)}): {mend}"
        raise (what if isinstance(what, BvError) else BvError(told)) from None


def reason(error: Exception) -> str:
    """What an error of a library or of the system says, in one line that is not too long."""
    text = getattr(error, "strerror", None) or textwrap.shorten(str(error), 300)
    return text or type(error).__name__
