"""Files that are complete or absent."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file that is complete whenever it is there: a temporary file, flushed to disk, then renamed.

    Text is written as UTF-8.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a", b"new")
    ...     sorted(os.listdir(folder))
    ['a']
    """
    path = Path(path)
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
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{name}={str(path)!r}: its folder does not exist")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
