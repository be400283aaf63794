"""Ladder network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.consistency import ladder
from tests.methods.case import loss_of, method_of, start
from tests.methods.consistency.test_pi_model import half_labeled, without_classes


def collapsed(case):
    """All images have a label, so that nothing is denoised."""
    return without_classes(case)


def test_without_labels_the_loss_is_the_denoising_and_all_is_finite():
    method = method_of("ladder")
    params, state, batch = start(method)
    for labels in (np.full(16, -1), half_labeled(batch)["label"], np.r_[3, np.full(15, -1)]):
        some = {**batch, "label": labels.astype(np.int32)}
        gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
        (value, (kept, metrics)), to_params = gradient(params, state, some, jax.random.key(2), jnp.int32(0))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, kept, metrics, to_params)))
        np.testing.assert_allclose(value, metrics["cross_entropy"] + metrics["denoising"], rtol=1e-6)
        assert np.any(to_params["decoder"]["a_0"])


def test_costs_weigh_the_errors_of_their_layers_and_the_last_serves_the_rest():
    method = method_of("ladder", costs=(3.0, 2.0, 0.5))
    params, state, batch = start(method)
    _, _, metrics = loss_of(method, params, state, half_labeled(batch))
    errors = [float(metrics[f"error_{i}"]) for i in range(4)]
    np.testing.assert_allclose(metrics["denoising"], np.dot([3.0, 2.0, 0.5, 0.5], errors), rtol=1e-5)
    # Estimates are 0 at the start: the error at the pixels is their mean square.
    pixels = batch["views"][0][8:, 0]
    np.testing.assert_allclose(errors[0], jnp.mean(pixels**2), rtol=1e-5)


def test_gamma_has_the_top_cost_alone_and_decodes_nothing_else():
    method = method_of("ladder", model="gamma", costs=(4.0,))
    params, state, batch = start(method)
    assert sorted(params["decoder"]) == ["a_3"]
    _, _, metrics = loss_of(method, params, state, half_labeled(batch))
    assert [name for name in metrics if name.startswith("error")] == ["error_3"]
    np.testing.assert_allclose(metrics["denoising"], 4.0 * metrics["error_3"], rtol=1e-6)


def test_without_costs_it_is_a_classifier_under_noise():
    plain, none = method_of("ladder", costs=()), method_of("ladder", costs=(0.0,))
    for method in (plain, none):
        params, state, batch = start(method)
        assert params["decoder"] == {}
        batch = half_labeled(batch)
        value, _, metrics = loss_of(method, params, state, batch)
        images, known = batch["views"][0][:, 0], jnp.asarray(batch["label"] >= 0)
        path, _ = method.encoder.apply(
            params["encoder"],
            state["encoder"],
            images,
            train=True,
            key=jax.random.key(2),
            noise=0.3,
            input_noise=0.3,
            labeled=known,
            output="path",
        )
        log_q = jax.nn.log_softmax(path.logits)
        np.testing.assert_allclose(value, -np.mean(log_q[np.arange(8), np.arange(8)]), rtol=1e-5)
        assert float(metrics["denoising"]) == 0.0


def test_unlabelled_images_do_not_move_the_classifiers_loss():
    """Each half has statistics of its own."""
    method = method_of("ladder", costs=())
    params, state, batch = start(method)
    batch = half_labeled(batch)
    views = batch["views"][0]
    other = {**batch, "views": (views.at[8:].set(5.0 * views[8:] + 1.0),)}
    first, second = (loss_of(method, params, state, b) for b in (batch, other))
    np.testing.assert_allclose(first[0], second[0], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(first[1]), jax.tree.leaves(second[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_clean_targets_get_a_gradient():
    method = method_of("ladder", costs=(0.0, 1.0, 0.0), noise=0.0, input_noise=0.0)
    params, state, batch = start(method)
    batch = {**batch, "label": jnp.full(16, -1)}
    gradient = jax.jit(jax.grad(lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0]))
    # At the start the estimate is 0 whatever the encoder does; its normalised form and the target are not.
    assert np.any(gradient(params)["encoder"]["dense_0"]["kernel"])


def test_gamma_model_runs_on_convolutions():
    encoder = models.build("ladder", channels=(4, 8), widths=())
    with pytest.raises(ValueError, match="model='full'"):
        ladder.build(encoder)
    method = ladder.build(encoder, views=method_of("ladder").views, model="gamma", costs=(1.0,))
    params, state, batch = start(method)
    value, _, metrics = loss_of(method, params, state, half_labeled(batch))
    assert np.isfinite(value) and float(metrics["error_3"]) > 0
    assert method.encode(params, state, batch["views"][0][:, 0]).shape == (16, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"model": "bottom"}, "model='bottom'"), ({"costs": (-1.0,)}, r"costs=\(-1\.0,\)")],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("ladder", **options)


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder='convnet'"):
        ladder.build(models.build("convnet"))
