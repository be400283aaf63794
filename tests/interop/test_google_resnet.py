"""ResNets of DeepMind's BYOL and Google's SimCLR from ``.npz`` files, against a plain forward pass with their padding."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.interop import load_pretrained

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
WIDTH, DEPTHS = 4, (3, 4, 6, 3)


def draw(rng, *shape):
    return rng.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)


def draw_norm(rng, width):
    """Scale, offset, mean and variance."""
    return [
        (1 + 0.1 * rng.normal(size=width)).astype(np.float32),
        (0.1 * rng.normal(size=width)).astype(np.float32),
        (0.1 * rng.normal(size=width)).astype(np.float32),
        (0.5 + rng.random(width)).astype(np.float32),
    ]


def draw_layers(seed=0):
    """Kernels and norms of a narrow ResNet-50: ``(stem, [(stride, [three layers], shortcut or None), ...])``."""
    rng = np.random.default_rng(seed)
    stem = (draw(rng, 7, 7, 3, WIDTH), draw_norm(rng, WIDTH))
    blocks, before = [], WIDTH
    for stage, depth in enumerate(DEPTHS):
        width = WIDTH * 2**stage
        for block in range(depth):
            layers = [
                (draw(rng, 1, 1, before, width), draw_norm(rng, width)),
                (draw(rng, 3, 3, width, width), draw_norm(rng, width)),
                (draw(rng, 1, 1, width, 4 * width), draw_norm(rng, 4 * width)),
            ]
            shortcut = (draw(rng, 1, 1, before, 4 * width), draw_norm(rng, 4 * width)) if block == 0 else None
            blocks.append((2 if stage and block == 0 else 1, layers, shortcut))
            before = 4 * width
    return stem, blocks


def forward(layers, images, *, conv_padding):
    """The map after the last block; the max-pool is padded by SAME in both codes."""
    stem, blocks = layers

    def conv_norm(x, layer, stride):
        kernel, (scale, offset, mean, variance) = layer
        half = kernel.shape[0] // 2
        padding = "SAME" if conv_padding == "same" else [(half, half)] * 2
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=numbers)
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + offset

    x = jax.nn.relu(conv_norm(images, stem, 2))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for stride, (first, second, third), shortcut in blocks:
        y = jax.nn.relu(conv_norm(x, first, 1))
        y = jax.nn.relu(conv_norm(y, second, stride))
        x = x if shortcut is None else conv_norm(x, shortcut, stride)
        x = jax.nn.relu(conv_norm(y, third, 1) + x)
    return x


def haiku_file(path, layers):
    """The ``.npz`` that the lines in docs/guides/convert.md write of a checkpoint of BYOL."""
    stem, blocks = layers
    arrays = {"projector/linear/w": np.ones((3, 2), np.float32), "classifier/b": np.ones(2, np.float32)}

    def add(conv, norm, layer):
        kernel, (scale, offset, mean, variance) = layer
        arrays[f"res_net50/~/{conv}/w"] = kernel
        name, shape = f"res_net50/~/{norm}", (1, 1, 1, -1)
        arrays[f"{name}/scale"], arrays[f"{name}/offset"] = scale.reshape(shape), offset.reshape(shape)
        for which, value in (("mean", mean), ("var", variance)):
            arrays[f"{name}/~/{which}_ema/average"] = value.reshape(shape)
            arrays[f"{name}/~/{which}_ema/hidden"] = 7 * value.reshape(shape)
            arrays[f"{name}/~/{which}_ema/counter"] = np.int32(3)

    add("initial_conv", "initial_batchnorm", stem)
    places = [(group, block) for group, depth in enumerate(DEPTHS) for block in range(depth)]
    for (group, block), (_, layers_of_block, shortcut) in zip(places, blocks, strict=True):
        place = f"block_group_{group}/~/block_{block}/~"
        for k, layer in enumerate(layers_of_block):
            add(f"{place}/conv_{k}", f"{place}/batchnorm_{k}", layer)
        if shortcut is not None:
            add(f"{place}/shortcut_conv", f"{place}/shortcut_batchnorm", shortcut)
    np.savez(path, **arrays)
    return str(path)


def simclr_file(path, layers):
    """The ``.npz`` that the lines in docs/guides/convert.md write of a checkpoint of SimCLR."""
    stem, blocks = layers
    in_order = [stem]
    for _, layers_of_block, shortcut in blocks:
        in_order += [*([] if shortcut is None else [shortcut]), *layers_of_block]
    arrays = {
        "head_supervised/linear_layer/dense/kernel": np.ones((3, 2), np.float32),
        "global_step": np.int64(5),
    }
    for number, (kernel, norm) in enumerate(in_order):
        suffix = f"_{number}" if number else ""
        arrays[f"base_model/conv2d{suffix}/kernel"] = kernel
        for name, value in zip(("gamma", "beta", "moving_mean", "moving_variance"), norm, strict=True):
            arrays[f"base_model/batch_normalization{suffix}/{name}"] = value
    np.savez(path, **arrays)
    return str(path)


FILES = {"byol": (haiku_file, "same"), "simclr": (simclr_file, "symmetric")}


@pytest.mark.parametrize("kind", FILES)
def test_maps_and_features_are_those_of_the_code(tmp_path, kind):
    write, conv_padding = FILES[kind]
    layers = draw_layers()
    loaded = load_pretrained(write(tmp_path / "resnet.npz", layers))
    assert loaded.network.config["name"] == "resnet50" and loaded.network.config["width"] == WIDTH / 64
    for height, width in ((64, 64), (33, 50)):
        images = np.random.default_rng(1).standard_normal((2, height, width, 3)).astype(np.float32)
        expected = np.asarray(forward(layers, jnp.asarray(images), conv_padding=conv_padding))
        apply = lambda output: loaded.network.apply(loaded.params, loaded.state, images, output=output)[0]  # noqa: B023, E731
        np.testing.assert_allclose(apply("tokens"), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        mean = expected.mean((1, 2))
        np.testing.assert_allclose(apply("features"), mean, rtol=0, atol=1e-5 * np.abs(mean).max())


def test_what_each_expects_of_a_picture(tmp_path):
    layers = draw_layers()
    byol = load_pretrained(haiku_file(tmp_path / "byol.npz", layers)).preprocessing
    simclr = load_pretrained(simclr_file(tmp_path / "simclr.npz", layers)).preprocessing
    assert byol.mean == (0.485, 0.456, 0.406) and byol.size == simclr.size == (224, 224)
    assert (simclr.mean, simclr.std) == ((0.0,) * 3, (1.0,) * 3)


def test_other_depths_are_refused(tmp_path):
    stem, blocks = draw_layers()
    with pytest.raises(ValueError, match="convolutions=52: allowed is 53, 104, 155"):
        load_pretrained(
            simclr_file(tmp_path / "simclr.npz", (stem, [*blocks[:-1], (1, blocks[-1][1][:2], None)]))
        )


def lines_of(number):
    """The Python of one of the blocks in docs/guides/convert.md."""
    text = (ROOT / "docs/guides/convert.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[number]


def test_the_lines_that_write_the_arrays_of_byol(tmp_path, monkeypatch):
    """The lines of the page, run on a pickle of the same form."""
    import pickle

    layers = draw_layers()
    with np.load(haiku_file(tmp_path / "expected.npz", layers)) as file:
        arrays = {name: file[name] for name in file.files}
    trees = {"online_params": {}, "online_state": {}}
    for name, array in arrays.items():
        module, leaf = name.rsplit("/", 1)
        kind = "online_state" if leaf in ("average", "hidden", "counter") else "online_params"
        trees[kind].setdefault(module, {})[leaf] = array
    with open(tmp_path / "pretrain_res50x1.pkl", "wb") as file:
        pickle.dump({"experiment_state": trees, "step": 3}, file)
    monkeypatch.chdir(tmp_path)
    exec(lines_of(0), {})
    with np.load(tmp_path / "byol.npz") as file:
        assert sorted(file.files) == sorted(arrays)
    loaded, expected = (load_pretrained(str(tmp_path / name)) for name in ("byol.npz", "expected.npz"))
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.state, expected.state)


def test_the_lines_that_write_the_arrays_of_simclr(tmp_path, monkeypatch):
    """The lines of the page, with a stand-in for the reader of TensorFlow."""
    import sys
    import types

    with np.load(simclr_file(tmp_path / "expected.npz", draw_layers())) as file:
        arrays = {name: file[name] for name in file.files}
    slots = {f"{name}/Momentum": array for name, array in arrays.items() if name.endswith("kernel")}

    class Reader:
        def __init__(self, path):
            assert path.startswith("ResNet50_1x/model.ckpt")

        def get_variable_to_shape_map(self):
            return {name: list(np.shape(array)) for name, array in (arrays | slots).items()}

        def get_tensor(self, name):
            return arrays[name]

    train = types.SimpleNamespace(load_checkpoint=Reader)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(train=train))
    monkeypatch.chdir(tmp_path)
    exec(lines_of(1), {})
    loaded, expected = (load_pretrained(str(tmp_path / name)) for name in ("simclr.npz", "expected.npz"))
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)
