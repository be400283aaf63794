"""Runs that start from weights: what they begin with, what moves, how they go on without the file, and what measures them."""

import json
import shutil

import numpy as np
import pytest

from ssl_jax.cli import embed, evaluate, pretrain, report
from ssl_jax.config import build, weights
from ssl_jax.config.load import load_config
from ssl_jax.core import trees
from ssl_jax.data.open import open_source
from ssl_jax.models.build import merge_lora
from ssl_jax.train.loop import fit
from ssl_jax.train.run import Watch
from tests.weights_file import RESNET, write_weights

METHODS = {"simclr": {}, "dino": {}, "mae": {}, "ijepa": {"class_token": False, "pool": "mean"}}
QUIET = {"watch.health.batch": 0, "watch.health.sample": 0, "watch.checkpoint.every": 2}


def config_of(method, path, **changes):
    given = {"encoder.weights": str(path), **QUIET, **changes}
    return build.to_dict(load_config(f"configs/{method}.py:smoke", given))


def train(config):
    """Train without a folder; return the method, the final params and state, and the losses."""
    losses = []

    class Losses:
        def write(self, step, scalars):
            losses.append(scalars["loss"])

        def close(self):
            pass

    objects = build.run_objects(config)
    fitted = fit(build.run(config, objects), watch=Watch(writer=lambda step: Losses(), log_every=1))
    return objects.method, fitted.state.params, fitted.state.state, losses


def restored(workdir, step="latest"):
    _, method, model = build.restore(workdir, step)
    return method, model.params, model.state


def assert_same(found, given):
    found, given = trees.flatten(found), trees.flatten(given)
    assert found.keys() == given.keys()
    assert not [path for path, leaf in found.items() if not np.array_equal(leaf, given[path])]


@pytest.mark.long
@pytest.mark.parametrize(("method", "encoder"), [("byol", {}), ("barlow", RESNET)])
def test_a_run_starts_as_the_file_and_goes_on_without_it_bit_by_bit(tmp_path, method, encoder):
    path, folder = tmp_path / "weights.safetensors", tmp_path / "run"
    _, given, _ = write_weights(path, channels=1, **encoder)
    config = config_of(method, path, **{"encoder.frozen_share": 0.5})
    pretrain.pretrain(config, folder)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([record["loss"] for record in records if "loss" in record]).all()
    assert json.loads((folder / "weights.json").read_text())["family"] == "ssl_jax"
    half, whole = restored(folder, "2"), restored(folder, "4")
    assert_same(half[1]["encoder"], given)
    assert not any(
        np.array_equal(leaf, trees.flatten(given)[name])
        for name, leaf in trees.flatten(whole[1]["encoder"]).items()
        if name.endswith("kernel")
    )
    shutil.rmtree(folder / "checkpoints" / "4")
    path.unlink()
    weights.forget_weights()
    pretrain.pretrain(config, folder)
    for part, before in zip(restored(folder, "4")[1:], whole[1:], strict=True):
        assert_same(part, before)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_every_kind_train_on_an_encoder_that_stands_still(tmp_path, method):
    path = tmp_path / "weights.safetensors"
    _, given, _ = write_weights(path, channels=1, **METHODS[method])
    config = config_of(method, path, **{"encoder.frozen_share": 1.0, "steps": 2})
    built, params, state, losses = train(config)
    assert np.isfinite(losses).all() and len(losses) == 2
    assert_same(params["encoder"], given)
    evaluated = trees.flatten(
        built.encoder_variables(params, state)[0]
    )  # an average of equal ones, up to rounding
    for name, leaf in trees.flatten(given).items():
        np.testing.assert_allclose(evaluated[name], leaf, rtol=1e-6)


@pytest.mark.long
def test_batch_statistics_of_an_encoder_that_stands_still_stay(tmp_path):
    path = tmp_path / "weights.safetensors"
    _, params, state = write_weights(path, channels=1, **RESNET)
    _, trained, after, _ = train(config_of("simclr", path, **{"encoder.frozen_share": 1.0, "steps": 1}))
    assert_same(trained["encoder"], params)
    assert_same(after["encoder"], state)


@pytest.mark.long
@pytest.mark.parametrize("method", ["byol", "simmim"])
def test_lora_trains_its_matrices_only(tmp_path, method):
    path = tmp_path / "weights.safetensors"
    network, given, _ = write_weights(path, channels=1)
    changes = {"encoder.lora_rank": 2, "encoder.frozen_share": 0.0, "optimizer.layer_decay": 0.9}
    built, params, state, _ = train(config_of(method, path, **changes))
    variables = built.encoder_variables(params, state)
    assert_same(variables[1]["base"], given)
    trained = trees.flatten(params["encoder"])
    assert {name for name in trained if not name.startswith("lora/")} <= {"mask_token"}
    assert all(np.any(leaf) for name, leaf in trained.items() if name.endswith("/b"))
    if method == "byol":
        assert trees.flatten(state["teacher"].params["encoder"]).keys() == trained.keys()
        assert_same(state["teacher"].state["encoder"]["base"], given)
    images = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype(np.float32)
    plain, *merged = merge_lora(built.encoder, *variables)
    before, after = built.encoder.apply(*variables, images)[0], plain.apply(*merged, images)[0]
    np.testing.assert_allclose(after, before, atol=1e-6 * np.abs(before).max(), rtol=0)
    assert not np.allclose(after, network.apply(given, {}, images)[0], atol=1e-6)


@pytest.mark.long
def test_layer_decay_slows_the_first_blocks(tmp_path):
    path = tmp_path / "weights.safetensors"
    _, given, _ = write_weights(path, channels=1)
    changes = {"encoder.frozen_share": 0.0, "optimizer.layer_decay": 0.01, "optimizer.warmup_steps": 0}
    _, params, _, _ = train(config_of("simclr", path, **changes, steps=1))
    moved = [
        np.abs(params["encoder"][block]["mlp"]["fc1"]["kernel"] - given[block]["mlp"]["fc1"]["kernel"]).max()
        for block in ("blocks_0", "blocks_1")
    ]
    assert 0 < moved[0] < 0.1 * moved[1]


@pytest.mark.long
def test_a_run_is_measured_beside_the_weights_that_it_started_from(tmp_path, capsys):
    path = tmp_path / "weights.safetensors"
    write_weights(path, channels=1)
    pretrain.pretrain(config_of("simclr", path), tmp_path / "run")
    options = {"measures": ["knn"], "splits": ("train[:5%]", "test[:5%]")}
    evaluate.evaluate_run(tmp_path / "run", beside=[str(path)], baselines=["random", "start"], **options)
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    roles = [(row["role"], row["features"]) for row in result["rows"]]
    assert roles == [
        ("baseline", "random encoder"),
        ("encoder", str(path)),
        ("start", f"started from {path}"),
        ("encoder", "simclr, 4 steps"),
    ]
    # The weights as they are and as the run began are the same, whichever way they were loaded.
    assert result["rows"][1]["knn"] == result["rows"][2]["knn"]
    assert result["encoders"][str(path)]["seen"] == {"size": 28, "mean": [0.4], "std": [0.2]}
    capsys.readouterr()
    report.write_report([str(tmp_path / "run")], None, report.Pictures(points=100))
    said = capsys.readouterr().out.splitlines()
    first = next(line for line in said if "kNN" in line)
    assert f"started from {path}" in first and "the weights that it started from" in first

    out = tmp_path / "alone.json"
    evaluate.evaluate_encoder(str(path), "embedded", out=out, baselines=["random", "pixels"], **options)
    alone = json.loads(out.read_text())
    assert [row["role"] for row in alone["rows"]] == ["baseline", "baseline", "encoder"]
    assert alone["rows"][-1]["knn"] == result["rows"][1]["knn"]

    path.unlink()
    weights.forget_weights()
    evaluate.evaluate_run(tmp_path / "run", baselines=["start"], **options)
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert [row["role"] for row in result["rows"]] == ["encoder"]
    assert "cannot be loaded" in result["left_out"]["start"]


@pytest.mark.long
def test_features_of_patches_are_written_with_their_grid(tmp_path):
    path = tmp_path / "weights.safetensors"
    network, params, state = write_weights(path, channels=1, registers=2)
    options = {"split": "test[:1%]", "tokens": True}
    embed.embed_images(str(path), "embedded", tmp_path / "a.npz", **options)
    embed.embed_images(str(path), "embedded", tmp_path / "a.parquet", **options)
    found = np.load(tmp_path / "a.npz")
    assert found["patches"].shape == (20, 16, 32) and found["grid"].tolist() == [4, 4]
    images = np.stack([_image(i) for i in range(20)])
    tokens, _ = network.apply(params, state, (images - 0.4) / 0.2, output="tokens")
    np.testing.assert_allclose(found["patches"], tokens[:, 3:], atol=1e-4)
    np.testing.assert_allclose(found["features"], tokens[:, 0], atol=1e-4)
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(np.array(table["patches"].to_pylist(), np.float32), found["patches"])
    assert table["grid"].to_pylist() == [[4, 4]] * 20


def _image(index):
    return np.float32(open_source("embedded", "test[:1%]")[index]["image"]) / 255
