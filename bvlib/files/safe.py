"""Files that appear whole or not at all, their hashes, and locks that die with their process."""

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from bvlib.core.errors import BvError


class Taken(Exception):
    """Another process holds the lock."""


def file_sha256(path: str | Path) -> str:
    """sha256 (64 hex digits) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the block's file system refuses becomes a BvError that names `path`, cause and mend."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "make room there" if full else "name another folder"
        said = error.strerror or error
        raise BvError(f"cannot write {path} ({said}): {mend}; what is finished is kept") from None


@contextmanager
def locked(path: Path, waiting: str = "", patient: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, which dies with this process.

    One that is taken is waited for, after saying `waiting` (one line); or, not ``patient``, Taken
    is raised. BvError for a folder that cannot be written.
    """
    lock = FileLock(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not patient:
                raise Taken from None
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` on a file beside `path`, then move it there: readers never see half of it.

    BvError for what the file system refuses.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.touch()
            usual = draft.stat().st_mode  # some libraries write files that only their owner reads
            write(draft)
            draft.chmod(usual)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, with or without a byte order mark."""
    return json.loads(path.read_text(encoding="utf-8-sig"))


class _Loader(yaml.SafeLoader):
    """Plain values only; a key that is there twice is an error, not the last one's value."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {twice[0]!r} is there twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, plain values only; yaml.YAMLError for a key that is there
    twice."""
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def read_json_if(path: Path) -> Any:
    """The content of a JSON file; None if there is none, or none that can be read."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
