"""BEiT."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.methods.parts.mask_token import draw_masks, encode_masked
from ssl_jax.models.serialize import save_encoder
from tests.methods.case import loss_of, method_of, start, with_views, zero_params_loss
from tests.methods.foreign import save_foreign_vit


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
    path, *_ = tokenizer_file(tmp_path, channels=3)
    method = method_of("beit", tokenizer=path)
    with pytest.raises(ValueError, match=r"tokenizer=.*1 channels"):
        method.init(jax.random.key(0), with_views(method))


# Any other encoder as the tokenizer.


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return save_foreign_vit(tmp_path_factory.mktemp("tokenizer"))


def features_of(loaded, view, images):
    """Features of 4 x 4 patches of a teacher with patches of 4 pixels: images of 16."""
    pixels = jax.image.resize(images, (len(images), 16, 16, 1), "lanczos3")
    pixels = pixels * np.asarray(view.std) + np.asarray(view.mean)
    pixels = (pixels - loaded.preprocessing.mean[0]) / loaded.preprocessing.std[0]
    return np.asarray(
        loaded.network.apply(loaded.params, loaded.state, pixels, output="tokens")[0][:, 1:], np.float64
    )


def test_tokens_are_the_nearest_centroids_of_the_features(foreign):
    path, loaded = foreign
    method = method_of("beit", tokenizer=path, vocabulary_size=5, mask="filled", mask_ratio=0.5)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    features = features_of(loaded, method.views[0], images)
    centroids = features.reshape(-1, 16)[::50][:5]
    assert len(centroids) == 5
    state = {**state, "codebook": jnp.asarray(centroids, jnp.float32)}
    masked = draw_masks(
        jax.random.split(jax.random.key(2))[0], method.encoder, images, kind="block", ratio=0.5
    ).masked
    tokens, _ = encode_masked(method.encoder, params, state, images, masked)
    head = {name: np.asarray(leaf, np.float64) for name, leaf in params["head"]["dense_0"].items()}
    logits = np.asarray(tokens, np.float64) @ head["kernel"] + head["bias"]
    total, count, ids = 0.0, 0, set()
    for image in range(len(images)):
        for patch in np.flatnonzero(masked[image]):
            y = np.argmin([((features[image, patch] - c) ** 2).sum() for c in centroids])
            total -= logits[image, patch, y] - np.log(np.exp(logits[image, patch]).sum())
            count += 1
            ids.add(int(y))
    assert len(ids) > 2
    value, after, _ = loss_of(method, params, state, batch)
    assert value == pytest.approx(total / count, rel=1e-4)
    for name in ("tokenizer", "codebook"):
        jax.tree.map(np.testing.assert_array_equal, after[name], state[name])


def test_centroids_are_fitted_once_to_features_of_patches(foreign):
    path, loaded = foreign
    method = method_of("beit", tokenizer=path, vocabulary_size=4, samples=6)
    params, state, batch = start(method)
    images = batch["views"][0][:, 0]
    gathered = np.asarray(method.refresh.features(params, state, images))
    assert gathered.shape == (16, 6, 16)
    features = features_of(loaded, method.views[0], images)
    for image in range(16):  # each is a feature of one of the image's patches
        distances = np.abs(gathered[image][:, None] - features[image][None]).max(-1)
        assert distances.min(1).max() < 1e-4
    points = np.repeat(np.eye(4, 16) * 10, 6, axis=0) + np.random.default_rng(0).normal(0, 0.01, (24, 16))
    fitted = method.refresh.update(
        state, jnp.asarray(points.reshape(4, 6, 16), jnp.float32), jax.random.key(0)
    )
    means = points.reshape(4, 6, 16).mean(1)
    distances = np.abs(np.asarray(fitted["codebook"])[:, None] - means[None]).max(-1)
    assert sorted(distances.argmin(1)) == [0, 1, 2, 3] and distances.min(1).max() < 1e-4
    assert method.refresh.features_once
    assert method.refresh.update(fitted, None, jax.random.key(1)) is fitted
    assert method.limits.least_images == 1


def test_more_centroids_than_features_are_refused(foreign):
    method = method_of("beit", tokenizer=foreign[0], vocabulary_size=100)
    _, state, _ = start(method)
    with pytest.raises(ValueError, match="vocabulary_size=100: allowed is at most the 12 features"):
        method.refresh.update(state, jnp.zeros((2, 6, 16)), jax.random.key(0))


def test_a_convolutional_encoder_as_the_tokenizer(tmp_path):
    path, *_ = tokenizer_file(tmp_path, name="convnet")
    method = method_of("beit", tokenizer=path, vocabulary_size=4)
    value, _, _ = loss_of(method, *start(method))
    assert np.isfinite(value)
