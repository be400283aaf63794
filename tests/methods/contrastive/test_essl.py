"""E-SSL."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import essl as config_file
from ssl_jax.augment import presets
from ssl_jax.augment.operations import Flip, Rotate
from ssl_jax.config import build
from ssl_jax.losses.contrastive import info_nce
from ssl_jax.methods.contrastive import essl
from ssl_jax.methods.distillation import simsiam
from ssl_jax.models import heads
from tests.golden_files import assert_close, golden
from tests.methods.case import BATCH, config_of, loss_of, method_of, start, with_views, zero_params_loss
from tests.methods.pretext.seeing import seeing


def collapsed(case):
    return zero_params_loss(case), math.log(BATCH) + 0.4 * math.log(4)


CORNERS = ((0, 0), (-1, 0), (-1, -1), (0, -1))
"""Where the top left corner of an image goes when it is turned counter-clockwise."""


def reading(logits):
    """An encoder that gives the pair's pixels, and of a turned third view, whose corner says which image it is, its logits."""

    def look(images):
        if images.shape[1] == 2:
            return images.reshape(len(images), -1)
        corners = jnp.stack([images[:, y, x, 0] for y, x in CORNERS], axis=1)
        image, turns = jnp.max(corners, axis=1).astype(int) - 1, jnp.argmax(corners, axis=1)
        rows = logits.reshape(4, -1, 4)[turns, image]  # golden: blocks of one rotation
        return jnp.pad(rows, ((0, 0), (0, 20)))

    return seeing(look, 24)


def test_loss_and_gradients_equal_golden():
    file = golden("contrastive_extra")

    def loss(z0, z1, logits):
        method = essl.build(reading(logits), projector_layers=0, head_widths=())
        pair = jnp.stack([z0, z1], axis=1).reshape(12, 2, 2, 2, 6)
        third = jnp.zeros((12, 1, 4, 4, 6), z0.dtype).at[:, 0, 0, 0, 0].set(jnp.arange(1, 13))
        batch = {"views": (pair, third)}
        params, state = method.init(jax.random.key(0), batch)
        params["head"]["dense_0"] = {"kernel": jnp.eye(24, 4), "bias": jnp.zeros(4)}
        return method.loss(params, state, batch, jax.random.key(1), jnp.int32(0))[0]

    inputs = [jnp.asarray(file[f"in__{name}"], jnp.float32) for name in ("z0", "z1", "logits")]
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*inputs)
    np.testing.assert_allclose(value, file["essl_simclr_l0p4__loss"], rtol=1e-5)
    for name, gradient in zip(("z0", "z1", "logits"), gradients, strict=True):
        assert_close(gradient, file[f"essl_simclr_l0p4__grad__{name}"], tolerance=1e-5)


def test_the_contrast_of_both_directions_equals_golden():
    file = golden("contrastive_extra")
    for dtype, loss_tolerance, tolerance in ((jnp.float32, 1e-5, 1e-5), (jnp.float64, 1e-9, 1e-8)):
        with jax.enable_x64(dtype == jnp.float64):
            z = [jnp.asarray(file[f"in__z{i}"], dtype) for i in (0, 1)]
            info = functools.partial(info_nce, temperature=0.5)
            step = jax.value_and_grad(lambda a, b, info=info: (info(a, b) + info(b, a)) / 2, argnums=(0, 1))
            value, gradients = step(*z)
            np.testing.assert_allclose(value, file["cpc_sym_t0p5__loss"], rtol=loss_tolerance)
            for i in (0, 1):
                assert_close(gradients[i], file[f"cpc_sym_t0p5__grad__z{i}"], tolerance=tolerance)


@pytest.mark.parametrize("base", essl.BASES)
def test_the_loss_is_the_base_and_the_weighted_prediction_and_with_weight_zero_the_base_alone(base):
    method, alone = (method_of("essl", base=base, transformation_weight=weight) for weight in (0.7, 0))
    params, state, batch = start(method)
    value, _, metrics = loss_of(method, params, state, batch)
    np.testing.assert_allclose(value, metrics["base"] + 0.7 * metrics["prediction"], rtol=1e-5)
    assert len(method.views) == 3 and len(alone.views) == 2
    pair = {**batch, "views": batch["views"][:1]}
    assert set(alone.init(jax.random.key(0), pair)[0]) == set(params) - {"head"}
    base_value, _, base_metrics = loss_of(alone, params, state, pair)
    np.testing.assert_allclose(base_value, metrics["base"], rtol=1e-5, atol=1e-6)
    assert "accuracy" not in base_metrics
    values = {value.metric: value.at(8).value for value in method.collapse}
    assert [value.at(8).value for value in alone.collapse] == [values["base"]]
    assert values["loss"] == pytest.approx(values["base"] + 0.7 * values["prediction"])


def test_the_base_simsiam_is_simsiam():
    options = {"projection": 8, "projector_width": 8, "predictor_width": 16}
    encoder = heads.mlp((16,), last_norm="batch")
    views = presets.dino(8, 4, local_count=1)
    method = essl.build(encoder, views=views, base="simsiam", transformation_weight=0, **options)
    reference = simsiam.build(encoder, heads=simsiam.Heads(projector_layers=2, **options))
    batch = {"views": (jax.random.normal(jax.random.key(3), (12, 2, 10)),)}
    params, state = method.init(jax.random.key(0), batch)
    gradients = [
        jax.jit(jax.value_and_grad(m.loss, has_aux=True))(params, s, batch, jax.random.key(1), jnp.int32(0))
        for m, s in ((method, state), (reference, {"online": state}))
    ]
    np.testing.assert_allclose(gradients[0][0][0], gradients[1][0][0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients[0][1], gradients[1][1]
    )


@pytest.mark.parametrize("size", [8, 6])
@pytest.mark.parametrize(("copies", "count"), [("all", 24), ("one", 1)])
def test_the_third_view_alone_is_transformed_whatever_its_size(size, copies, count):
    seen = []

    def look(images):
        seen.append(images)
        return images[:, :2, 0, 0]

    views = presets.dino(8, size, local_count=1)
    options = {"transformation": "jigsaw", "copies": copies, "projector_layers": 0, "head_widths": (6,)}
    method = essl.build(seeing(look, 2), views=views, **options)
    pair, third = (
        jax.random.normal(jax.random.key(i), (5, n, s, s, 1)) for i, n, s in ((0, 2, 8), (1, 1, size))
    )
    batch = {"views": (jnp.concatenate([pair, third], axis=1),) if size == 8 else (pair, third)}
    params, state = method.init(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(2))
    _, (_, metrics) = method.loss(params, state, batch, keys[0], jnp.int32(0))
    first, second, versions = seen[-3:]
    np.testing.assert_array_equal(first, pair[:, 0])
    np.testing.assert_array_equal(second, pair[:, 1])
    assert versions.shape == (5 * count, size, size, 1) and 0 <= metrics["accuracy"] <= 1
    if copies == "all":
        np.testing.assert_array_equal(versions[::24], third[:, 0])
    else:
        method.loss(params, state, batch, keys[1], jnp.int32(0))
        assert np.any(seen[-1] != versions), "drawn anew with the key"


def test_what_hides_the_answer_is_taken_out_of_the_third_view_only():
    views = presets.dino(28, 14, local_count=1, rotate_prob=0.5)
    for transformation, kept in (("rotation", {Flip}), ("horizontal_flip", set())):
        made = essl.build(heads.mlp((4,)), views=views, transformation=transformation).views
        assert made[:2] == views[:2] and made[0].find(Rotate)
        assert {type(op) for op in made[2].ops} & {Flip, Rotate} == kept
        assert {type(op) for op in views[2].ops} - {type(op) for op in made[2].ops} == {Rotate, Flip} - kept


def test_the_heads_are_those_of_the_code_for_cifar10():
    method = build.method(build.to_dict(config_file.get_config("cifar10")))
    params, _ = jax.eval_shape(method.init, jax.random.key(0), {"views": (jnp.zeros((2, 2, 32, 32, 3)),)})
    kernels = {
        part: [params[part][f"dense_{i}"]["kernel"].shape for i in range(layers)]
        for part, layers in (("projector", 2), ("head", 3))
    }
    assert kernels == {
        "projector": [(512, 2048), (2048, 2048)],
        "head": [(512, 2048), (2048, 2048), (2048, 4)],
    }
    assert params["head"]["norm_1"]["scale"].shape == (2048,) and "norm_1" not in params["projector"]


def test_gradients_of_projector_and_head_do_not_meet():
    method = method_of("essl")
    params, state, batch = start(method)
    step = jax.jit(
        jax.grad(
            lambda p, name: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[1][1][name],
        ),
        static_argnums=1,
    )
    for name, other in (("base", "head"), ("prediction", "projector")):
        gradient = step(params, name)
        assert not any(np.any(x) for x in jax.tree.leaves(gradient[other]))
        assert any(np.any(x) for x in jax.tree.leaves(gradient["encoder"]))


def test_weight_and_temperature_may_be_traced():
    params, state, batch = start(method_of("essl"))

    @jax.jit
    def loss(weight, temperature):
        method = method_of("essl", transformation_weight=weight, temperature=temperature)
        return method.loss(params, state, batch, jax.random.key(2), jnp.int32(0))[0]

    method = method_of("essl", transformation_weight=0.2, temperature=0.3)
    np.testing.assert_allclose(loss(0.2, 0.3), loss_of(method, params, state, batch)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "byol"}, "base='byol'"),
        ({"transformation": "rotations"}, "did you mean 'rotation'"),
        ({"copies": "two"}, "copies='two'"),
        ({"transformation_weight": -0.1}, "transformation_weight=-0.1"),
        ({"projector_layers": -1}, "projector_layers=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("essl", **options)


def test_other_views_than_a_pair_and_a_third_are_refused():
    config = config_of("essl")
    config["views"]["local_count"] = 2
    with pytest.raises(ValueError, match="views=4: allowed is three"):
        build.method(config)
    small, _, large = presets.dino(8, 6, local_count=1)[::-1]
    with pytest.raises(ValueError, match="a pair of one size"):
        essl.build(heads.mlp((4,)), views=(small, large, large))
    assert len(with_views(method_of("essl"))["views"]) == 2
