"""The contract that every method fulfils: pure functions closed over hyper-parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ssl_jax.augment.views import View
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array, Batch, Key, Metrics, Params, State
from ssl_jax.models.network import Network


def no_update(params: Params, state: State, step: Array) -> State:
    """The ``after_update`` of methods that keep nothing between steps."""
    del params, step
    return state


class Sign(NamedTuple):
    """A value at which a metric of a run sits when the method has collapsed.

    Attributes:
      metric: name of a scalar that the run logs, such as ``loss``.
      value: where theory puts it.
      meaning: what that says about the features, in plain words.
    """

    metric: str
    value: float
    meaning: str


def no_signs(batch_size: int) -> tuple[Sign, ...]:
    """The ``signs`` of methods whose collapse has no constant of its own."""
    del batch_size
    return ()


class Reconstruction(NamedTuple):
    """What a method that predicts pixels makes of images, in the normalisation of its views.

    Attributes:
      images: ``[b, h, w, c]`` that were encoded.
      predictions: ``[b, h, w, c]`` of every patch, the visible ones included.
      hidden: ``[b, h, w, 1]`` bool, True where the encoder saw nothing.
    """

    images: Array
    predictions: Array
    hidden: Array


class Refreshing(NamedTuple):
    """What the loop does around ``refresh``, for methods that have one.

    Attributes:
      describe: ``(params, state, images) -> array [b, ...]``: what is gathered of every image, without augmentation.
      gather: ``"always"``, or ``"first"``: only for the refresh before step 0; later ones get ``None``.
      renewed: names in params (at the top) of what is drawn anew after a refresh, its moments in the optimizer set to 0.
      order: ``(state, key) -> int [m]``: indices of the images, repeats allowed, that training goes through until the next
        refresh, in an order of the loop's; ``None``: every image once an epoch.
      labels: ``state -> (labels, previous)``, each int ``[heads, n]``, the cluster of every image after the last refresh and
        the one before (-1: none), for evaluation; ``None``: the method clusters no images.
    """

    describe: Callable[[Params, State, Array], Array]
    gather: str = "always"
    renewed: tuple[str, ...] = ()
    order: Callable[[State, Key], Array] | None = None
    labels: Callable[[State], tuple[Array, Array]] | None = None


LossFn = Callable[[Params, State, Batch, Key, Array], tuple[Array, tuple[State, Metrics]]]


class Halves(NamedTuple):
    """A loss as two functions, the first of which treats every image by itself (but for BatchNorm in the encoder).

    Cached gradients (:func:`ssl_jax.train.step.make_train_step`) run the first half on a part of the batch at a time.

    Attributes:
      embed: ``(params, state, batch, key) -> (features, state)``: a tree of arrays ``[b, ...]``, a row an example.
      compare: ``(params, state, features, batch, key, step) -> (loss, (state, metrics))``; does not read ``batch["views"]``.
    """

    embed: Callable[[Params, State, Batch, Key], tuple[Any, State]]
    compare: Callable[[Params, State, Any, Batch, Key, Array], tuple[Array, tuple[State, Metrics]]]

    def loss(
        self, params: Params, state: State, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, tuple[State, Metrics]]:
        """Both, one after the other: a method's ``loss``."""
        embed_key, compare_key = jax.random.split(key)
        features, state = self.embed(params, state, batch, embed_key)
        return self.compare(params, state, features, batch, compare_key, step)


class Method(NamedTuple):
    """A self-supervised method.

    Attributes:
      views: which views the pipeline makes; ``batch["views"]`` holds them, one array a crop size, in this order.
      init: ``(key, batch) -> (params, state)``; reads only the shapes of ``batch``.
      loss: ``(params, state, batch, key, step) -> (loss, (state, metrics))``. ``step`` counts optimizer updates from 0.
      encode: ``(params, state, images) -> features``: ``[batch, h, w, c]`` normalised images to float32
        ``[batch, features]``, deterministic; what evaluation, export and embedding use.
      encoder: the network behind ``encode``, with ``encoder_of`` choosing its variables: what export writes.
      encoder_of: ``(params, state) -> (encoder params, encoder state)``.
      after_update: ``(params, state, step) -> state`` after the optimizer's update, with the same ``step`` as the loss.
      refresh: ``(state, features, key) -> state``, called by the loop before step 0, n, 2n, ... with what
        ``refreshing.describe`` gives of the whole training set, one row an image in the source's order; ``None`` for methods
        that do without.
      refreshing: what goes with it; given exactly where ``refresh`` is.
      reconstruct: ``(params, state, images, key) -> Reconstruction``, for reports; ``None`` for methods that predict no
        pixels.
      signs: ``batch_size -> signs of collapse``, which a run is watched for.
      classify: ``(params, state, images) -> {name: logits [batch, classes]}``, deterministic, of methods that learn from
        labels: ``classifier`` is the one that the method is judged by. ``None`` for methods without one.
      halves: the loss in two halves; ``None`` for losses that cannot be divided so, or are means over examples anyway.
    """

    views: tuple[View, ...]
    init: Callable[[Key, Batch], tuple[Params, State]]
    loss: LossFn
    encode: Callable[[Params, State, Array], Array]
    encoder: Network
    encoder_of: Callable[[Params, State], tuple[Params, State]]
    after_update: Callable[[Params, State, Array], State] = no_update
    refresh: Callable[[State, Any, Key], State] | None = None
    refreshing: Refreshing | None = None
    reconstruct: Callable[[Params, State, Array, Key], Reconstruction] | None = None
    signs: Callable[[int], tuple[Sign, ...]] = no_signs
    classify: Callable[[Params, State, Array], dict[str, Array]] | None = None
    halves: Halves | None = None


def encode_with(encoder: Network, params: Params, state: State, images: Array) -> Array:
    """Features of an encoder in inference mode, float32 ``[batch, features]``."""
    features, _ = encoder.apply(params, state, images, train=False)
    return at_least_float32(features)


def encoding(
    encoder: Network, *within: str
) -> tuple[Callable[[Params, State, Array], Array], Callable[[Params, State], tuple[Params, State]]]:
    """``encode`` and ``encoder_of`` of a method whose own encoder is the one to keep.

    Args:
      encoder: whose params are ``params["encoder"]``.
      *within: where in the state its batch statistics lie, as names from the top.
    """

    def encoder_of(params: Params, state: State) -> tuple[Params, State]:
        for name in within:
            state = state[name]
        return params["encoder"], state["encoder"]

    def encode(params: Params, state: State, images: Array) -> Array:
        return encode_with(encoder, *encoder_of(params, state), images)

    return encode, encoder_of
