"""BEiT."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models.serialize import save_encoder
from tests.methods.case import loss_of, method_of, start, with_views, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["vocabulary_size"])


def tokenizer_file(folder, *, vocabulary_size=8, stride=4, channels=1, name="dvae", facts=None):
    options = (
        {"vocabulary_size": vocabulary_size, "width": 8, "stride": stride, "blocks": 0}
        if name == "dvae"
        else {}
    )
    network = models.build(name, **options)
    params, state = network.init(jax.random.key(7), jnp.zeros((1, 16, 16, channels)))
    path = folder / "encoder.safetensors"
    save_encoder(path, network, params, state, metadata=facts or {})
    return str(path), network, params, state


def test_targets_are_the_tokenizers_best_tokens_of_the_whole_image_at_its_scale(tmp_path):
    path, network, params, state = tokenizer_file(tmp_path)
    method = method_of("beit", tokenizer=path, mask="filled", mask_ratio=0.9)
    variables, kept, batch = start(method)
    images = batch["views"][0][:, 0]
    small = jax.image.resize(images, (16, 16, 16, 1), "lanczos3")
    tokens = np.asarray(jnp.argmax(network.apply(params, state, small, output="logits")[0], -1)).reshape(
        16, 16
    )
    # The layer's bias is the prediction: its loss counts how often each token is masked.
    layer = variables["head"]["dense_0"]
    layer["kernel"] = jnp.zeros_like(layer["kernel"])
    layer["bias"] = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)
    costs = -np.asarray(jax.nn.log_softmax(layer["bias"]))[tokens]
    value, _, _ = loss_of(method, variables, kept, batch)
    low, high = ((costs.sum(1) - edge).sum() / (16 * 15) for edge in (costs.max(1), costs.min(1)))
    assert low <= value <= high


def test_the_tokenizer_sees_images_as_it_learned_them(tmp_path):
    facts = {"mean": [0.2], "std": [0.5]}
    path, *_ = tokenizer_file(tmp_path, facts=facts)
    method = method_of("beit", tokenizer=path)
    params, state, batch = start(method)
    (view,) = method.views
    losses = {}
    for factor in (1.0, 2.0):
        changed = {**batch, "views": (batch["views"][0] * factor,)}
        losses[factor] = loss_of(method, params, state, changed)[0]
    assert losses[1.0] != losses[2.0]
    assert view.mean is not None


def test_blocks_never_exceed_the_ratio_and_filled_ones_reach_it():
    shares = {}
    for mask in ("block", "filled", "random"):
        method = method_of("beit", mask=mask, mask_ratio=0.4)
        shares[mask] = float(loss_of(method, *start(method))[2]["masked"])
    assert shares["filled"] == shares["random"] == 7 / 16
    assert 0 < shares["block"] <= 6 / 16


def test_the_tokenizer_is_part_of_the_state_and_stays_as_it_is():
    method = method_of("beit")
    params, state, batch = start(method)
    _, after, _ = loss_of(method, params, state, batch)
    for old, new in zip(
        jax.tree.leaves(state["tokenizer"]), jax.tree.leaves(after["tokenizer"]), strict=True
    ):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "/nowhere"}, "tokenizer='/nowhere'.*no such file"),
        ({"mask": "uniform"}, "mask='uniform'"),
        ({"mask_ratio": 1.0}, r"mask_ratio=1\.0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("beit", **options)


def test_files_that_are_no_tokenizer_for_these_images_are_refused(tmp_path):
    path, *_ = tokenizer_file(tmp_path, name="convnet")
    with pytest.raises(ValueError, match=r"tokenizer=.*not of 'convnet'"):
        method_of("beit", tokenizer=path)
    path, *_ = tokenizer_file(tmp_path, channels=3)
    method = method_of("beit", tokenizer=path)
    with pytest.raises(ValueError, match=r"tokenizer=.*1 channels"):
        method.init(jax.random.key(0), with_views(method))
