"""Context encoder: what the loss and the encoder see of the hole, and who moves whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.case import loss_inputs, loss_of, make_gradient, method_of, start

FALLS = (
    (("encoder", "join", "decoder"), "reconstruction_loss"),
    (("discriminator",), "discriminator_loss"),
)


def collapsed(case):
    """Weights 0: F is 0 and D cannot tell; the band of 1 pixel around a hole of 12 x 12 of 14 x 14 weighs tenfold."""
    params, state, batch = loss_inputs(case)
    gray = jnp.full(batch["views"][0].shape, -0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    weight = (144 + 10 * 52) / 196
    expected = 0.999 * 0.25 * weight + 0.001 * np.log(2) + 2 * np.log(2)
    return loss_of(case.method, zero, state, {**batch, "views": (gray,)})[0], expected


@pytest.mark.parametrize(("hole", "overlap"), [("center", 2), ("blocks", 0)])
def test_prediction_knows_nothing_of_the_hole_and_the_error_nothing_of_the_rest(hole, overlap):
    method = method_of("context_encoder", hole=hole, overlap=overlap, adversarial=False)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    reconstruct = jax.jit(method.reconstruct)
    reconstruction = reconstruct(params, state, images, jax.random.key(3))
    inside = np.asarray(reconstruction.masked)
    if hole == "center":
        assert inside.sum() == 16 * 10 * 10
        assert inside[:, 9:19, 9:19].all()
    else:
        assert 49 / 784 <= inside.mean() <= 1 / 4
        assert (inside[0] != inside[1]).any()
    other = jnp.where(reconstruction.masked, -images, images)
    again = reconstruct(params, state, other, jax.random.key(3))
    region = (slice(None), slice(7, 21), slice(7, 21)) if hole == "center" else slice(None)
    np.testing.assert_array_equal(reconstruction.predictions[region], again.predictions[region])

    # Outputs of 0 cost the mean square of what is to be made, wherever else the image changes.
    zero = jax.tree.map(jnp.zeros_like, params)
    key, _ = jax.random.split(jax.random.key(2))
    masked = np.asarray(reconstruct(zero, state, images, key).masked)
    weighed = np.pad(np.ones((10, 10)), 2, constant_values=10.0)
    pad = np.pad(weighed, 7)[None, ..., None] / 14**2 * 28**2
    weights = np.broadcast_to(pad if hole == "center" else masked / masked.mean(), images.shape)
    expected = 0.999 * np.mean(weights * np.asarray(images) ** 2)
    np.testing.assert_allclose(loss_of(method, zero, state, batch)[0], expected, rtol=1e-5)
    changed = jnp.where(weights == 0, 7.0, images)
    found = loss_of(method, zero, state, {**batch, "views": (changed[:, None],)})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_each_player_gets_the_gradient_of_its_own_terms_from_one_scalar():
    options = {"reconstruction_weight": 0.5, "adversarial_weight": 2.0}
    method = method_of("context_encoder", **options)
    params, state, batch = start(method)
    (_, (_, metrics)), (found, _) = make_gradient(method)(params, state, batch)

    def term(name, weight):
        value = lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[1][1][name]  # noqa: E731
        return jax.tree.map(lambda g: weight * g, jax.jit(jax.grad(value))(params))

    error, fooled, told = (
        term(name, weight)
        for name, weight in (
            ("reconstruction_loss", 0.5),
            ("generator_loss", 2.0),
            ("discriminator_loss", 1.0),
        )
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
    jax.tree.map(close, found["discriminator"], told["discriminator"])
    for name in ("encoder", "join", "decoder"):
        own = jax.tree.map(jnp.add, error[name], fooled[name])
        jax.tree.map(close, found[name], own)
        assert not any(g.any() for g in jax.tree.leaves(told[name]))
        assert any(g.any() for g in jax.tree.leaves(fooled[name]))
    assert not any(g.any() for g in jax.tree.leaves((error["discriminator"], fooled["discriminator"])))
    assert float(metrics["discriminator_loss"]) > 0


def test_without_an_adversary_there_is_none_and_features_can_be_the_start():
    method = method_of("context_encoder", adversarial=False, join="dense")
    params, _, _ = start(method)
    assert set(params) == {"encoder", "decoder"}
    assert "project" in params["decoder"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hole": "centre"}, "did you mean 'center'"),
        ({"overlap": 7}, "overlap=7: allowed is 0 to 6"),
        ({"hole": "blocks"}, "overlap=1: allowed is 0 for blocks"),
        ({"blocks": 0}, "blocks=0"),
        ({"join": "conv"}, "join='conv'"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("context_encoder", **options)
