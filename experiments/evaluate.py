"""What a pretrained encoder is worth: probes on frozen features, beside yardsticks measured by the same code.

    python -m experiments.evaluate --workdir=runs/first
    python -m experiments.evaluate --workdir=runs/first --beside=runs/supervised --measures=all

Prints a table in which the encoder stands beside raw pixels, their principal components, its own random initialisation and
the encoders of other runs (``--beside``), and writes ``evaluation.json`` into the workdir. Measures: knn, linear, ridge,
logistic, few, retrieval (on features), rotation (a proxy without labels), health (rank, spectrum, spread), layers (each
layer and pooling), finetune (1 % and 10 % of the labels). For methods that cluster their training images a second table has
purity, mutual information with the classes and the share of images whose cluster changed in the last refresh.
"""

import json
from pathlib import Path

import jax
import numpy as np
from absl import flags

from ssl_jax.cli import launch, processes
from ssl_jax.cli.measure import YARDSTICKS, Candidate, asked, cluster_rows, evaluate, labelled
from ssl_jax.cli.tables import clusters_table, evaluation, layers_table
from ssl_jax.config import build
from ssl_jax.core.check import choice
from ssl_jax.core.files import write_atomically
from ssl_jax.core.machine import machine
from ssl_jax.methods.method import Method
from ssl_jax.train.checkpoint import RestoredModel
from ssl_jax.train.step import make_init

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint: latest, best (by the online kNN) or a number of steps."
)
_SOURCE = flags.DEFINE_string("source", None, "Labelled images to evaluate on; default: those of the run.")
_TRAIN = flags.DEFINE_string("train_split", None, "Split that fits the probes; default: as the config says.")
_TEST = flags.DEFINE_string("test_split", None, "Split that is reported; default: as the config says.")
_BESIDE = flags.DEFINE_list("beside", [], "Folders of other runs whose encoders are measured too.")
_MEASURES = flags.DEFINE_list("measures", None, "Measures, or all; default: as the config says.")
_YARDSTICKS = flags.DEFINE_list(
    "yardsticks", list(YARDSTICKS), "What to measure beside it, of pixels, pca and random."
)
_CLUSTER = processes.define_flags()


def main() -> None:
    """Evaluate the run in ``--workdir``."""
    workdir = Path(launch.require_flag("workdir", _WORKDIR.value, "DIR"))
    with processes.distributed(_CLUSTER()):
        run(workdir)


def run(workdir: Path) -> None:
    """Measure, and let the first process write and print what was found."""
    config, method, model = build.restore(workdir, _STEP.value)
    spec = _SOURCE.value or config["data"]["source"]
    splits = (
        _TRAIN.value or config["watch"]["evaluate"]["train_split"],
        _TEST.value or config["watch"]["evaluate"]["test_split"],
    )
    sources = [labelled(config, spec, split) for split in splits]
    measures = asked(_MEASURES.value or config["watch"]["evaluate"]["measures"])
    yardsticks = [choice("yardsticks", name, YARDSTICKS) for name in _YARDSTICKS.value]
    candidates = [candidate(*build.restore(Path(folder), "latest")) for folder in _BESIDE.value]
    if "random" in yardsticks:
        init = jax.jit(make_init(method, build.optimizer(config), build.sample(config)))
        # On the host, as the restored ones: the devices of several processes can take them from there.
        start = jax.tree.map(np.asarray, init(config["seed"])._replace(key=None))
        candidates.insert(0, Candidate("random encoder", "yardstick", method, start.params, start.state))
    candidates.append(candidate(config, method, model))
    result = {
        "workdir": str(workdir),
        "step": model.step,
        "source": spec,
        "splits": splits,
        "machine": machine(),
        **evaluate(config, candidates, sources, measures=measures, yardsticks=yardsticks),
        "clusters": cluster_rows(config, candidates[-1]),
    }
    if jax.process_index() != 0:
        return
    write_atomically(workdir / "evaluation.json", json.dumps(result, indent=2) + "\n")
    print(f"\n{evaluation(result)}")
    if result["layers"]:
        print(f"\n{layers_table(result)}")
    if result["clusters"]:
        print(f"\n{clusters_table(result)}")
    print(f"\nwritten to {workdir / 'evaluation.json'}")


def candidate(config: build.Config, method: Method, model: RestoredModel) -> Candidate:
    """The encoder of a run."""
    name = config["method"]["name"]
    role = "supervised" if method.classify is not None else "encoder"
    return Candidate(f"{name}, {model.step} steps", role, method, model.params, model.state)


if __name__ == "__main__":
    launch.run(main)
