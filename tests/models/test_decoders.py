"""MAE's decoder: the authors' whole model, and the un-shuffling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.decoders import mae_decoder, masked_decoder
from ssl_jax.models.torch_names_vit import mae_decoder_from_torch, vit_from_torch
from ssl_jax.models.vit import vit
from tests.golden_files import assert_close, golden
from tests.models.fill import random_variables


def mae_model():
    prefix = "model__w__"
    weights = {k.removeprefix(prefix): v for k, v in golden("mae").items() if k.startswith(prefix)}
    encoder = vit("vit_micro", width=32, depth=2, heads=4, patch=8, image_size=32, position="sincos")
    decoder = mae_decoder(patch=8, channels=3, grid=4, width=16, depth=1, heads=2)
    variables = vit_from_torch(weights, encoder)
    return encoder, decoder, {"encoder": variables[0], "decoder": mae_decoder_from_torch(weights)[0]}


def mae_loss(encoder, decoder, params, images, normalize):
    """The loss of the paper written out, with the noise of the golden file."""
    order = np.argsort(golden("mae")["in__noise"], axis=1)
    keep, restore = order[:, :4], np.argsort(order, axis=1)
    hidden = restore >= 4
    latent, _ = encoder.apply(params["encoder"], {}, images, keep=jnp.asarray(keep), output="tokens")
    pred, _ = decoder.apply(params["decoder"], {}, latent, restore=jnp.asarray(restore))
    grid = images.reshape(-1, 4, 8, 4, 8, 3)
    target = grid.swapaxes(2, 3).reshape(-1, 16, 192)
    deviation = jnp.sqrt(target.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
    target = jnp.where(normalize, (target - target.mean(axis=-1, keepdims=True)) / deviation, target)
    loss = (((pred - target) ** 2).mean(axis=-1) * hidden).sum() / hidden.sum()
    return loss, (latent, pred)


def test_whole_mae_equals_the_authors_code():
    file = golden("mae")
    encoder, decoder, params = mae_model()
    images = jnp.asarray(file["in__img"].transpose(0, 2, 3, 1), jnp.float32)
    loss = functools.partial(mae_loss, encoder, decoder)
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    for normalize in (False, True):
        case = f"model_norm{int(normalize)}"
        (value, (latent, pred)), (gradients, pixels) = step(params, images, jnp.asarray(normalize))
        np.testing.assert_allclose(value, file[f"{case}__loss"], rtol=1e-5)
        ours = gradients["encoder"]
        kernel = ours["patch_embed"]["kernel"].reshape(8, 8, 3, 32)
        found = {
            "out__latent": latent,
            "out__pred": pred,
            "out__grad_cls_token": ours["cls_token"],
            "out__grad_mask_token": gradients["decoder"]["mask_token"],
            "out__grad_block0_qkv_weight": ours["blocks_0"]["attn"]["qkv"]["kernel"].T,
            "out__grad_patch_embed_proj_weight": kernel.transpose(3, 2, 0, 1),
            "grad__img": pixels.transpose(0, 3, 1, 2),
        }
        for name, array in found.items():
            assert_close(array, file[f"{case}__{name}"], tolerance=5e-5)


def small(**options):
    decoder = mae_decoder(patch=2, channels=1, grid=(2, 3), width=8, depth=1, heads=2, **options)
    tokens = jnp.asarray(np.random.default_rng(1).normal(size=(2, 1 + 4, 12)), jnp.float32)
    restore = jnp.array([[4, 0, 1, 5, 2, 3], [0, 1, 2, 3, 4, 5]])
    return decoder, *random_variables(decoder, tokens), tokens, restore


def test_order_of_the_visible_tokens_does_not_matter_if_restore_follows():
    decoder, params, state, tokens, restore = small()
    order = jnp.array([2, 0, 3, 1])
    shuffled = jnp.concatenate([tokens[:, :1], tokens[:, 1:][:, order]], axis=1)
    place = jnp.argsort(order)
    follows = jnp.where(restore < 4, place[jnp.minimum(restore, 3)], restore)
    np.testing.assert_allclose(
        decoder.apply(params, state, shuffled, restore=follows)[0],
        decoder.apply(params, state, tokens, restore=restore)[0],
        atol=1e-5,
    )


def test_hidden_patches_differ_only_by_their_position():
    decoder, params, state, tokens, restore = small(dtype="float32")
    swapped = jnp.where(restore == 4, 5, jnp.where(restore == 5, 4, restore))
    np.testing.assert_array_equal(
        decoder.apply(params, state, tokens, restore=swapped)[0],
        decoder.apply(params, state, tokens, restore=restore)[0],
    )


def test_prefix_tokens_are_dropped_but_take_part():
    decoder, params, state, tokens, restore = small(prefix=1)
    out, _ = decoder.apply(params, state, tokens, restore=restore)
    assert out.shape == (2, 6, 4) and out.dtype == jnp.float32
    other, _ = decoder.apply(params, state, tokens.at[:, 0].add(1.0), restore=restore)
    assert (out != other).any()


def test_remat_and_bfloat16_agree_with_the_plain_form():
    decoder, params, state, tokens, restore = small()

    def gradient(network):
        def loss(p):
            return (network.apply(p, state, tokens, restore=restore)[0] ** 2).mean()

        return jax.jit(jax.grad(loss))(params)

    plain, again, low = (
        gradient(decoder),
        gradient(small(remat=True)[0]),
        gradient(small(dtype="bfloat16")[0]),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), again, plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1 * np.abs(b).max() + 0.05), low, plain)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="width=10: allowed is a multiple of heads=4"):
        mae_decoder(patch=2, channels=1, grid=2, width=10, heads=4)
    with pytest.raises(ValueError, match="init='zeros'"):
        mae_decoder(patch=2, channels=1, grid=2, width=8, heads=4, init="zeros")


def test_predictions_for_prefix_tokens_stand_in_front_and_change_no_other():
    options = {"outputs": 5, "grid": (2, 3), "width": 8, "depth": 1, "heads": 2, "prefix": 2}
    kept, dropped = (masked_decoder(keep_prefix=keep, **options) for keep in (True, False))
    tokens = jax.random.normal(jax.random.key(1), (3, 2 + 2, 7))
    restore = jnp.tile(jnp.array([4, 0, 5, 1, 2, 3]), (3, 1))
    params, state = kept.init(jax.random.key(0), tokens)
    jax.tree.map(np.testing.assert_array_equal, dropped.init(jax.random.key(0), tokens)[0], params)
    whole, _ = kept.apply(params, state, tokens, restore=restore)
    assert whole.shape == (3, 2 + 6, 5)
    patches, _ = dropped.apply(params, state, tokens, restore=restore)
    np.testing.assert_allclose(whole[:, 2:], patches, atol=1e-6)
    assert np.abs(whole[:, :1] - whole[:, 1:2]).max() > 1e-4
