"""Heads on top of an encoder's features: projectors, predictors, prototype heads."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.core import check
from ssl_jax.core.numerics import at_least_float32, normalize
from ssl_jax.core.types import Array
from ssl_jax.models.network import DTYPES, Network, from_linen
from ssl_jax.models.norm import BatchNorm, GroupNorm, standardized_dot

ACTIVATIONS = {"relu": nn.relu, "gelu": lambda x: nn.gelu(x, approximate=False)}
HIDDEN_NORMS = ("batch", "group", "layer", "none")
LAST_NORMS = {"none": "", "batch": "full", "batch_scale": "scale", "batch_no_affine": "none"}
KERNEL_INITS = {
    # U(±1/sqrt(fan_in)), the default of torch.nn.Linear.
    "torch": nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform"),
    # Truncated normal of standard deviation 1/sqrt(fan_in), the default of haiku and flax.
    "lecun": nn.initializers.lecun_normal(),
    "xavier": nn.initializers.xavier_uniform(),
}


def _kernel_init(value: str | float) -> Any:
    if isinstance(value, str):
        return KERNEL_INITS[check.choice("kernel_init", value, KERNEL_INITS)]
    return nn.initializers.normal(value)


class MLP(nn.Module):
    """Dense layers with normalisation and activation between them."""

    widths: tuple[int, ...]
    hidden_bias: bool
    hidden_norm: str
    last_bias: bool
    last_norm: str
    activation: str
    kernel_init: str | float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"], *, train: bool) -> Float[Array, "*b k"]:
        init = _kernel_init(self.kernel_init)
        x = x.astype(self.dtype)
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            bias = self.last_bias if last else self.hidden_bias
            by_group = self.hidden_norm == "group" and not last
            dense: dict[str, Any] = {"kernel_init": init, "dtype": self.dtype, "name": f"dense_{i}"}
            x = nn.Dense(width, bias, dot_general=standardized_dot if by_group else None, **dense)(x)
            affine = LAST_NORMS[self.last_norm] if last else ("full" if self.hidden_norm == "batch" else "")
            if affine:
                x = BatchNorm(affine=affine, dtype=self.dtype, name=f"norm_{i}")(x, train=train)
            if by_group:
                x = GroupNorm(spatial_axes=0, dtype=self.dtype, name=f"norm_{i}")(x, train=train)
            if self.hidden_norm == "layer" and not last:
                x = nn.LayerNorm(1e-5, self.dtype, use_fast_variance=False, name=f"norm_{i}")(x)
            if not last:
                x = ACTIVATIONS[self.activation](x)
        return at_least_float32(x)


def mlp(
    widths: Sequence[int],
    *,
    hidden_bias: bool = True,
    hidden_norm: str = "batch",
    last_bias: bool = True,
    last_norm: str = "none",
    activation: str = "relu",
    kernel_init: str | float = "torch",
    dtype: str = "float32",
) -> Network:
    """Build a multi-layer perceptron: ``[dense → norm → activation] × (n − 1) → dense → norm``.

    The heads of the papers:

    * SimCLR: ``mlp((2048, 128), hidden_bias=False, last_bias=False, last_norm="batch_scale",
      kernel_init=0.01)``
    * MoCo v2: ``mlp((2048, 128), hidden_norm="none")``; v1: ``mlp((128,))``
    * MoCo v3 (ViT): projector ``mlp((4096, 4096, 256), hidden_bias=False, last_bias=False,
      last_norm="batch_no_affine")``, predictor the same with ``(4096, 256)``
    * BYOL: ``mlp((4096, 256), last_bias=False, kernel_init="lecun")``
    * SimSiam: projector ``mlp((2048, 2048, 2048), hidden_bias=False, last_bias=False,
      last_norm="batch_no_affine")`` (the code keeps a frozen last bias, which the normalisation cancels),
      predictor ``mlp((512, 2048), hidden_bias=False)``
    * Barlow Twins, VICReg: ``mlp((8192, 8192, 8192), hidden_bias=False, last_bias=False)``

    Biases start at 0 (torch: U(±1/sqrt(fan_in))).

    Args:
      widths: output width of each layer, one or more.
      hidden_bias: whether the hidden layers have a bias.
      hidden_norm: ``"batch"``; ``"group"``: GroupNorm in 16 groups and standardised weights, in the hidden layers; ``"layer"``:
        LayerNorm; ``"none"``.
      last_bias: whether the last layer has a bias.
      last_norm: ``"none"``, ``"batch"``, ``"batch_scale"`` (γ only) or ``"batch_no_affine"``.
      activation: ``"relu"`` or ``"gelu"`` (exact).
      kernel_init: ``"torch"`` U(±1/sqrt(fan_in)), ``"lecun"``, ``"xavier"``, or a number: the standard
        deviation of a normal.
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.

    Returns:
      ``Network`` on features ``[..., d]``; the outputs ``[..., widths[-1]]`` are float32.

    Raises:
      ValueError: no widths, or an option that is not one of the above.

    >>> import jax, jax.numpy as jnp
    >>> head = mlp((16, 4), hidden_bias=False)
    >>> params, state = head.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> sorted(params), head.features
    (['dense_0', 'dense_1', 'norm_0'], 4)
    >>> head.apply(params, state, jnp.ones((2, 8)))[0].shape
    (2, 4)
    """
    check.require(len(widths) >= 1, "widths", widths, "one width or more")
    check.choice("hidden_norm", hidden_norm, HIDDEN_NORMS)
    check.choice("last_norm", last_norm, LAST_NORMS)
    check.choice("activation", activation, ACTIVATIONS)
    check.choice("dtype", dtype, DTYPES)
    _kernel_init(kernel_init)
    module = MLP(
        tuple(widths),
        hidden_bias,
        hidden_norm,
        last_bias,
        last_norm,
        activation,
        kernel_init,
        jnp.dtype(dtype),
    )
    return from_linen(module, features=widths[-1])


class Prototypes(nn.Module):
    """Logits against prototypes by weight normalisation: ``gain_k · x·v_k / ‖v_k‖``, x of unit norm."""

    count: int
    trained_gain: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
        shape = (x.shape[-1], self.count)
        direction = self.param("direction", KERNEL_INITS["torch"], shape, jnp.float32)
        kernel = normalize(direction.T).T
        if self.trained_gain:
            kernel = kernel * self.param("gain", nn.initializers.ones, (self.count,), jnp.float32)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return jnp.matmul(x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=wide)


class DinoHead(nn.Module):
    """MLP, L2 normalisation, prototypes."""

    mlp: MLP
    prototypes: Prototypes

    def __call__(self, x: Float[Array, "*b d"], *, train: bool) -> Float[Array, "*b k"]:
        return self.prototypes(normalize(self.mlp(x, train=train)))


def dino_head(
    prototypes: int = 65536,
    *,
    hidden_dim: int = 2048,
    bottleneck: int = 256,
    layers: int = 3,
    batch_norm: bool = False,
    norm_last_layer: bool = True,
    dtype: str = "float32",
) -> Network:
    """Build DINO's head: MLP with GELU to a bottleneck, L2 normalisation, weight-normalised prototypes.

    ``logits_k = g_k · n(mlp(h)) · v_k / ‖v_k‖`` with ``n(z) = z/‖z‖``. Dense kernels start as N(0, 0.02²),
    biases at 0, v as U(±1/sqrt(bottleneck)).

    Params: ``mlp/dense_<i>``, ``prototypes/direction`` (v, ``[bottleneck, K]``) and, where it is trained,
    ``prototypes/gain`` (g, ``[K]``).

    Args:
      prototypes: K, width of the output.
      hidden_dim: width of the hidden layers of the MLP.
      bottleneck: width of the layer that is normalised.
      layers: dense layers of the MLP, 1 or more.
      batch_norm: BatchNorm after each hidden dense layer (for ResNets).
      norm_last_layer: g is 1 and no parameter: more stable, needed for larger ViTs. ``False``: g is trained.
      dtype: compute dtype, ``"float32"`` or ``"bfloat16"`` (``"float64"`` under x64); params are float32.

    Returns:
      ``Network`` on features ``[..., d]``; the logits ``[..., K]`` are float32.

    Raises:
      ValueError: a width or a number of layers below 1.

    Reference: Caron et al., ICCV 2021, appendix C; Salimans & Kingma 2016, equation 2 (weight normalisation).

    >>> import jax, jax.numpy as jnp
    >>> head = dino_head(16, hidden_dim=8, bottleneck=4)
    >>> params, state = head.init(jax.random.key(0), jnp.ones((1, 6)))
    >>> params["prototypes"]["direction"].shape
    (4, 16)
    >>> float(jnp.abs(head.apply(params, state, jnp.ones((2, 6)))[0]).max()) <= 1.0
    True
    """
    check.require(prototypes >= 1, "prototypes", prototypes, "1 or more")
    check.require(layers >= 1, "layers", layers, "1 or more")
    check.choice("dtype", dtype, DTYPES)
    module = DinoHead(
        MLP(
            widths=(hidden_dim,) * (layers - 1) + (bottleneck,),
            hidden_bias=True,
            hidden_norm="batch" if batch_norm else "none",
            last_bias=True,
            last_norm="none",
            activation="gelu",
            kernel_init=0.02,
            dtype=jnp.dtype(dtype),
        ),
        Prototypes(prototypes, not norm_last_layer, jnp.dtype(dtype)),
    )
    return from_linen(module, features=prototypes)
