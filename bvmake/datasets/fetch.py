"""Brings the archives of the papers' datasets: goes on where a download was cut, checks the hash,
unpacks safely."""

import hashlib
import http.client
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from bvlib.core.errors import BvError, MissingData, reason, told_as
from bvlib.files.safe import locked, writing
from bvlib.worlds.papers.table import row
from bvlib.worlds.table import File

TIMEOUT = 60  # seconds without an answer
TRIES = 5  # connections for one file, as long as each brings something


def fetch(name: str, folder: str | Path) -> list[Path]:
    """Bring and unpack the files of dataset ``name``; the paths it can be read from now.

    A file that is there below ``folder`` already is checked and unpacked, not brought again, so an
    archive put there by hand is fine; what is unpacked already is left alone. A cut download leaves
    ``FILE.part``, and the next call goes on from there.

    Raises MissingData when a file must be put there by hand or cannot be reached, BvError for a
    wrong hash, a full disk, or an archive that is damaged or holds a path that leaves its folder.
    """
    folder = Path(folder).expanduser()
    waiting = f"waiting for another process that fetches {name}"
    with writing(folder), locked(folder / f".{name}.lock", waiting):
        return [_bring(file, folder) for file in row(name).files]


def unpack_present(name: str, folder: Path) -> None:
    """Check and unpack the archives of ``name`` that lie in ``folder``, without the network.

    Raises as :func:`fetch` does.
    """
    files = [file for file in row(name).files if file.into is not None]
    if lying := [file for file in files if (folder / file.path).is_file()]:
        with locked(folder / f".{name}.lock"):
            for file in lying:
                _bring(file, folder)


def digests(name: str, folder: Path) -> dict[str, str]:
    """{file: the hash it had when it was unpacked} for the archives of ``name`` unpacked here."""
    marks = {file.path: _mark(folder / file.path) for file in row(name).files}
    return {path: mark.read_text().strip() for path, mark in marks.items() if mark.is_file()}


def need_room(what: str, needed: int, folder: Path, mend: str) -> None:
    """Raise BvError when ``needed`` more bytes do not fit into ``folder``."""
    if needed > (free := shutil.disk_usage(folder).free):
        need = f"{needed / 1e9:.1f} GB more in {folder}, where {free / 1e9:.1f} GB are free"
        raise BvError(f"{what} needs {need}: {mend}")


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.name}.unpacked")


def _bring(file: File, folder: Path) -> Path:
    path = folder / file.path
    gives = folder / file.gives if file.gives else path
    unpacks = file.into is not None
    if unpacks and gives.exists() and (_mark(path).is_file() or not path.is_file()):
        return gives  # unpacked here before, or by the reader, who keeps no archive
    if not path.is_file():
        _download(file, path)
    kind = "md5" if len(file.digest) == 32 else "sha256"
    with path.open("rb") as data:
        found = hashlib.file_digest(data, lambda: hashlib.new(kind, usedforsecurity=False))
    if file.digest and found.hexdigest() != file.digest:
        way = f"fetch it again or bring {file.url} yourself"
        way = way if file.url else f"bring it from {file.page}"
        what = f"{path} has the hash {found.hexdigest()}, not {file.digest}"
        raise BvError(f"{what}: it is partial or another file; delete it, then {way}")
    if not unpacks:
        return path
    _unpack(path, folder / file.into)
    if not gives.exists():
        what = f"unpacks to something else: no {file.gives} in {folder}"
        raise BvError(f"{path} {what}; it is another archive, delete it")
    _mark(path).write_text(found.hexdigest() + "\n")
    return gives


def _download(file: File, path: Path) -> None:
    """Bring one file in up to TRIES connections, as long as each brings something."""
    if not file.url:
        way = f"bring it from {file.page} and put it there"
        way += f", or unpack it so that {file.gives} is there" if file.gives else ""
        raise MissingData(f"no {path}: it cannot be fetched by itself; {way}")
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for turn in range(TRIES):
        before = _size(part)
        try:
            _read_on(file.url, part, path.name)
            part.replace(path)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:  # urllib's are OSErrors
            have, answered = _size(part), isinstance(error, urllib.error.HTTPError)
            if answered or have <= before or turn == TRIES - 1:
                kept = f"{have:,} bytes lie in {part.name} and the next call goes on from there; "
                mend = "try again, or bring the file yourself and put it at"
                what = f"could not fetch {file.url} ({reason(error)})"
                raise MissingData(f"{what}: {kept if have else ''}{mend} {path}") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _read_on(url: str, part: Path, what: str) -> None:
    """Append to ``part`` what it lacks of ``url``; starts again where the server cannot go on.

    Raises OSError when cut.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("no web address")
    have = _size(part)
    headers = {"User-Agent": "bvlib"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have: it is whole, or not of this file
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
        raise
    with answer:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if not (answer.status == 206 and span and int(span[1]) == have):
            have = 0
        total = int(span[2] if have else answer.headers.get("Content-Length") or 0)
        need_room(what, total - have, part.parent, "make room or name another folder")
        bar = tqdm.wrapattr(answer, "read", total or None, desc=what, initial=have, disable=None)
        with bar as body, part.open("ab" if have else "wb") as out:
            shutil.copyfileobj(body, out)
    if total and (have := _size(part)) != total:
        raise OSError(f"cut after {have:,} of {total:,} bytes")


def _unpack(path: Path, into: Path) -> None:
    """Unpack a zip or tar. Raises BvError when it is damaged or a path in it leaves ``into``."""
    into.mkdir(parents=True, exist_ok=True)
    kinds = tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError
    partial = "it is partial or no archive; delete it and fetch it again"
    leaves = f"{path} holds the path of an entry that leaves its folder"
    with (
        told_as(f"cannot unpack {path}", OSError, mend=f"make room in {into} or mend the archive"),
        told_as(f"{path} does not unpack", *kinds, mend=partial),
        told_as(leaves, tarfile.FilterError, mend="refused; delete the archive"),
    ):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                        raise tarfile.FilterError(name)  # as tarfile does by itself
                archive.extractall(into)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(into, filter="data")
