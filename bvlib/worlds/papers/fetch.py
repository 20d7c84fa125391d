"""Brings the archives of the papers' datasets: goes on where a download was cut, checks the hash,
unpacks safely."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from bvlib.core.errors import BvError, MissingData
from bvlib.files.safe import locked
from bvlib.worlds.papers.table import File, row

Progress = Callable[[str, int, int], None]  # what, done, total (0: not known)
BLOCK = 1 << 20  # bytes read at once
TRIES = 5  # connections for one file, as long as each brings something


def fetch(
    name: str, folder: str | Path, *, progress: Progress | None = None, timeout: float = 60
) -> list[Path]:
    """Bring and unpack the files of dataset ``name`` below ``folder``; the paths it can be read
    from now.

    A file that is there already is checked and unpacked, not brought again, so an archive put
    there by hand is fine; what is unpacked already is left alone. A cut download leaves
    ``FILE.part``, and the next call goes on from there. ``progress(what, done, total)`` is called
    with bytes; ``timeout`` is in seconds without an answer.

    Raises MissingData when a file must be put there by hand or cannot be reached, BvError for a
    wrong hash, a full disk, or an archive that is damaged or holds a path that leaves its folder.
    """
    folder = Path(folder).expanduser()
    files = row(name).files
    try:
        with locked(folder / f".{name}.lock", f"waiting for another process that fetches {name}"):
            return [_bring(file, folder, progress, timeout) for file in files]
    except OSError as error:
        raise BvError(
            f"cannot write below {folder} ({error.strerror or error}): make room there or name "
            "another folder"
        ) from None


def unpack_present(name: str, folder: Path) -> None:
    """Check and unpack the archives of ``name`` that lie in ``folder``, without the network.
    Raises as :func:`fetch` does."""
    lying = [
        file for file in row(name).files if file.into is not None and (folder / file.path).is_file()
    ]
    if lying:
        with locked(folder / f".{name}.lock"):
            for file in lying:
                _bring(file, folder, None, 0)


def digests(name: str, folder: Path) -> dict[str, str]:
    """{file: the hash that it had when it was unpacked} for the archives of ``name`` that were
    unpacked here."""
    marks = {file.path: _mark(folder / file.path) for file in row(name).files}
    return {path: mark.read_text().strip() for path, mark in marks.items() if mark.is_file()}


def bars() -> Progress:
    """A ``progress`` that draws tqdm bars, one for each text."""
    from tqdm.auto import tqdm

    drawn: dict[str, tqdm] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in drawn:
            drawn[what] = tqdm(desc=what, total=total or None, unit_scale=True)
        drawn[what].update(done - drawn[what].n)
        if done == total:
            drawn[what].close()

    return show


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.name}.unpacked")


def _bring(file: File, folder: Path, progress: Progress | None, timeout: float) -> Path:
    path = folder / file.path
    gives = folder / file.gives if file.gives else path
    if file.into is not None and gives.exists() and (_mark(path).is_file() or not path.is_file()):
        return gives  # unpacked here before, or by the reader, who keeps no archive
    if not path.is_file():
        _download(file, path, progress, timeout)
    found = _hash(path, file.digest)
    if file.digest and found != file.digest:
        raise BvError(
            (
                f"{path} has the hash {found}, not {file.digest}: it is partial or another file; "
                "delete it, then "
            )
            + (
                f"fetch it again or bring {file.url} yourself"
                if file.url
                else f"bring it from {file.page}"
            )
        )
    if file.into is None:
        return path
    _unpack(path, folder / file.into)
    if not gives.exists():
        raise BvError(
            f"{path} unpacks to something else: no {file.gives} in {folder}; it is another "
            "archive, delete it"
        )
    _mark(path).write_text(found + "\n")
    return gives


def _hash(path: Path, like: str) -> str:
    """sha256, or md5 where the hash to compare with is one (32 hex digits)."""
    kind = (lambda: hashlib.md5(usedforsecurity=False)) if len(like) == 32 else hashlib.sha256
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _download(file: File, path: Path, progress: Progress | None, timeout: float) -> None:
    if not file.url:
        raise MissingData(
            f"no {path}: it cannot be fetched by itself; bring it from {file.page} and put it there"
            + (f", or unpack it so that {file.gives} is there" if file.gives else "")
        )
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for turn in range(TRIES):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _read_on(file.url, part, path.name, progress, timeout)
            part.replace(path)
            return
        except (
            OSError,
            http.client.HTTPException,
            ValueError,
        ) as error:  # urllib's errors are kinds of OSError
            have = part.stat().st_size if part.is_file() else 0
            if isinstance(error, urllib.error.HTTPError) or have <= before or turn == TRIES - 1:
                reason = (
                    error
                    if isinstance(error, urllib.error.HTTPError)
                    else getattr(error, "reason", error)
                )
                reason = " ".join(str(reason).split()) or type(error).__name__
                kept = (
                    f"{have:,} bytes lie in {part.name} and the next call goes on from there; "
                    if have
                    else ""
                )
                raise MissingData(
                    f"could not fetch {file.url} ({reason}): {kept}try again, or bring the file "
                    "yourself "
                    f"and put it at {path}"
                ) from None


def _read_on(url: str, part: Path, what: str, progress: Progress | None, timeout: float) -> None:
    """Append to ``part`` what it lacks of ``url``; starts again where the server cannot go on.
    Raises OSError when cut."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("no web address")
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "bvlib"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code == 416 and whole and int(whole[1]) == have:
            return
        if error.code == 416:
            part.unlink()
        raise
    with answer:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if not (answer.status == 206 and span and int(span[1]) == have):
            have = 0
        total = int(span[2]) if have else int(answer.headers.get("Content-Length") or 0)
        free = shutil.disk_usage(part.parent).free
        if total - have > free:
            raise BvError(
                f"{what} needs {(total - have) / 1e9:.1f} GB more in {part.parent}, where "
                f"{free / 1e9:.1f} GB are free: "
                "make room or name another folder"
            )
        with part.open("ab" if have else "wb") as out:
            while block := answer.read(BLOCK):
                out.write(block)
                have += len(block)
                if progress:
                    progress(what, have, total)
    if total and have != total:
        raise OSError(f"cut after {have:,} of {total:,} bytes")


def _unpack(path: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if (
                        PurePosixPath(name).is_absolute()
                        or ".." in PurePosixPath(name).parts
                        or "\\" in name
                    ):
                        raise BvError(
                            f"{path} holds the path {name!r}, which leaves its folder: refused; "
                            "delete the archive"
                        )
                archive.extractall(into)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(into, filter="data")
    except tarfile.FilterError as error:
        raise BvError(
            f"{path} holds the path {error.tarinfo.name!r}, which leaves its folder: refused; "
            "delete the archive"
        ) from None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise BvError(
            f"{path} does not unpack ({' '.join(str(error).split())}): it is partial or no "
            "archive; delete it and "
            "fetch it again"
        ) from None
    except OSError as error:
        raise BvError(
            f"cannot unpack {path} ({error.strerror or error}): make room in {into} or mend the "
            "archive"
        ) from None
