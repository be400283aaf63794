"""Many short lives of one run, each ended by kill -9 at a moment of its own.

    python -m tests.experiments.kill_resume_worker FOLDER DEATHS SEED

One process that has imported everything but started no backend forks a child for each life, so that a life costs the reading of
compiled programs from a cache instead of minutes of imports and compilation.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import jax

from configs import deepcluster
from ssl_jax.cli import pretrain
from ssl_jax.config import build
from ssl_jax.data import batches
from ssl_jax.evaluate import online as hooks
from ssl_jax.train import refresh, session, storage, writers
from ssl_jax.train.workdir import Workdir

STEPS = 60
MOMENTS = {
    "step": (session.Session, "advance"),
    "save": (storage.Manifest, "_write"),
    "commit": (os, "rename"),
    "evaluation": (hooks.OnlineEvaluation, "__call__"),
    "health": (hooks.Health, "__call__"),
    "refresh": (refresh.Refresher, "_gather_features"),
    "prefetch": (batches.TrainingBatches, "__call__"),
    "record": (writers.JsonlWriter, "write"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, count: int, delay: float) -> None:
    """Kill this process ``delay`` seconds after something was begun for the ``count``-th time."""
    owner, name = MOMENTS[moment]
    original, left = getattr(owner, name), [count]

    def fatal(self, *arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            if moment == "record":  # in the middle of a line
                self._file.write('{"step": 1, "lo')
                self._file.flush()
            if delay:
                threading.Timer(delay, die).start()
            else:
                die()
        return original(self, *arguments, **options)

    setattr(owner, name, fatal)


def train(workdir: Path) -> None:
    config = build.to_dict(deepcluster.get_config("smoke"))
    config |= {"steps": STEPS, "refresh_every": 8}
    config["watch"]["checkpoint"]["every"], config["watch"]["online"]["every"] = 3, 7
    # Enough images that a moment in the middle of reading them all is one.
    config["data"]["split"] = "train[:600]"
    with Workdir(workdir) as held:
        pretrain.train(config, build.run_objects(config), held)


def live(workdir: Path, fate: tuple[str, int, float] | None) -> int:
    """Fork a life; returns how it ended, as ``os.waitpid`` gives it."""
    child = os.fork()
    if child == 0:
        try:
            if fate is not None:
                arm(*fate)
            train(workdir)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{fate}: {type(error).__name__}: {error}\n")
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main(folder: Path, deaths: int, seed: int) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    draw = random.Random(seed)
    assert live(folder / "whole", None) == 0
    order = [
        name for _ in range(-(-deaths // len(MOMENTS))) for name in draw.sample(sorted(MOMENTS), len(MOMENTS))
    ]
    told = []
    for moment in order[:deaths]:
        # Rare events come once or twice in the few steps that a life may last, or not at all.
        count = draw.randint(1, 1 if moment in ("refresh", "evaluation", "save") else 6)
        fate = (moment, count, draw.choice([0.0, draw.uniform(0.0, 0.03)]))
        begin = time.monotonic()
        end = live(folder / "broken", fate)
        told.append({"fate": fate, "killed": os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGKILL})
        told[-1]["seconds"] = round(time.monotonic() - begin, 1)
        if not told[-1]["killed"]:
            break
    last = live(folder / "broken", None)
    (folder / "told.json").write_text(json.dumps({"lives": told, "last": last}))


if __name__ == "__main__":
    # The backend is started in the children only.
    warnings.filterwarnings("ignore", message=".*fork.*")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
