"""Several processes on the devices of this machine: what the tests start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

WORKER = """
import sys
import jax
rank, count, port, *runs = sys.argv[1:]
if int(count) > 1:
    jax.distributed.initialize("127.0.0.1:" + port, int(count), int(rank), initialization_timeout=300)
from pathlib import Path
from ssl_jax.cli import pretrain
from ssl_jax.config import build
from ssl_jax.train.workdir import Workdir
from tests.methods.case import config_of
for folder in map(Path, runs):
    config = config_of(folder.name)
    # Adam makes steps of full size from the rounding noise of gradients that are 0 in theory; with large steps a ReLU near its
    # kink takes the other side and turns rounding into another run, on 8 devices of one process as well.
    sgd = {"name": "sgd", "learning_rate": 0.01, "scaling": "none"}
    config["optimizer"] = {**sgd, "steps": config["steps"], "batch_size": config["batch_size"]}
    with Workdir(folder, primary=jax.process_index() == 0) as workdir:
        pretrain.train(config, build.run_objects(config), workdir)
"""
"""Trains the smoke configs that the folders are named after, one after the other."""


def environment(devices):
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, devices):
    """A process of this repository, with so many devices."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment(devices), **pipes)


def launch(verb, *arguments, processes=2, devices=2):
    """``python -m experiments.<verb>`` as so many processes that are told of each other."""
    flags = [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={processes}"]
    command = ["-m", f"experiments.{verb}", *arguments, *flags]
    return [start([*command, f"--process={rank}"], devices) for rank in range(processes)]


def train(folders, *, processes, devices):
    """Train in the folders, named after methods, with so many processes of so many devices each."""
    port = free_port()
    command = ["-c", WORKER]
    running = [
        start([*command, *map(str, (rank, processes, port, *folders))], devices) for rank in range(processes)
    ]
    finished(running)


def finished(running, *, seconds=1500):
    """What processes printed, after they ended well."""
    outputs = [process.communicate(timeout=seconds) for process in running]
    for process, (_, err) in zip(running, outputs, strict=True):
        assert process.returncode == 0, err
    return outputs
