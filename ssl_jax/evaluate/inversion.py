"""What features keep of an image and what they leave free: decoders from frozen features back to pixels."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssl_jax import optim
from ssl_jax.augment.color import unnormalize
from ssl_jax.augment.crop import RandomResizedCrop
from ssl_jax.augment.host import prepare_for_evaluation
from ssl_jax.augment.views import View, normalize_for_evaluation
from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.rows import Row
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.data.batches import MAX_CORRUPT_FRACTION
from ssl_jax.data.loader import epoch
from ssl_jax.data.sources import Mapped, Source, take_evenly
from ssl_jax.evaluate.dense.features import patch_features
from ssl_jax.evaluate.measure import Candidate
from ssl_jax.losses.flow_matching import flow_matching, interpolate
from ssl_jax.methods.method import Limits, Method
from ssl_jax.models.inversion import feature_decoder, velocity_net
from ssl_jax.ops.ode import SOLVERS, integrate
from ssl_jax.train.checkpoint import Checkpoints
from ssl_jax.train.features import extract_source
from ssl_jax.train.loop import HERE, fit
from ssl_jax.train.run import Fitted, Host, Run, Watch
from ssl_jax.train.state import TrainState
from ssl_jax.train.writers import Writer

Read = Callable[[Params, State, Array], Array]
"""``(params, state, images) -> [b, d] or [b, rows, columns, d]``: what is read of a method's networks, deterministic."""

KINDS = ("deterministic", "flow")
READINGS = ("backbone", "projector", "patches")
STATISTICS_IMAGES = 2048
"""Training images at most that give mean and deviation of features, and the mean image."""


class Training(NamedTuple):
    """How a decoder is trained: AdamW, the learning rate on a cosine to 0.

    Attributes:
      steps: updates.
      batch_size: images a step; a multiple of the number of devices.
      learning_rate: at its highest, after a twentieth of the steps.
      width: channels at the side of the images, of the decoder or the velocity network.
      seed: of weights, order of the images, noise.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    width: int = 32
    seed: int = 0


DEFAULT = Training()


class Statistics(NamedTuple):
    """What training images say about features and pixels.

    Attributes:
      mean: ``[d]`` mean of the features, over images and patches.
      std: ``[d]`` their standard deviation; 1 where it is 0.
      image: ``[s, s, c]`` mean image in [0, 1].
    """

    mean: np.ndarray
    std: np.ndarray
    image: np.ndarray


class Inverter(NamedTuple):
    """What trains a decoder, and what a trained one does.

    Attributes:
      kind: one of :data:`KINDS`.
      method: method whose params are the decoder's and whose state holds the frozen networks and the :class:`Statistics`.
      condition: ``(state, images) -> h``: standardised features of normalised images, without gradient.
      reconstruct: ``(params, state, images) -> [b, s, s, c]`` in [0, 1], of the deterministic kind.
      sample: ``(params, state, h, key, steps=, solver=) -> [b, s, s, c]`` in [0, 1], one image for each h, of the flow.
    """

    kind: str
    method: Method
    condition: Callable[[State, Array], Array]
    reconstruct: Callable[[Params, State, Array], Array]
    sample: Callable[..., Array]


def readings(method: Method, image: jax.ShapeDtypeStruct, params: Params, state: State) -> dict[str, Read]:
    """List what can be read of a method by name: the ``backbone``, behind the ``projector``, the ``patches``.

    Args:
      method: method of the encoder.
      image: shape of a batch of images.
      params: params of the method; their shapes count.
      state: state of the method, likewise.

    Returns:
      Those of :data:`READINGS` that it has.
    """

    def patches(params: Params, state: State, images: Array) -> Array:
        return patch_features(method.encoder, *method.encoder_variables(params, state), images)

    found: dict[str, Read] = {"backbone": method.encode}
    if method.project is not None:
        found["projector"] = method.project
    try:
        jax.eval_shape(patches, params, state, image)
    except ValueError:
        return found
    return {**found, "patches": patches}


def build_inverter(
    candidate: Candidate, read: Read, *, channels: int, kind: str = "deterministic", width: int = 32
) -> Inverter:
    """Build a decoder from what is read of a frozen encoder to its images, x in [−1, 1] and h standardised.

    * ``"deterministic"``: ``L = mean (d(h) − x)²``, whose best answer is the mean of all images with these features;
    * ``"flow"``: ``L = mean (v((1 − t) ε + t x, t | h) − (x − ε))²`` with ε ~ N(0, I) and t ~ U(0, 1)
      (:mod:`ssl_jax.losses.flow_matching`), whose flow draws from all images with these features: what varies between samples
      is what h does not say.

    Args:
      candidate: encoder; its networks are read, never trained.
      read: what is read of it, from :func:`readings`.
      channels: channels of the images.
      kind: one of :data:`KINDS`.
      width: channels at the side of the images.

    Returns:
      The inverter. Its method's ``init`` makes zeros in the place of the frozen networks and the statistics:
      :func:`train_decoder` puts them there.

    Raises:
      ValueError: an unknown kind, or a width below 1.

    Reference: Bordes et al., High Fidelity Visualization of What Your Self-Supervised Representation Knows About (TMLR 2022),
    with diffusion in the place of flow matching; Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting
    Them (2015), and Dosovitskiy & Brox, Inverting Visual Representations with Convolutional Networks (2016), for the decoder.
    """
    check.choice("kind", kind, KINDS)
    own = candidate.method
    given = own.views[0]
    view = View(given.size, RandomResizedCrop(area=(1.0, 1.0)), mean=given.mean, std=given.std)
    side = given.size
    network = (
        velocity_net(channels=channels, width=width)
        if kind == "flow"
        else feature_decoder(size=side, channels=channels, width=width)
    )
    frozen = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), (candidate.params, candidate.state)
    )

    def condition(state: State, images: Array) -> Array:
        frozen_params, frozen_state = state["frozen"]
        features = at_least_float32(read(frozen_params, frozen_state, images))
        return jax.lax.stop_gradient((features - state["mean"]) / state["std"])

    def pixels(images: Array) -> Array:
        return 2.0 * unnormalize(images, mean=view.mean, std=view.std) - 1.0

    def init(key: Key, batch: Batch) -> tuple[Params, State]:
        images = batch["views"][0][:, 0]
        features = jax.eval_shape(read, *frozen, jax.ShapeDtypeStruct(images.shape, jnp.float32))
        state: State = {
            "frozen": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), frozen),
            "mean": jnp.zeros(features.shape[-1:]),
            "std": jnp.ones(features.shape[-1:]),
            "image": jnp.zeros((side, side, channels)),
        }
        h = jnp.zeros(features.shape)
        inputs, options = (h, {}) if kind == "deterministic" else (images, flow_inputs(images, h))
        params, state["decoder"] = network.init(key, inputs, **options)
        return {"decoder": params}, state

    def flow_inputs(images: Array, h: Array) -> dict[str, Array]:
        return {"time": jnp.zeros(images.shape[0]), "condition": h}

    def loss(
        params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        del step
        images = batch["views"][0][:, 0]
        x, h = pixels(images), condition(state, images)
        if kind == "deterministic":
            decoded, decoder = network.apply(params["decoder"], state["decoder"], h, train=True)
            return jnp.mean((decoded - x) ** 2), ({**state, "decoder": decoder}, {})
        noise_key, time_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, x.shape, x.dtype)
        time = jax.random.uniform(time_key, x.shape[:1], x.dtype)
        point = interpolate(noise, x, time)
        velocity, _ = network.apply(params["decoder"], state["decoder"], point, time=time, condition=h)
        return flow_matching(velocity, noise, x), (state, {})

    def reconstruct(params: Params, state: State, images: Array) -> Array:
        decoded, _ = network.apply(params["decoder"], state["decoder"], condition(state, images))
        return jnp.clip((decoded + 1.0) / 2.0, 0.0, 1.0)

    def sample(
        params: Params, state: State, h: Array, key: Key, *, steps: int = 25, solver: str = "heun"
    ) -> Array:
        def velocity(x: Array, time: Array) -> Array:
            times = jnp.broadcast_to(time, x.shape[:1])
            return network.apply(params["decoder"], state["decoder"], x, time=times, condition=h)[0]

        noise = jax.random.normal(key, (h.shape[0], side, side, channels), jnp.float32)
        x = integrate(velocity, noise, steps=steps, solver=solver)
        return jnp.clip((x + 1.0) / 2.0, 0.0, 1.0)

    def encoder_variables(params: Params, state: State) -> tuple[Params, State]:
        del params
        return own.encoder_variables(*state["frozen"])

    method = Method((view,), init, loss, own.encoder, encoder_variables, limits=Limits(least_batch=2))
    return Inverter(kind, method, condition, reconstruct, sample)


def images_as_seen(candidate: Candidate, source: Source, crop_ratio: float) -> Source:
    """Return the images as the encoder's evaluation sees them, before mean and deviation: what a decoder is to give back."""
    size = candidate.method.views[0].size
    own = functools.partial(prepare_for_evaluation, size=size, ratio=crop_ratio)
    return Mapped(source, candidate.preprocess or own, size)


def feature_statistics(
    candidate: Candidate,
    read: Read,
    images: Source,
    *,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
    limit: int = STATISTICS_IMAGES,
) -> Statistics:
    """Compute mean and deviation of each feature, and the mean image, in batches; memory does not grow with the images.

    Args:
      candidate: encoder.
      read: what is read of it.
      images: training images, of the size that the encoder sees.
      max_corrupt_fraction: see :func:`ssl_jax.data.loader.epoch`.
      limit: images at most, at even distances.
    """
    view = candidate.method.views[0]

    @jax.jit
    def sums(params: Params, state: State, raw: Array, mask: Array) -> tuple[Array, Array, Array, Array]:
        normalized = normalize_for_evaluation(raw, view)
        features = at_least_float32(read(params, state, normalized))
        features = features.reshape(len(features), -1, features.shape[-1])
        weight = mask[:, None, None].astype(features.dtype)
        image = unnormalize(normalized, mean=view.mean, std=view.std) * weight[..., None]
        return (
            jnp.sum(features * weight, axis=(0, 1)),
            jnp.sum(features**2 * weight, axis=(0, 1)),
            jnp.sum(image, axis=0),
            jnp.sum(mask) * features.shape[1],
        )

    totals: list[Any] = [0.0] * 4
    count = 0
    part = take_evenly(images, limit)
    with epoch(part, batch_size=64, size=view.size, max_corrupt_fraction=max_corrupt_fraction) as batches:
        for batch in batches:
            found = sums(candidate.params, candidate.state, batch["image"], batch["mask"])
            totals = [
                total + np.asarray(value, np.float64) for total, value in zip(totals, found, strict=True)
            ]
            count += int(batch["mask"].sum())
    if not count:
        raise ValueError(f"{images.name}: none of the {len(images)} images can be read")
    mean = totals[0] / totals[3]
    variance = np.maximum(totals[1] / totals[3] - mean**2, 0.0)
    # A spread within rounding of the mean is noise.
    constant = variance <= 1e-10 * mean**2 + 1e-20
    std = np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
    return Statistics(mean.astype(np.float32), std.astype(np.float32), (totals[2] / count).astype(np.float32))


def train_decoder(
    inverter: Inverter,
    candidate: Candidate,
    statistics: Statistics | Callable[[], Statistics],
    images: Source,
    *,
    training: Training = DEFAULT,
    checkpoints: Checkpoints | None = None,
    writer: Callable[[int], Writer] | None = None,
    host: Host = HERE,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Fitted:
    """Train a decoder, from the last checkpoint where there is one.

    Args:
      inverter: from :func:`build_inverter`.
      candidate: encoder that it was built for.
      statistics: of :func:`feature_statistics`, or a function that computes them, called where training begins.
      images: training images, from :func:`images_as_seen`.
      training: how.
      checkpoints: saves and restores; ``None``: nothing is kept.
      writer: see :class:`ssl_jax.train.run.Watch`.
      host: where it happens; all devices where it does not say.
      max_corrupt_fraction: share of unreadable images above which it ends.

    Returns:
      How it ended; the same bits whether it was interrupted or not.

    Raises:
      ValueError: an option out of its range.
    """
    steps = training.steps
    for name in ("steps", "batch_size", "width"):
        value = getattr(training, name)
        check.require(value >= 1, name, value, "an integer of 1 or more")
    check.positive("learning_rate", training.learning_rate)
    optimizer = optim.from_options(
        "adamw",
        steps=steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        scaling="none",
        warmup_steps=steps // 20,
        weight_decay=0.0,
    )

    def put_frozen(fresh: TrainState) -> TrainState:
        found = statistics() if callable(statistics) else statistics
        # Copies: the step donates its state.
        frozen = jax.tree.map(jnp.array, (candidate.params, candidate.state))
        known = {name: jnp.array(value) for name, value in found._asdict().items()}
        return fresh._replace(state={**fresh.state, "frozen": frozen, **known})

    run = Run(
        inverter.method,
        optimizer,
        images,
        steps,
        training.batch_size,
        seed=training.seed,
        max_corrupt_fraction=max_corrupt_fraction,
        init_state=put_frozen,
    )
    log_every = max(1, min(50, steps // 20))
    return fit(run, host, Watch(writer=writer, checkpoints=checkpoints, log_every=log_every))


def reconstruction_error(
    inverter: Inverter,
    state: TrainState,
    images: Source,
    *,
    max_corrupt_fraction: float = MAX_CORRUPT_FRACTION,
) -> Row:
    """Measure how much of the pixels of other images a deterministic decoder gives back.

    Args:
      inverter: of the kind ``"deterministic"``.
      state: after training.
      images: test images, from :func:`images_as_seen`.
      max_corrupt_fraction: share of unreadable images above which it ends.

    Returns:
      ``mse``: mean squared error of pixels in [0, 1]. ``psnr``: ``−10 log₁₀ mse``, in dB. ``explained``: ``1 − mse / mse of the
      mean training image``: 0 where the features determine nothing, 1 where the image comes back; below 0 of a decoder
      that is worse than the mean.
    """
    check.choice("kind", inverter.kind, KINDS[:1])
    view = inverter.method.views[0]

    def errors(params: Params, held: State, normalized: Array) -> Array:
        x = unnormalize(normalized, mean=view.mean, std=view.std)
        decoded = inverter.reconstruct(params, held, normalized)
        both = jnp.stack([(decoded - x) ** 2, (held["image"] - x) ** 2], axis=1)
        return jnp.mean(both, axis=(2, 3, 4))

    found = extract_source(
        errors,
        images,
        view=view,
        variables=(state.params, state.state),
        max_corrupt_fraction=max_corrupt_fraction,
    ).features
    mse, of_mean = np.float64(found).mean(axis=0)
    return {
        "mse": float(mse),
        "psnr": float(-10 * np.log10(max(mse, 1e-20))),
        "explained": float(1 - mse / of_mean) if of_mean > 0 else float("nan"),
    }


class Samples(NamedTuple):
    """Images that share the features of given ones.

    Attributes:
      images: ``[n, k, s, s, c]`` float32 in [0, 1].
      row: ``free``: variance of the pixels between samples of one image, over that of images around the mean image; 0 where the
        features determine everything, near 1 where nothing. ``sample_mse``: mean squared error of samples to their image.
        ``reciprocal_rank``: mean of 1/r, the image whose features a sample was given being the r-th nearest to the sample's own
        features among the n; 1 where samples have the features they were drawn for. ``chance_rank``: its value by chance.
    """

    images: np.ndarray
    row: Row


def draw_samples(
    inverter: Inverter,
    state: TrainState,
    images: Float[np.ndarray | Array, "n s s c"],
    *,
    samples: int = 4,
    steps: int = 25,
    solver: str = "heun",
    seed: int = 0,
) -> Samples:
    """Draw images that share the features of given ones, and measure what varies between them.

    Args:
      inverter: of the kind ``"flow"``.
      state: after training.
      images: raw images in [0, 1], as the encoder sees them; a few, as all are drawn at once.
      samples: k, images to draw for each, 2 or more.
      steps: steps of the solver.
      solver: one of :data:`ssl_jax.ops.ode.SOLVERS`.
      seed: of the noise.

    Raises:
      ValueError: an option out of its range.
    """
    check.choice("kind", inverter.kind, KINDS[1:])
    check.choice("solver", solver, SOLVERS)
    check.require(samples >= 2, "samples", samples, "an integer of 2 or more")
    check.require(steps >= 1, "solver_steps", steps, "an integer of 1 or more")
    view, held = inverter.method.views[0], state.state
    raw = jnp.asarray(images)

    @jax.jit
    def condition(held: State, raw: Array) -> Array:
        return inverter.condition(held, normalize_for_evaluation(raw, view))

    @jax.jit
    def draw(params: Params, held: State, h: Array, key: Key) -> Array:
        return inverter.sample(params, held, h, key, steps=steps, solver=solver)

    h = condition(held, raw)
    keys = jax.random.split(jax.random.key(seed), samples)
    drawn = [draw(state.params, held, h, key) for key in keys]
    features = np.stack([np.asarray(condition(held, each)) for each in drawn], axis=1)
    made = np.stack([np.asarray(each) for each in drawn], axis=1)
    original = np.asarray(raw, np.float32)
    of_mean = float(np.mean((original - np.asarray(held["image"])) ** 2))
    return Samples(
        made,
        {
            "free": float(np.mean(made.var(axis=1, ddof=1))) / of_mean if of_mean > 0 else float("nan"),
            "sample_mse": float(np.mean((made - original[:, None]) ** 2)),
            "reciprocal_rank": reciprocal_rank(
                features.reshape(*features.shape[:2], -1), np.asarray(h).reshape(len(h), -1)
            ),
            "chance_rank": float(np.mean(1 / np.arange(1, len(h) + 1))),
        },
    )


def reciprocal_rank(sampled: Float[np.ndarray, "n k d"], conditions: Float[np.ndarray, "n d"]) -> float:
    """Compute the mean of 1/r, r the rank of a sample's own condition among all by squared distance, 1 the nearest.

    Of conditions that are equally far, the own one counts as the last.

    >>> conditions = np.eye(3)
    >>> reciprocal_rank(conditions[:, None], conditions), round(reciprocal_rank(np.zeros((3, 1, 3)), conditions), 3)
    (1.0, 0.333)

    Reference: Bordes et al. (2022), section 4, mean reciprocal rank.
    """
    n = len(conditions)
    distances = np.stack(
        [((sampled - condition) ** 2).sum(axis=-1) for condition in conditions], axis=-1
    )  # [n, k, n]
    own = distances[np.arange(n), :, np.arange(n)][..., None]
    return float(np.mean(1.0 / (distances <= own).sum(axis=-1)))
