"""Files of encoders: what comes back equals what went in, also where ssl_jax is absent."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.core.files import write_atomically
from ssl_jax.models.build import build
from ssl_jax.models.serialize import (
    export_stablehlo,
    load_encoder,
    load_stablehlo,
    save_encoder,
)
from tests.models.fill import random_variables

ENCODERS = {
    "vit": {"name": "vit_micro", "width": 16, "depth": 1, "heads": 2, "freeze_patch": True, "image_size": 16},
    "convnet": {"name": "convnet", "widths": (4, 8), "grid": 2},
}


def made(name):
    network = build(**ENCODERS[name])
    images = jnp.asarray(np.random.default_rng(1).normal(size=(5, 16, 16, 3)), jnp.float32)
    params, state = random_variables(network, images)
    return network, params, state, images


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_survives_a_round_trip_through_safetensors(name, tmp_path):
    network, params, state, images = made(name)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, network, params, state, metadata={"method": "mae", "step": 7})
    loaded, new_params, new_state, metadata = load_encoder(path)
    assert metadata == {"method": "mae", "step": 7}
    assert jax.tree.structure((new_params, new_state)) == jax.tree.structure((params, state))
    jax.tree.map(np.testing.assert_array_equal, (new_params, new_state), (params, state))
    expected, _ = network.apply(params, state, images)
    np.testing.assert_array_equal(loaded.apply(new_params, new_state, images)[0], expected)
    assert dict(build(**loaded.config).config) == dict(loaded.config)


def test_foreign_file_and_network_without_configuration_are_errors(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, path)
    with pytest.raises(ValueError, match="allowed is a file of the format"):
        load_encoder(path)
    network, params, state, _ = made("vit")
    with pytest.raises(ValueError, match=r"network\.config=\{\}"):
        save_encoder(tmp_path / "x", network._replace(config={}), params, state)


@pytest.mark.parametrize("name", ENCODERS)
def test_stablehlo_gives_the_same_features_at_any_batch_size(name, tmp_path):
    network, params, state, images = made(name)
    export_stablehlo(tmp_path / "m", lambda x: network.apply(params, state, x)[0], (16, 16, 3))
    function = load_stablehlo(tmp_path / "m")
    for batch in (1, 5):
        expected, _ = network.apply(params, state, images[:batch])
        np.testing.assert_allclose(function(images[:batch]), expected, atol=1e-5)


def test_stablehlo_runs_where_ssl_jax_and_flax_are_absent(tmp_path):
    network, params, state, images = made("vit")
    export_stablehlo(tmp_path / "m", lambda x: network.apply(params, state, x)[0], (16, 16, 3))
    expected, _ = network.apply(params, state, images)
    np.savez(tmp_path / "io.npz", images=images, features=expected)
    code = (
        "import sys, jax.export, numpy as np\n"
        "sys.modules['ssl_jax'] = sys.modules['flax'] = None\n"
        "f = jax.export.deserialize(bytearray(open('m', 'rb').read()))\n"
        "assert set(f.platforms) == {'cpu', 'cuda', 'tpu'}\n"
        "io = np.load('io.npz')\n"
        "for n in (1, 5):\n"
        "    np.testing.assert_allclose(f.call(io['images'][:n]), io['features'][:n], atol=1e-5)\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"older but longer")
    assert path.read_bytes() == b"older but longer"

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"older but longer"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_export_closes_over_weights_and_takes_float32(tmp_path):
    export_stablehlo(tmp_path / "m", lambda x: {"a": x.sum((1, 2, 3))}, (2, 2, 1), platforms=("cpu",))
    out = load_stablehlo(tmp_path / "m")(jnp.ones((3, 2, 2, 1)))
    np.testing.assert_array_equal(out["a"], np.full(3, 4.0))
