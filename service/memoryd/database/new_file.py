"""A file that appears under its name only when it is complete, and never replaces another."""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from tempfile import _TemporaryFileWrapper


@contextmanager
def new_file(file: Path) -> Iterator[_TemporaryFileWrapper[str]]:
    """Give a file to be written; at the end of the block it is on the disk and has its name.

    Only its owner may read it. Until then it is `NAME.….part` in the same folder, under a name that
    cannot be guessed, and opened in a way that follows no link. Where the block raises, or the
    file cannot be made, nothing is left.

    Raises FileExistsError where there is something of that name, a link to nothing included, and
    OSError where the file cannot be made. The text of both names the file.
    """
    if os.path.lexists(file):  # before the work; the link below decides
        raise _is_there(file)
    try:
        with NamedTemporaryFile(
            "w",
            encoding="utf-8",
            newline="\n",
            dir=file.parent,
            prefix=f"{file.name}.",
            suffix=".part",
        ) as unfinished:
            yield unfinished
            unfinished.flush()
            os.fsync(unfinished.fileno())
            # Unlike a renaming, it never replaces.
            os.link(unfinished.name, file, follow_symlinks=False)
            _sync(file.parent)
    except FileExistsError:
        raise _is_there(file) from None
    except OSError as error:
        if error.errno is None:  # one of ours, with a text of its own
            raise
        raise OSError(f"cannot write {file.absolute()}: {error.strerror}") from error


def _is_there(file: Path) -> FileExistsError:
    return FileExistsError(f"{file} exists; name another file, or remove it")


def _sync(folder: Path) -> None:
    """Have a new name in a folder outlive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
