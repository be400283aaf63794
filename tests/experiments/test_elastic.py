"""A run that loses a process goes on with fewer, as one process would have. 100 CPU seconds."""

import signal

import pytest

from ssl_jax.train.checkpoint import steps
from tests.experiments.processes import WORKER, free_port, start, train
from tests.experiments.test_processes import assert_same_run

FATAL = """
import os, signal, time
from ssl_jax.train import session
from ssl_jax.train.checkpoint import steps
advance = session.Session.advance
def fatal(self, step, *arguments):
    if rank == "3" and step == 4:
        while steps(self._watch.checkpoints.directory) != [2]:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(self, step, *arguments)
session.Session.advance = fatal
"""
"""The last of four processes is killed in the fourth step, when the checkpoint of the second is whole."""


@pytest.mark.long
def test_four_processes_of_which_one_is_killed_go_on_as_two_as_one_process_would_have(tmp_path):
    (tmp_path / "alone").mkdir()
    broken, alone = tmp_path / "simclr", tmp_path / "alone" / "simclr"
    train([alone], processes=1, devices=1)
    loop = "for folder in map"
    assert WORKER.count(loop) == 1
    command, port = ["-c", WORKER.replace(loop, FATAL + loop)], free_port()
    running = [start([*command, *map(str, (rank, 4, port, broken))], 1) for rank in range(4)]
    try:
        for process in running[::-1]:
            process.communicate(timeout=300)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert running[3].returncode == -signal.SIGKILL
    assert all(process.returncode != 0 for process in running)
    assert steps(broken / "checkpoints") == [2]
    train([broken], processes=2, devices=1)
    assert_same_run(broken, alone)
