"""The contract that every method fulfils: pure functions closed over hyper-parameters."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from ssl_jax.augment.views import View
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.models.network import Network

LossFn = Callable[[Params, State, Batch, Key, Array], tuple[Array, tuple[State, Metrics]]]
VariablesFn = Callable[[Params, State], tuple[Params, State]]


class CollapseValue(NamedTuple):
    """The value of a logged metric at which a method has collapsed.

    Attributes:
      metric: name of a scalar that the run logs, such as ``loss``.
      value: where theory puts it: a number, or a function of the batch size.
      meaning: what that says about the features, in plain words.
    """

    metric: str
    value: float | Callable[[int], float]
    meaning: str

    def at(self, batch_size: int) -> "CollapseValue":
        """Return the same with the number for a batch size.

        >>> CollapseValue("loss", lambda n: 2.0 * n, "all projections are alike").at(8).value
        16.0
        """
        return self._replace(value=self.value(batch_size)) if callable(self.value) else self


class Limits(NamedTuple):
    """Sizes of batch and source outside which a method means nothing.

    Attributes:
      least_batch: images that one call of the loss needs; 2 where it compares them, or where a head has BatchNorm, to which a
        single image is a constant.
      most_batch: images that one call may have, such as the rows of a queue; ``None``: any number.
      least_images: images of the source, such as the clusters that they are put into.
      follows_from: options from which ``least_images`` follows, for the error, such as ``clusters=10``.
    """

    least_batch: int = 1
    most_batch: int | None = None
    least_images: int = 1
    follows_from: str = "options"

    def require(self, *, batch_size: int, accumulate: int, images: int) -> None:
        """Raise unless a run is within the limits.

        Args:
          batch_size: images a step.
          accumulate: parts of the batch, each with a call of the loss of its own.
          images: images of the source.

        Raises:
          ValueError: it is not; names what would be.

        >>> Limits(least_batch=2).require(batch_size=4, accumulate=4, images=100)
        Traceback (most recent call last):
        ...
        ValueError: batch_size=4 in 4 parts: allowed is 2 images or more in each: the method compares the images of a batch
        """
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        each = " in each" if accumulate > 1 else ""
        given, size = f"batch_size={batch_size}{parts}", batch_size // accumulate
        if size < self.least_batch:
            raise ValueError(
                f"{given}: allowed is {self.least_batch} images or more{each}: the method compares the images of a batch"
            )
        if self.most_batch is not None and size > self.most_batch:
            raise ValueError(
                f"{given}: allowed is at most the {self.most_batch} rows of the method's queue{each}: set a smaller "
                f"batch, or a longer queue, of {size} or more"
            )
        if images < self.least_images:
            raise ValueError(
                f"the source has {images} images: allowed is {self.least_images} or more, which the method's "
                f"{self.follows_from} needs: set fewer, or add images"
            )


ANY_SIZE = Limits()
"""Of a method that means something for every batch and source."""


class Reconstruction(NamedTuple):
    """What a method that predicts pixels makes of images, in the normalisation of its views.

    Attributes:
      images: ``[b, h, w, c]`` that were encoded.
      predictions: ``[b, h, w, c]`` of every patch, the visible ones included.
      masked: ``[b, h, w, 1]`` bool, True where the encoder saw nothing.
    """

    images: Array
    predictions: Array
    masked: Array


class Refresh(NamedTuple):
    """What the loop does with the whole training set before steps 0, n, 2n, ...

    Attributes:
      features: ``(params, state, images) -> array [b, ...]``: what is gathered of every image, without augmentation.
      update: ``(state, features, key) -> state``; ``features`` has a row an image, in the source's order.
      reinit: names in params (at the top) that are drawn anew after an update, their moments in the optimizer set to 0.
      order: ``(state, key) -> int [m]``: indices of the images, repeats allowed, that training goes through until the next
        refresh, in an order of the loop's; ``None``: every image once an epoch.
      cluster_labels: ``state -> (labels, previous)``, each int ``[heads, n]``, the cluster of every image after the last
        refresh and the one before (-1: none), for evaluation; ``None``: the method clusters no images.
      features_once: features are gathered before step 0 only; later updates get ``None``.
    """

    features: Callable[[Params, State, Array], Array]
    update: Callable[[State, Any, Key], State]
    reinit: tuple[str, ...] = ()
    order: Callable[[State, Key], Array] | None = None
    cluster_labels: Callable[[State], tuple[Array, Array]] | None = None
    features_once: bool = False


def no_update(params: Params, state: State, step: Array) -> State:
    """Return the state as it is: the ``after_update`` of methods that keep nothing between steps."""
    del params, step
    return state


def own_encoder(params: Params, state: State) -> tuple[Params, State]:
    """Return ``(params["encoder"], state["encoder"])``: the ``encoder_variables`` of methods that train what they keep."""
    return params["encoder"], state["encoder"]


def project_at(encoder: Network, projector: Network, *path: str) -> Callable[[Params, State, Array], Array]:
    """Return the ``project`` of a method that trains encoder and projector.

    Args:
      encoder: the method's encoder; ``params["encoder"]`` are its params.
      projector: network from its features to embeddings; ``params["projector"]`` are its params.
      *path: names from the top of the state to the dict with the states of both.

    Returns:
      ``(params, state, images) -> embeddings``: ``g(f(x))`` in inference mode, float32.

    >>> import jax, jax.numpy as jnp
    >>> from ssl_jax.models import build, heads
    >>> from ssl_jax.models.network import chain
    >>> encoder, head, images = build("convnet", widths=(4,), grid=1), heads.mlp((3,)), jnp.zeros((2, 8, 8, 3))
    >>> params, state = chain(encoder=encoder, projector=head).init(jax.random.key(0), images)
    >>> project_at(encoder, head, "online")(params, {"online": state}, images).shape
    (2, 3)
    """

    def project(params: Params, state: State, images: Array) -> Array:
        for name in path:
            state = state[name]
        features, _ = encoder.apply(params["encoder"], state["encoder"], images, train=False)
        embeddings, _ = projector.apply(params["projector"], state["projector"], features, train=False)
        return at_least_float32(embeddings)

    return project


def encoder_at(*path: str) -> VariablesFn:
    """Return the ``encoder_variables`` of a method whose state holds the encoder's further down.

    Args:
      *path: names from the top of the state to the dict that holds the encoder's batch statistics.

    Returns:
      ``(params, state) -> (params["encoder"], state[path[0]]...["encoder"])``.

    >>> encoder_at("online")({"encoder": 1, "head": 2}, {"online": {"encoder": 3}})
    (1, 3)
    """

    def encoder_variables(params: Params, state: State) -> tuple[Params, State]:
        for name in path:
            state = state[name]
        return own_encoder(params, state)

    return encoder_variables


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A self-supervised method.

    Attributes:
      views: which views the pipeline makes; ``batch["views"]`` holds them, one array a crop size, in this order.
      init: ``(key, batch) -> (params, state)``; reads only the shapes of ``batch``.
      loss: ``(params, state, batch, key, step) -> (loss, (state, metrics))``. ``step`` counts optimizer updates from 0.
      encoder: the network that the method is for: what evaluation, embedding and export use.
      encoder_variables: ``(params, state) -> (encoder params, encoder state)``: whose weights, the student's or a teacher's.
      after_update: ``(params, state, step) -> state`` after the optimizer's update, with the same ``step`` as the loss.
      refresh: what happens with the whole training set every n steps; ``None`` for methods that do without.
      classify: ``(params, state, images) -> {name: logits [batch, classes]}``, deterministic, of methods that learn from
        labels: ``classifier`` is the one that the method is judged by. ``None`` for methods without one.
      reconstruct: ``(params, state, images, key) -> Reconstruction``, for reports; ``None`` for methods that predict no
        pixels.
      project: ``(params, state, images) -> embeddings [batch, d]``, deterministic, of methods whose loss is taken behind a
        projector that is thrown away afterwards: what the loss sees, see :func:`project_at`. ``None`` for methods without one.
      collapse: metric values at which the method has collapsed, which a run is watched for.
      limits: sizes of batch and source outside which the method means nothing.
      keeps_images: whether the state has something for each training image, by its index in the source, such as a memory or
        the labels of clusters. A run then cannot go on with other images.
    """

    views: tuple[View, ...]
    init: Callable[[Key, Batch], tuple[Params, State]]
    loss: LossFn
    encoder: Network
    encoder_variables: VariablesFn = own_encoder
    after_update: Callable[[Params, State, Array], State] = no_update
    refresh: Refresh | None = None
    classify: Callable[[Params, State, Array], dict[str, Array]] | None = None
    reconstruct: Callable[[Params, State, Array, Key], Reconstruction] | None = None
    project: Callable[[Params, State, Array], Array] | None = None
    collapse: tuple[CollapseValue, ...] = ()
    limits: Limits = ANY_SIZE
    keeps_images: bool = False

    @functools.cached_property
    def encode(self) -> Callable[[Params, State, Array], Array]:
        """``(params, state, images) -> features``: normalised ``[b, h, w, c]`` to float32 ``[b, features]``, deterministic.

        One function object a method, so that ``jax.jit`` compiles it once.
        """

        def encode(params: Params, state: State, images: Array) -> Array:
            features, _ = self.encoder.apply(*self.encoder_variables(params, state), images, train=False)
            return at_least_float32(features)

        return encode
