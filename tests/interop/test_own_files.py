"""Folders of runs by the name that foreign weights have."""

import jax
import numpy as np
import pytest
from PIL import Image

import ssl_jax
from ssl_jax.cli.pretrain import pretrain
from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.interop import load_pretrained


@pytest.mark.long
def test_the_folder_of_a_run_is_its_encoder_as_it_is_evaluated(tmp_path):
    (tmp_path / "photos").mkdir()
    for k in range(10):
        pixels = np.random.default_rng(k).integers(0, 256, (20, 20 + k), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.png")
    sizes = {"data.source": f"folder:{tmp_path / 'photos'}", "batch_size": 8} | {
        "encoder.width": 16,
        "encoder.depth": 1,
        "encoder.heads": 2,
        "encoder.patch": 4,
        "views.size": 16,
    }
    config = build.to_dict(load_config("byol:folder,smoke", {"encoder.name": "vit_micro", **sizes}))
    pretrain(config, tmp_path / "run")
    loaded = load_pretrained(str(tmp_path / "run"))
    assert loaded.provenance == {
        "name": str(tmp_path / "run"),
        "family": "ssl_jax",
        "method": "byol",
        "step": 4,
    }
    _, method, model = build.restore(tmp_path / "run", "latest")
    expected = method.encoder_variables(model.params, model.state)
    jax.tree.map(np.testing.assert_array_equal, (loaded.params, loaded.state), expected)
    image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    ours = loaded.network.apply(loaded.params, loaded.state, loaded.preprocessing.apply(image)[None])[0]
    np.testing.assert_allclose(ours, ssl_jax.load(tmp_path / "run").embed(image), atol=1e-5)
    for name, options in ((f"{tmp_path / 'run'}#student", {}), (str(tmp_path / "run"), {"heads": 2})):
        with pytest.raises(ValueError, match=r"no parts|files of ssl_jax say what they are"):
            load_pretrained(name, **options)


def test_a_folder_of_checkpoints_alone_is_no_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"there is no run in it \(config\.json is missing\)"):
        load_pretrained(str(tmp_path))
