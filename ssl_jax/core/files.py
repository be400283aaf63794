"""Files that are complete or absent."""

import os
import shutil
import tempfile
from pathlib import Path

from ssl_jax.core.bucket import BucketPath, to_path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file that is complete whenever it is there: a temporary file, flushed to disk, then renamed.

    In a bucket: an object, which its store shows when the upload has ended. Text is written as UTF-8.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a", b"new")
    ...     sorted(os.listdir(folder))
    ['a']
    """
    path = to_path(path)
    if isinstance(path, BucketPath):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            # Temporary files are private; the result gets what the umask of a new file would give.
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def require_folder(name: str, path: Path) -> None:
    """Refuse a file whose folder does not exist, before hours are spent on what it is to hold.

    Raises:
      FileNotFoundError: names the argument and the file.
    """
    if not isinstance(path, BucketPath) and not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{name}={str(path)!r}: its folder does not exist")


def remove_tree(path: Path) -> None:
    """Remove a folder, or what is below a name in a bucket, if it is there."""
    if isinstance(path, BucketPath):
        path.rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
