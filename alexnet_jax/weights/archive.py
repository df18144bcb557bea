"""Reads zip archives into memory and enforces their checksums."""

import zipfile
from pathlib import Path

from alexnet_jax.errors import InputError

_MEMBER = b"PK\3\4"  # at the start of the first member
MAX_BYTES = 2**30  # that compressed members may unpack to
_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may claim much memory to unpack


def read_members(path: Path) -> dict[str, bytes]:
    """Returns the content of every member of a zip archive.

    Raises:
      InputError: it is damaged, encrypted, or unpacks to more than MAX_BYTES and its own size.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max(MAX_BYTES, size):
                raise InputError("is refused: it unpacks to more bytes than weights need.")
            if any(member.compress_type not in _COMPRESSION for member in members):
                raise InputError("is refused: a member is neither stored nor deflated.")
            if len({member.filename for member in members}) < len(members):
                raise InputError("is refused: two members have the same name.")
            return {member.filename: archive.read(member) for member in members}
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib raise many types
        raise InputError(f"is a damaged archive ({error!s:.100}).") from error


def member_names(head: bytes, path: Path) -> list[str]:
    """Returns the names of the members, or [] if the file is not a zip archive.

    Args:
      head: the first bytes of the file.
      path: of the file.

    Raises:
      InputError: it starts as an archive but has no list of its members, as where it was cut off.
    """
    if not head.startswith(b"PK"):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception as error:
        if head.startswith(_MEMBER):
            raise InputError(
                f"is damaged: it is a zip archive without its end ({error!s:.100}). Copy or "
                "download it again."
            ) from error
        return []
