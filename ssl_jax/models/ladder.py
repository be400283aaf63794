"""Ladder networks: an encoder whose layers can be corrupted, and a decoder that cleans them one after the other."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.models.network import DTYPES, Network, from_linen

OUTPUTS = ("features", "logits", "layers", "path")
EPSILON = 1e-5
DECAY = 0.9
WEIGHTS = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Path(NamedTuple):
    """One pass through the encoder of a ladder, layers 0 (the images) to L (the classes).

    Attributes:
      z: values of each layer, after normalisation and noise, before shift and activation: ``[b, d]`` or ``[b, h, w, c]``.
      mean: mean of the labelled and of the unlabelled examples before normalisation, ``[2, d]`` for each of the layers 1 to L.
      var: likewise, biased.
      logits: ``[b, classes]``.
    """

    z: tuple[Array, ...]
    mean: tuple[Array, ...]
    var: tuple[Array, ...]
    logits: Array


def normalize_parts(
    x: Float[Array, "b ... d"], labeled: Bool[Array, " b"]
) -> tuple[Float[Array, "b ... d"], Float[Array, "2 d"], Float[Array, "2 d"]]:
    """Normalise labelled and unlabelled examples, each by the statistics of their own kind.

    ``(x − μ_k) / √(v_k + 1e-5)`` with mean and biased variance over the examples of kind k and all positions.

    Args:
      x: ``[b, ..., d]``, any float dtype.
      labeled: whether an example is of the first kind.

    Returns:
      Normalised examples in float32 or wider, and means and variances of both kinds (0 where there is no example).

    >>> x = jnp.array([[1.0], [3.0], [10.0], [30.0]])
    >>> y, mean, var = normalize_parts(x, jnp.array([True, True, False, False]))
    >>> y.ravel().round(2).tolist(), mean.ravel().tolist(), var.ravel().tolist()
    ([-1.0, 1.0, -1.0, 1.0], [2.0, 20.0], [1.0, 100.0])
    """
    wide = at_least_float32(x)
    share = jnp.stack([labeled, ~labeled]).astype(wide.dtype)
    share = share / jnp.maximum(jnp.sum(share, axis=1, keepdims=True), 1.0)
    kind = labeled.reshape(-1, *[1] * (x.ndim - 1))

    def moment(values: Array) -> Array:
        positions = jnp.mean(values.reshape(values.shape[0], -1, values.shape[-1]), axis=1)
        return jnp.sum(share[:, :, None] * positions, axis=1)

    mean = moment(wide)
    centered = wide - jnp.where(kind, mean[0], mean[1])
    # Again, so that what rounding leaves of a constant is not scaled up.
    rest = moment(centered)
    centered = centered - jnp.where(kind, rest[0], rest[1])
    var = moment(centered * centered)
    factor = jax.lax.rsqrt(var + EPSILON)
    return centered * jnp.where(kind, factor[0], factor[1]), mean, var


class PartwiseNorm(nn.Module):
    """:func:`normalize_parts` in training; at inference running averages of the labelled examples' statistics."""

    @nn.compact
    def __call__(
        self, x: Array, labeled: Bool[Array, " b"], *, train: bool
    ) -> tuple[Array, Float[Array, "2 d"], Float[Array, "2 d"]]:
        width = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        if not train:
            mean, var = running_mean.value, running_var.value
            y = (at_least_float32(x) - mean) * jax.lax.rsqrt(var + EPSILON)
            return y, jnp.stack([mean, mean]), jnp.stack([var, var])
        y, both_means, both_vars = normalize_parts(x, labeled)
        count = jnp.sum(labeled) * (x.size // (x.shape[0] * x.shape[-1]))
        unbiased = both_vars[0] * count / jnp.maximum(count - 1, 1)
        for running, now in ((running_mean, both_means[0]), (running_var, unbiased)):
            moved = DECAY * running.value + (1.0 - DECAY) * jax.lax.stop_gradient(now)
            running.value = jnp.where(count > 0, moved, running.value)
        return y, both_means, both_vars


class LadderEncoder(nn.Module):
    """See :func:`ladder`."""

    widths: tuple[int, ...]
    channels: tuple[int, ...]
    classes: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool,
        output: str = "features",
        labeled: Bool[Array, " b"] | None = None,
        noise: float | Array | None = None,
        input_noise: float | Array = 0.0,
    ) -> Any:
        check.choice("output", output, OUTPUTS)
        labeled = jnp.ones(images.shape[0], bool) if labeled is None else labeled

        def corrupted(x: Array, deviation: float | Array) -> Array:
            if noise is None:
                return x
            return x + deviation * jax.random.normal(self.make_rng("train"), x.shape, x.dtype)

        h = corrupted(at_least_float32(images), input_noise)
        h = h if self.channels else h.reshape(h.shape[0], -1)
        z, means, variances, layers = [h], [], [], {}

        def layer(name: str, x: Array) -> Array:
            y, mean, var = PartwiseNorm(name=f"{name}_norm")(x, labeled, train=train)
            z.append(corrupted(y, 0.0 if noise is None else noise))
            means.append(mean)
            variances.append(var)
            return z[-1] + self.param(f"{name}_shift", nn.initializers.zeros, (x.shape[-1],), jnp.float32)

        for i, width in enumerate(self.channels):
            name = f"conv_{i}"
            conv = nn.Conv(
                width, (3, 3), 2, padding=1, use_bias=False, kernel_init=WEIGHTS, dtype=self.dtype, name=name
            )
            h = layers[name] = nn.relu(layer(name, conv(h)))
        h = jnp.mean(h, axis=(1, 2)) if self.channels else h
        for i, width in enumerate(self.widths):
            name = f"dense_{i}"
            h = nn.relu(layer(name, self._dense(width, name)(h)))
            layers[name] = h[:, None, None]
        top = layer("top", self._dense(self.classes, "top")(h))
        logits = top * self.param("top_scale", nn.initializers.ones, (self.classes,), jnp.float32)
        if output == "features":
            return at_least_float32(h)
        if output == "path":
            return Path(tuple(z), tuple(means), tuple(variances), logits)
        return logits if output == "logits" else layers

    def _dense(self, width: int, name: str) -> nn.Module:
        return nn.Dense(width, use_bias=False, kernel_init=WEIGHTS, dtype=self.dtype, name=name)


def ladder(
    *,
    widths: Sequence[int] = (1000, 500, 250, 250, 250),
    channels: Sequence[int] = (),
    classes: int = 10,
    dtype: str = "float32",
) -> Network:
    """Build the encoder of a ladder network: a perceptron, or convolutions of stride 2 and then one, with its classifier.

    In each layer ``z = n(W h) + σ ε`` and ``h = relu(z + β)``, at the top ``logits = γ (z + β)``; n normalises without scale or
    shift, labelled and unlabelled examples of a batch each by their own statistics, σ is 0 unless ``noise`` is given. At
    inference n uses running averages of the labelled examples' statistics.

    Args:
      widths: widths of the dense hidden layers.
      channels: channels of convolutions 3x3 of stride 2 before them, whose last map is averaged over its positions; ``()``:
        the first dense layer sees all pixels.
      classes: width of the logits.
      dtype: compute dtype of the products, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.

    Returns:
      ``Network`` on images ``[b, h, w, c]``, features those of the last hidden layer. Options of apply: ``labeled`` bool
      ``[b]`` (all of them if it is left out); ``noise`` and ``input_noise``, deviations in the layers and on the pixels, with
      which it needs a key; ``output="logits"``, ``"layers"`` (activations by name) or ``"path"`` (:class:`Path`).

    Raises:
      ValueError: no hidden layer, fewer than two classes, or an unknown dtype.

    >>> network = ladder(widths=(8, 4), classes=3)
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 6, 6, 1)))
    >>> path, _ = network.apply(params, state, jnp.ones((5, 6, 6, 1)), output="path")
    >>> [z.shape for z in path.z], path.logits.shape
    ([(5, 36), (5, 8), (5, 4), (5, 3)], (5, 3))

    Reference: Rasmus et al., Semi-Supervised Learning with Ladder Networks, NeurIPS 2015, algorithm 1; CuriousAI/ladder.
    Deviations: 1e-5 is added to variances, there 1e-10; running averages keep 0.9 from the first step on.
    """
    check.require(bool(widths) or bool(channels), "widths", widths, "one hidden layer or more")
    check.require(classes >= 2, "classes", classes, "an integer of 2 or more")
    check.choice("dtype", dtype, DTYPES)
    options = {"widths": list(widths), "channels": list(channels), "classes": classes, "dtype": dtype}
    module = LadderEncoder(tuple(widths), tuple(channels), classes, jnp.dtype(dtype))
    return from_linen(module, features=[*channels, *widths][-1], config={"name": "ladder", **options})


def denoise(
    z: Float[Array, "b ... d"], u: Float[Array, "b ... d"], a: Float[Array, "10 d"]
) -> Float[Array, "b ... d"]:
    """Denoise, ``ẑ = (z̃ − μ(u)) v(u) + μ(u)``.

    ``μ(u) = a₁ s(a₂ u + a₃) + a₄ u + a₅`` and ``v(u) = a₆ s(a₇ u + a₈) + a₉ u + a₁₀`` with s the logistic function. Where the
    clean z is normal around μ with variance ς² and noise of variance σ² was added, ``v = ς² / (ς² + σ²)`` gives its mean
    given z̃.

    Args:
      z: z̃, corrupted.
      u: output of the layer above.
      a: ten numbers for each unit.

    >>> denoise(jnp.array([[3.0]]), jnp.array([[0.0]]), jnp.zeros((10, 1)).at[4].set(1.0).at[9].set(0.5)).tolist()
    [[2.0]]

    Reference: Rasmus et al. 2015, section 4.1, equations 1 and 2.
    """
    mu = a[0] * jax.nn.sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
    v = a[5] * jax.nn.sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
    return (z - mu) * v + mu


def _start(key: Array, shape: tuple[int, int]) -> Array:
    """The estimate is 0 at first, with inner slopes of 1 from which the rest can be learnt."""
    del key
    return jnp.zeros(shape, jnp.float32).at[1].set(1.0).at[6].set(1.0)


class LadderDecoder(nn.Module):
    """See :func:`ladder_decoder`."""

    lowest: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        probabilities: Float[Array, "b c"],
        *,
        train: bool,
        z: Sequence[Array],
        labeled: Bool[Array, " b"],
    ) -> dict[int, Array]:
        del train
        estimates: dict[int, Array] = {}
        above = probabilities
        for i in range(len(z) - 1, self.lowest - 1, -1):
            width = z[i].shape[-1]
            if i < len(z) - 1:
                name = f"dense_{i}"
                above = nn.Dense(width, use_bias=False, kernel_init=WEIGHTS, dtype=self.dtype, name=name)(
                    above
                )
            u, _, _ = normalize_parts(above, labeled)
            above = estimates[i] = denoise(z[i], u, self.param(f"a_{i}", _start, (10, width)))
        return estimates


def ladder_decoder(*, lowest: int = 0, dtype: str = "float32") -> Network:
    """Build the decoder of a ladder network: estimates of the clean z, from the top layer down to layer ``lowest``.

    ``ẑ_l = g(z̃_l, n(V_l ẑ_{l+1}))`` with :func:`denoise` as g; at the top n(probabilities) is in the place of the product.

    Args:
      lowest: 0 (the images) to L; below it nothing is made.
      dtype: compute dtype of the products.

    Returns:
      ``Network`` on the probabilities ``[b, classes]`` of the corrupted path, with the options ``z`` (its layers) and
      ``labeled``, of ``init`` too; its output is a dict by number of the layer.
    """
    return from_linen(LadderDecoder(lowest, jnp.dtype(dtype)), features=0)


BUILDERS: dict[str, Callable[..., Network]] = {"ladder": ladder}
