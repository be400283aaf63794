"""CIFAR-10 in minutes: SimCLR ResNet-18 with all images on the device, kNN against time.

The images are decoded once; an epoch is one program, a scan over the rows of a random order, with crops and colours made on the
device. After two epochs that are timed and thrown away, as many are planned as fit into the time, on a cosine; the rates come
in as an argument, so nothing is compiled again. Should they take longer than planned, the run stops in time all the same.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import pairs
from benchmarks.steps_gpu import Sizes
from ssl_jax import models, optim
from ssl_jax.augment import color, presets
from ssl_jax.data.open import open_source
from ssl_jax.evaluate.knn import knn_sweep
from ssl_jax.methods.contrastive import simclr
from ssl_jax.methods.method import Method
from ssl_jax.train.state import TrainState
from ssl_jax.train.step import make_init, make_train_step

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NEIGHBORS, TEMPERATURE = (20, 200), 0.1
"""lightly's benchmark takes 200 neighbours and weights exp(cos / 0.1)."""
PEAK, WARMUP = 1.0, 10
"""Learning rate for 256 images, and epochs until it is reached (fewer in short runs): the recipe of ``configs/simclr.py``."""
MOST_EPOCHS, EVALUATIONS = 800, 5


class Images(NamedTuple):
    """Decoded images ``[n, s, s, 3]``, 8-bit, and labels ``[n]``."""

    images: np.ndarray
    labels: np.ndarray


def decode(spec: str, split: str, count: int | None = None) -> Images:
    """Decode a source's images once, into memory.

    Raises:
      ValueError: images of several sizes, or without labels.
    """
    source = open_source(spec, split)
    examples = [source[i] for i in range(len(source) if count is None else min(count, len(source)))]
    shapes = {example["image"].shape for example in examples}
    if len(shapes) != 1:
        raise ValueError(f"source={spec!r}: images of {len(shapes)} shapes; allowed is one")
    labels = np.array([example.get("label", -1) for example in examples], np.int32)
    if labels.min() < 0:
        raise ValueError(f"source={spec!r}: images without labels, which kNN needs")
    images = np.stack([example["image"] for example in examples])
    return Images(np.broadcast_to(images, (*images.shape[:3], 3)), labels)


def rates(epochs: int, steps: int, batch: int) -> np.ndarray:
    """Learning rates ``[epochs, steps]``: a line up, then half a cosine down.

    >>> np.round(rates(4, 1, 256)[:, 0], 2).tolist()
    [0.0, 1.0, 0.75, 0.25]
    """
    total, warm = epochs * steps, min(WARMUP, max(epochs // 4, 1)) * steps
    at = np.arange(total)
    down = 0.5 * (1 + np.cos(math.pi * (at - warm) / max(total - warm, 1)))
    factor = np.where(at < warm, at / warm, down)
    return (PEAK * batch / 256 * factor).reshape(epochs, steps).astype(np.float32)


def make_epoch(method: Method) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Make the program of an epoch: ``(state, images, rows [steps, b], rates [steps]) -> (state, finite)``."""

    def epoch(
        state: TrainState, images: jax.Array, rows: jax.Array, rates: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        def body(state: TrainState, inputs: tuple[jax.Array, jax.Array]) -> tuple[TrainState, None]:
            at, rate = inputs
            state, _ = make_train_step(method, lars(rate))(state, {"image": images[at]})
            return state, None

        state, _ = jax.lax.scan(body, state, (rows, rates))
        return state, state.finite

    return jax.jit(epoch, donate_argnums=0)


def lars(rate: float | jax.Array) -> Any:
    return optim.from_options(
        "lars",
        steps=1,
        learning_rate=rate,
        batch_size=256,
        scaling="none",
        schedule="constant",
        weight_decay=1e-4,
        learning_rate_in_buffer=True,
    )


def make_encode(method: Method) -> Callable[[TrainState, np.ndarray], np.ndarray]:
    """Make the function that encodes 8-bit images in parts of 1,000."""

    @jax.jit
    def some(params: Any, state: Any, images: jax.Array) -> jax.Array:
        floats = color.normalize(images.astype(jnp.float32) / 255, mean=MEAN, std=STD)
        return method.encode(params, state, floats)

    def encode(state: TrainState, images: np.ndarray) -> np.ndarray:
        size = min(1000, len(images))
        starts = range(0, len(images), size)
        parts = [images[i : i + size] for i in starts]
        padded = [np.pad(p, [(0, size - len(p)), (0, 0), (0, 0), (0, 0)]) for p in parts]
        found = [np.asarray(some(state.params, state.state, part)) for part in padded]
        return np.concatenate(found)[: len(images)]

    return encode


def train(
    sizes: Sizes,
    train_images: Images,
    test_images: Images,
    *,
    batch: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[pairs.Measurement]:
    """Train as long as the time allows and measure kNN on the way.

    Args:
      sizes: of the run.
      train_images: what is trained on, and the bank of kNN.
      test_images: what kNN is measured on.
      batch: images a step.
      seconds: for everything here.
      say: told the numbers as they come.

    Returns:
      kNN with both numbers of neighbours at the end, images a second and minutes of training.

    Raises:
      FloatingPointError: the loss is not finite.
    """
    begin = time.perf_counter()
    side = train_images.images.shape[1]
    encoder = models.build("resnet18", stem="small", dtype="bfloat16", **sizes.models.get("resnet18", {}))
    views = presets.simclr(side, strength=0.5, blur_prob=0.0, mean=MEAN, std=STD)
    method = simclr.build(encoder, views=views, temperature=0.5)
    batch = min(batch, len(train_images.images))
    steps = len(train_images.images) // batch
    rng = np.random.default_rng(0)
    epoch, encode = make_epoch(method), make_encode(method)
    sample = {"image": train_images.images[:batch]}
    init = jax.jit(make_init(method, lars(PEAK), sample))
    images = jax.device_put(train_images.images)

    def order() -> np.ndarray:
        return rng.permutation(len(train_images.images))[: steps * batch].reshape(steps, batch)

    def knn(state: TrainState) -> dict[int, float]:
        bank, query = encode(state, train_images.images), encode(state, test_images.images)
        return knn_sweep(
            bank,
            train_images.labels,
            query,
            test_images.labels,
            classes=int(train_images.labels.max()) + 1,
            k=tuple(min(k, len(bank)) for k in NEIGHBORS),
            temperature=TEMPERATURE,
        )

    compiling = time.perf_counter()
    state = init(0)
    state, _ = epoch(state, images, order(), rates(2, steps, batch)[0])
    jax.block_until_ready(state)
    compiled = time.perf_counter()
    state, _ = epoch(state, images, order(), rates(2, steps, batch)[1])
    jax.block_until_ready(state)
    one_epoch = time.perf_counter() - compiled
    knn(state)  # compiles
    evaluating = time.perf_counter()
    knn(state)
    one_knn = time.perf_counter() - evaluating
    left = seconds - (time.perf_counter() - begin) - (EVALUATIONS + 1) * one_knn
    epochs = int(min(max(0.95 * left / one_epoch, 1), MOST_EPOCHS))
    say(f"CIFAR: {one_epoch:.2f} s an epoch, {one_knn:.2f} s a kNN, {epochs} epochs planned")

    state, planned = init(0), rates(epochs, steps, batch)
    measure_at = {round(epochs * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)} | {epochs}
    spent, curve = 0.0, []
    for number in range(epochs):
        start = time.perf_counter()
        state, finite = epoch(state, images, order(), planned[number])
        jax.block_until_ready(state)
        spent += time.perf_counter() - start
        late = time.perf_counter() - begin > seconds - one_knn
        if late or number + 1 in measure_at:
            if not bool(finite):
                raise FloatingPointError(f"the loss is not finite in epoch {number + 1}")
            found = knn(state)
            curve.append({"epoch": number + 1, "seconds": spent, **{f"knn{k}": v for k, v in found.items()}})
            say(f"CIFAR: epoch {number + 1}, {spent:.1f} s, kNN {found}")
        if late:
            break
    compile_seconds = compiled - compiling - one_epoch
    return measured(
        curve, found, one_epoch, spent + compile_seconds, (steps * batch, batch, number + 1), compile_seconds
    )


def measured(
    curve: Sequence[dict[str, float]],
    accuracy: dict[int, float],
    one_epoch: float,
    spent: float,
    counts: tuple[int, int, int],
    compile_seconds: float,
) -> list[pairs.Measurement]:
    """Make the measurements of a run."""
    images, batch, epochs = counts
    name = f"SimCLR ResNet-18 on CIFAR-10, batch {batch}, {epochs} epochs"
    raw = {"curve": list(curve)}
    made = [
        pairs.valued(f"{name}: kNN, {k} neighbours", [value], unit="share", raw=raw)
        for k, value in accuracy.items()
    ]
    facts = {"compile_seconds": compile_seconds, "kNN": "not in the time"}
    made.append(pairs.valued(f"{name}: training with compilation", [spent / 60], unit="min", **facts))
    made.append(pairs.valued(f"{name}: speed", [images / one_epoch], unit="images/s"))
    return made
