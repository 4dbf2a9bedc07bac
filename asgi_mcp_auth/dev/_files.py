"""Replacement of a file that another process reads or that must survive a crash."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ("replace_file",)


def replace_file(path: Path, data: bytes, *, like: os.stat_result | None = None) -> None:
    """Replace the content of a file at once and durably: a reader sees the old content or the new one.

    Args:
        path: The file; it need not exist.
        data: The new content.
        like: The status of a file whose mode and owner the new file gets. Default: None, for the mode 0600 and the
            user that runs this process.

    Raises:
        OSError: The file cannot be written, or its owner cannot be kept. The old file is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            _own(temporary, like)
            Path(temporary).chmod(like.st_mode & 0o777)
        Path(temporary).replace(path)
    except BaseException:  # also for Ctrl-C: no temporary file with secrets remains
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _own(temporary: str, like: os.stat_result) -> None:
    """Give the file to the owner of another one: a server that runs as that user must still be able to read it."""
    status = Path(temporary).stat()
    if hasattr(os, "chown") and (status.st_uid, status.st_gid) != (like.st_uid, like.st_gid):
        os.chown(temporary, like.st_uid, like.st_gid)
