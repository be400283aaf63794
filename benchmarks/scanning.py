"""A folder of a million images: seconds and memory until it is open, listed anew and from the kept list.

The files are stand-ins: names of a few images of one pixel (hard links), in 1,000 folders and in one. Each opening is a
process of its own with an empty cache for lists, then another one with what that has left. Memory is the most that the process
held, its imports included. What the kernel remembers of the folders is not taken from it: they have just been made.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks import pairs

GAINS = {
    "open": "a run on a million images begins at once",
    "memory": "large folders of images on a small machine",
}
"""What the user gains, by a part of a row's name."""

LINKS = 30_000
"""Names of one file; file systems allow some 65,000."""


def make_images(root: Path, count: int, folders: int) -> None:
    """Make ``count`` names of images, evenly in so many folders; in the root itself where it is one."""
    stored = ""
    for number in range(count):
        folder = root / f"class{number % folders:05d}" if folders > 1 else root
        if number < folders:
            folder.mkdir(parents=True, exist_ok=True)
        path = os.path.join(folder, f"image_{number:09d}.png")
        if number % LINKS == 0:
            Image.new("RGB", (1, 1), (number % 251, 0, 0)).save(path)
            stored = path
        else:
            os.link(stored, path)


def child(folder: str) -> dict[str, float]:
    """Open a folder in this process."""
    from ssl_jax.data.folder import open_folder

    start, cpu = time.perf_counter(), time.process_time()
    source = open_folder(folder)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "images": len(source),
    }


def measure(folder: Path, cache: Path) -> dict[str, float]:
    """A child's answer."""
    command = [sys.executable, "-m", "benchmarks.scanning", f"--child={folder}"]
    root = Path(__file__).parent.parent
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run(options: argparse.Namespace) -> Sequence[pairs.Measurement]:
    count = 20_000 if options.quick else options.images
    found = []
    for folders, where in ((1000, "1,000 folders"), (1, "one folder")):
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            root = Path(place) / "images"
            make_images(root, count, min(folders, max(count // 10, 1)))
            time.sleep(2.5)  # a folder that has just changed is listed again
            anew, kept = [], []
            for number in range(options.rounds):
                cache = Path(place) / f"cache{number}"
                anew.append(measure(root, cache))
                kept.append(measure(root, cache))
        for what, rounds in (("listed", anew), ("from the kept list", kept)):
            name = f"(l) {count:,} images in {where}, {what}"
            seconds, mib = ([x[key] for x in rounds] for key in ("seconds", "mib"))
            found.append(pairs.valued(f"{name}: open", seconds, unit="s", at_most=60, raw={"rounds": rounds}))
            found.append(
                pairs.valued(f"{name}: memory", mib, unit="MiB", at_most=600, raw={"rounds": rounds})
            )
    return found


if __name__ == "__main__":
    parser = pairs.parser("scanning", __doc__)
    parser.add_argument("--images", type=int, default=1_000_000, help="images in each folder")
    parser.add_argument("--rounds", type=int, default=3, help="openings of each kind")
    parser.add_argument(
        "--folder", default=None, help="where the images are made; default: the temporary folder"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    one = parser.parse_args().child
    if one:
        print(json.dumps(child(one)))
    else:
        pairs.main("scanning", parser, run)
