"""Encoders by name see images exactly as their files ask for."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax import interop
from ssl_jax.cli.embed import embed_images
from ssl_jax.cli.encoders import config_without_run, describe_encoder, load_encoder
from ssl_jax.cli.evaluate import candidate_subject, measure_options
from ssl_jax.config.images import open_images
from ssl_jax.interop.preprocessing import Preprocessing
from tests.weights_file import write_weights


@pytest.mark.parametrize("resize, interpolation", [("squash", "bilinear"), ("short", "bicubic")])
def test_wide_pictures_are_resized_as_the_file_says(tmp_path, monkeypatch, resize, interpolation):
    write_weights(tmp_path / "vit.safetensors")
    loaded = interop.load_pretrained(str(tmp_path / "vit.safetensors"))
    own = Preprocessing((28, 28), resize, 0.8, interpolation, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    foreign = loaded._replace(preprocessing=own, provenance={"family": "timm ViT"})
    monkeypatch.setattr(interop, "load_pretrained", lambda name: foreign, raising=False)
    rng = np.random.default_rng(0)
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    pictures = [Image.fromarray(rng.integers(0, 256, (20, 90, 3), dtype=np.uint8)) for _ in range(3)]
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    expected = loaded.network.apply(loaded.params, loaded.state, np.stack([own.apply(p) for p in pictures]))[
        0
    ]

    spec = f"folder:{tmp_path / 'images'}"
    embed_images("vit", spec, tmp_path / "out.npz")
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["features"], expected, atol=1e-5)

    config = config_without_run(spec, ("train", "train"), None)
    images = open_images(config, spec, "train")
    encoder = load_encoder("vit", images)
    assert f"{resize}, the central 80 %, {interpolation}" in describe_encoder(encoder)
    subject = candidate_subject(encoder.candidate, (images, images), measure_options(config))
    np.testing.assert_allclose(subject.test.features, expected, atol=1e-5)
    assert subject.sources[0].shape == (28, 28, 3)
