"""What losses send between eight devices, read from the compiled program: what theory needs and no more."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from ssl_jax.losses.barlow import barlow_twins
from ssl_jax.losses.clustering import balanced_codes, swapped_prediction
from ssl_jax.losses.contrastive import dcl, hard_negative, info_nce, nt_xent
from ssl_jax.losses.distillation import dino_loss
from ssl_jax.losses.spectral import spectral_contrastive
from ssl_jax.losses.variance_covariance import vicreg
from ssl_jax.optim.ema import ema
from ssl_jax.train.sharding import batch_sharding, make_mesh

N, D = 64, 48
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def sent(loss, *, gradient=True, shapes=((N, D), (N, D))):
    """Kind and elements of every array that the program sends, largest first; each array of a combined one by itself."""
    where = batch_sharding(make_mesh())
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where) for shape in shapes]
    function = jax.value_and_grad(loss, argnums=tuple(range(len(inputs)))) if gradient else loss
    placed = (None, tuple(where for _ in inputs)) if gradient else None
    text = jax.jit(function, out_shardings=placed).lower(*inputs).compile().as_text()
    found = re.findall(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", text)
    arrays = [
        (kind, math.prod(int(n) for n in shape.split(",") if n))
        for result, kind in found
        for shape in re.findall(r"\w+\[([\d,]*)\]", result)
    ]
    return sorted(arrays, key=lambda array: -array[1])


def large(arrays, least):
    return [array for array in arrays if array[1] >= least]


@pytest.mark.parametrize("loss", [nt_xent, dcl, hard_negative])
def test_contrast_with_all_views_gathers_embeddings_once_and_reduces_their_gradient_once(loss):
    both = 2 * N * D
    assert large(sent(loss, gradient=False), N) == [("all-gather", both)]
    assert sorted(large(sent(loss), N)) == [("all-gather", both), ("all-reduce", both)]


def test_queries_that_meet_all_keys_gather_these_alone():
    def loss(queries, keys):
        return info_nce(queries, jax.lax.stop_gradient(keys))

    assert large(sent(loss), N) == [("all-gather", N * D)]
    for both in (info_nce, lambda u, v: spectral_contrastive(u, v)[0]):
        assert sorted(large(sent(both), N)) == [("all-gather", N * D), ("all-reduce", N * D)]


def test_barlow_twins_reduces_one_correlation_and_no_embedding():
    """And statistics of columns, D numbers each."""
    found = sent(lambda z1, z2: barlow_twins(z1, z2)[0])
    assert large(found, D + 1) == [("all-reduce", D * D)]
    assert {kind for kind, _ in found} == {"all-reduce"}


def test_vicreg_reduces_the_covariance_of_each_view_and_no_embedding():
    found = sent(lambda z1, z2: vicreg(z1, z2)[0])
    assert large(found, D + 1) == [("all-reduce", D * D)] * 2
    assert {kind for kind, _ in found} == {"all-reduce"}


def test_sinkhorn_reduces_prototypes_sums_only():
    prototypes, iterations = 96, 3

    def loss(scores):
        codes = balanced_codes(jax.lax.stop_gradient(scores[:, :2]), epsilon=0.05, iterations=iterations)
        return swapped_prediction(scores, codes, temperature=0.1)

    found = sent(loss, shapes=((N, 4, prototypes),))
    assert {kind for kind, _ in found} == {"all-reduce"}
    assert found[0][1] <= 2 * prototypes


def test_dino_reduces_its_centre_and_the_loss():
    prototypes = 96
    shapes = ((N, 4, prototypes), (N, 2, prototypes))
    center = ema(0.9)

    def loss(student, teacher):
        return dino_loss(student, teacher, jnp.zeros(prototypes))

    def centred(teacher):
        return center.update(jnp.mean(teacher, axis=(0, 1)), center.init(jnp.zeros(prototypes)))[0]

    pairs = 2 * 4
    assert large(sent(loss, shapes=shapes), pairs + 1) == []
    assert sent(centred, gradient=False, shapes=shapes[1:]) == [("all-reduce", prototypes)]
