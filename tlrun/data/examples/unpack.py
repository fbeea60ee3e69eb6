"""Archives of many images, unpacked once into the cache: workers read single files.

Only images and lists are written, under names of the archive that stay inside the folder; links and
devices are left out. What is not complete has no name yet, so a kill leaves nothing that is read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tlrun.data.examples.download import cache_root, locked
from tlrun.data.examples.image_files import extensions, is_hidden
from tlrun.errors import DataError
from tlrun.files.archives import open_tar, open_zip

log = logging.getLogger("tlrun")

LISTS = (".txt", ".csv")


def unpacked(archive: Path) -> Path:
    """The folder in the cache that holds the images and lists of a .zip or .tar(.gz).

    An archive that was changed (size, time) is unpacked again. Raises DataError if it is damaged,
    or if the disk is full.
    """
    stat = archive.stat()
    known_by = f"{archive.name} {stat.st_size} {stat.st_mtime_ns}"
    tag = hashlib.sha256(os.fsencode(known_by)).hexdigest()[:12]
    folder = cache_root() / "unpacked" / f"{archive.name.partition('.')[0]}-{tag}"
    if folder.is_dir():
        return folder
    with locked(folder):
        if folder.is_dir():  # another process was faster
            return folder
        log.info("unpacking '%s' into '%s'", archive, folder)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            for name, stream in _members(archive):
                place = part / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with open(place, "wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
            os.replace(part, folder)
        except OSError as error:
            raise DataError(
                f"cannot unpack '{archive}' into '{folder}' ({error.strerror or error}); set "
                "TLRUN_CACHE to a folder with more space, or unpack it yourself."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """(path inside, stream) of every image and list of an archive."""
    if zipfile.is_zipfile(archive):
        with open_zip(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir() and (name := _wanted(info.filename)):
                    with packed.open(info) as stream:
                        yield name, stream
        return
    with open_tar(archive) as (tar, members):
        for member in members:
            if name := _wanted(member.name):
                content = tar.extractfile(member)
                assert content is not None  # a plain file
                yield name, content


def _wanted(member: str) -> PurePosixPath | None:
    """The path of an image or a list, None for anything else and for what would lead outside."""
    path = PurePosixPath(member.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or any(map(is_hidden, parts)):
        return None
    return PurePosixPath(*parts) if path.suffix.lower() in (*extensions(), *LISTS) else None
