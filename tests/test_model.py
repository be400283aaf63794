"""``ssl_jax.load``: an encoder for use, on images in every form that people have them."""

import gc
import io
import json
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import ssl_jax
from ssl_jax import models
from ssl_jax.cli.embed import embed_images
from ssl_jax.cli.export import export_encoder, export_pretrained
from ssl_jax.cli.pretrain import pretrain
from ssl_jax.config import build
from ssl_jax.config.load import load_config
from ssl_jax.data.open import open_source
from ssl_jax.models.serialize import save_encoder
from ssl_jax.models.torch_names_vit import vit_to_torch
from ssl_jax.report.attention import head_maps

SIDE = 16


def random_like(tree, seed):
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return treedef.unflatten(
        [jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves]
    )


def write_encoder(folder, *, channels=3, **options):
    options = {
        "name": "vit_micro",
        "width": 16,
        "depth": 2,
        "heads": 2,
        "patch": 4,
        "image_size": SIDE,
    } | options
    network = models.build(**options)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, channels)))
    params = random_like(params, 1)
    facts = {"image_shape": [SIDE, SIDE, channels], "mean": [0.4] * channels, "std": [0.2] * channels}
    facts |= {"method": "simclr", "step": 7}
    folder.mkdir(exist_ok=True)
    save_encoder(folder / "encoder.safetensors", network, params, state, metadata=facts)
    return network, params, state


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return folder, write_encoder(folder)


@pytest.fixture(scope="module")
def model(encoder):
    return ssl_jax.load(encoder[0])


def picture(seed, height=SIDE, width=SIDE, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_features_patches_and_attention_are_those_of_the_network_on_normalised_images(encoder, model):
    network, params, state = encoder[1]
    images = np.stack([picture(k) for k in range(3)])
    inputs = (images / np.float32(255) - np.float32(0.4)) / np.float32(0.2)
    features, tokens = (network.apply(params, state, inputs, **o)[0] for o in ({}, {"output": "tokens"}))
    np.testing.assert_allclose(model.embed(images), features, rtol=1e-5, atol=1e-5)
    patches = model.patches(images)
    assert patches.shape == (3, 4, 4, 16)
    np.testing.assert_allclose(patches[:, 2, 1], tokens[:, 1 + 2 * 4 + 1], rtol=1e-5, atol=1e-5)
    maps = model.attention(images)
    np.testing.assert_allclose(maps, head_maps(network, params, state, inputs), rtol=1e-5, atol=1e-6)
    assert (maps.sum((2, 3)) <= 1 + 1e-5).all()


def test_every_form_of_the_same_images_gives_the_same_features(model, tmp_path):
    images = [picture(k) for k in range(3)]
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
    paths = sorted(tmp_path.glob("*.png"))
    expected = model.embed(np.stack(images))
    forms = {
        "list of arrays": images,
        "generator": (image for image in images),
        "floats": np.stack(images) / 255,
        "jax": jnp.asarray(np.stack(images)),
        "16 bit": np.stack(images).astype(np.uint16) * 257,
        "Pillow": [Image.fromarray(image) for image in images],
        "paths": paths,
        "texts": [str(path) for path in paths],
        "array of texts": np.array([str(path) for path in paths]),
        "folder": tmp_path,
        "bytes": [path.read_bytes() for path in paths],
        "open files": [io.BytesIO(path.read_bytes()) for path in paths],
        "source": open_source(f"folder:{tmp_path}"),
        "mixed": [images[0], paths[1], Image.fromarray(images[2])],
        "nested lists": [image.tolist() for image in (images[0] / 255, images[1] / 255, images[2] / 255)],
    }
    for name, form in forms.items():
        found = model.embed(form)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    first = model.embed(np.stack(images).transpose(0, 3, 1, 2), axes="nchw")
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-5)
    file = io.BytesIO(paths[0].read_bytes())
    for one in (images[0], paths[0], str(paths[0]), Image.fromarray(images[0]), paths[0].read_bytes(), file):
        np.testing.assert_allclose(model.embed(one), expected[:1], rtol=1e-5, atol=1e-5)


def test_mixed_sizes_depths_and_channels_are_handled_as_the_loader_does(model, tmp_path):
    colour, gray = picture(0, 40, 30), picture(1, 20, 33, 1)
    clear = np.concatenate([picture(2, 24, 24), np.zeros((24, 24, 1), np.uint8)], axis=-1)
    white = np.full((24, 24, 3), 255, np.uint8)
    found = model.embed([colour, gray, gray[..., 0], clear, Image.fromarray(clear), clear / 255, white])
    np.testing.assert_allclose(found[1], found[2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], model.embed(np.repeat(gray, 3, axis=-1))[0], rtol=1e-5, atol=1e-5)
    for row in (3, 4, 5):
        np.testing.assert_allclose(found[row], found[6], rtol=1e-5, atol=1e-5)
    turned = Image.fromarray(colour)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = model.embed(np.rot90(colour, -1).copy())
    for form in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        np.testing.assert_allclose(model.embed(form), upright, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_the_size_of_batches_and_what_fills_them_up_change_nothing(model, count):
    images = [picture(k, 20, 20) for k in range(count)]
    whole = model.embed(images)
    assert whole.shape == (count, 16)
    np.testing.assert_allclose(model.embed(images, batch_size=4), whole, rtol=1e-5, atol=1e-5)


def test_no_more_images_are_held_than_a_batch(model):
    kept = []

    def images():
        for k in range(24):
            image = picture(k, 40, 40)
            kept.append(weakref.ref(image))
            assert (
                sum(reference() is not None for reference in kept) <= 9
            )  # two batches and the one in the hand
            yield image

    assert model.embed(images(), batch_size=4).shape == (24, 16)
    gc.collect()
    assert not any(reference() is not None for reference in kept)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images: there is none"),
        (np.zeros((0, 8, 8, 3)), "at least one image"),
        ("missing.png", "missing.png: cannot be opened: No such file"),
        ([np.zeros((8, 8, 3)), "missing.png"], "missing.png: cannot be opened"),
        (np.full((8, 8, 3), 255.0), "floats from 255 to 255: allowed are 0 to 1; max_value=255 scales them"),
        ([np.zeros((8, 8)), np.full((8, 8), -1.0)], r"images\[1\]: floats from -1 to -1"),
        (np.full((8, 8, 3), np.nan), "NaN or infinite"),
        (np.zeros((8, 8, 3), np.int64) + 300, "dtype='int64' with values from 300 to 300"),
        (np.zeros((2, 3, 32, 32)), "channels seem to come first: give axes='nchw'"),
        (np.zeros((3, 32, 32)), "channels seem to come first: give axes='chw'"),
        (np.zeros((2, 8, 8, 13)), "13 channels where the source has 3"),
        (b"not an image", "not an image of a known format"),
        (7, "images are of type int: allowed are paths"),
        ([7], r"images\[0\] is of type int"),
        (io.StringIO("text"), "images gives str when it is read: open the file in mode 'rb'"),
        ([np.zeros((2, 8, 8, 3))], r"images\[0\]='2 images': allowed is one image"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_image_is_one_line_that_names_it(model, images, message):
    with pytest.raises(ValueError, match=message) as caught:
        model.embed(images)
    assert "\n" not in str(caught.value)


def test_values_without_a_known_range_are_scaled_on_request(model):
    image = picture(0)
    scaled = model.embed(image.astype(np.float32) * 16, max_value=4080)
    np.testing.assert_allclose(scaled, model.embed(image), rtol=1e-4, atol=1e-5)
    assert model.embed(image.astype(np.float32) - 100, percentiles=(1, 99)).shape == (1, 16)


def test_a_folder_without_images_and_one_with_a_broken_file_are_named(model, tmp_path):
    with pytest.raises(ValueError, match="there is no image in this folder"):
        model.embed(tmp_path)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"cut\.png: .*give a list of the paths that can be read, or use"):
        model.embed(tmp_path)


def test_any_number_of_channels_and_encoders_without_attention(tmp_path):
    write_encoder(tmp_path / "many", channels=13)
    many = ssl_jax.load(tmp_path / "many")
    assert many.embed(np.zeros((20, 20, 13))).shape == (1, 16)
    write_encoder(tmp_path / "gray", channels=1)
    gray = ssl_jax.load(tmp_path / "gray" / "encoder.safetensors")
    luma = np.full((8, 8, 3), 0.5, np.float32)
    np.testing.assert_allclose(gray.embed(luma), gray.embed(luma[..., :1]), rtol=1e-4, atol=1e-5)
    network = models.build("convnet", widths=(8,), grid=2)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    facts = {"image_shape": [8, 8, 1], "mean": [0.5], "std": [0.5]}
    save_encoder(tmp_path / "encoder.safetensors", network, *variables, metadata=facts)
    convnet = ssl_jax.load(tmp_path)
    assert convnet.patches(np.zeros((3, 9, 9, 1))).ndim == 4
    with pytest.raises(ValueError, match="convnet has no attention: allowed is a ViT"):
        convnet.attention(np.zeros((8, 8)))


def test_what_a_model_does_to_images_is_stated(model):
    text = repr(model)
    for fact in (
        "vit_micro",
        "16 features",
        "3 channels",
        "size=(16, 16)",
        "crop_ratio=1.0",
        "0.4",
        "step=7",
    ):
        assert fact in text
    assert model.preprocessing.mean == (0.4, 0.4, 0.4) and model.channels == 3 and model.features == 16


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [("nowhere", "latest", "nowhere"), ("", "latest", "file"), ("nowhere.safetensors", "latest", "nowhere")],
)
def test_what_cannot_be_loaded_is_one_line(name, step, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        ssl_jax.load(name, step=step)
    assert "\n" not in str(caught.value)


def test_steps_are_those_of_runs(encoder):
    with pytest.raises(ValueError, match="step='best': allowed is latest"):
        ssl_jax.load(encoder[0], step="best")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps on a folder of photos of mixed sizes, one of them gray."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    for k in range(12):
        image = picture(k, 20 + k, 30)
        Image.fromarray(image if k else image[..., 0]).save(folder / "photos" / f"{k:02}.png")
    changes = {
        "data.source": f"folder:{folder / 'photos'}",
        "encoder.name": "vit_micro",
        "views.size": SIDE,
        "batch_size": 8,
    }
    sizes = {"encoder.width": 16, "encoder.depth": 1, "encoder.heads": 2, "encoder.patch": 4}
    config = build.to_dict(load_config("simclr:folder,smoke", changes | sizes))
    pretrain(config, folder / "run")
    return folder


@pytest.mark.long
def test_a_run_and_its_export_give_the_features_that_embed_writes(run):
    embed_images(run / "run", f"folder:{run / 'photos'}", run / "features.npz")
    export_encoder(run / "run", run / "exported")
    with np.load(run / "features.npz") as written:
        expected, names = written["features"], written["file_name"]
    files = [run / "photos" / str(name) for name in names]
    model = ssl_jax.load(run / "run")
    np.testing.assert_allclose(model.embed(files), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.embed(run / "photos"), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ssl_jax.load(run / "exported").embed(files), expected, rtol=1e-5, atol=1e-6)
    assert "method=simclr" in repr(model) and "step=4" in repr(model)
    assert ssl_jax.load(str(run / "run"), step=2).provenance["step"] == 2
    with pytest.raises(ValueError, match="step"):
        ssl_jax.load(run / "run", step=3)


def test_a_folder_of_a_run_without_a_checkpoint_says_so(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"written_by": "ssl_jax 0.2"}))
    with pytest.raises(ValueError, match="no configuration of a run"):
        ssl_jax.load(tmp_path)


def test_weights_of_others_are_prepared_as_their_file_says_also_after_an_export(tmp_path):
    """Saved in timm's names with timm's config: squashed, bilinear, another mean; then as a file of this library."""
    network = models.build("vit_base", width=64, depth=1, heads=1, patch=8, image_size=32)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params = random_like(params, 3)
    folder = tmp_path / "hub"
    folder.mkdir()
    safetensors.numpy.save_file(vit_to_torch(params, state, network), folder / "model.safetensors")
    said = {"input_size": [3, 32, 32], "crop_pct": 0.8, "crop_mode": "squash", "interpolation": "bilinear"}
    said |= {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    config = {"architecture": "vit_base_patch16_224", "pretrained_cfg": said, "model_args": {"num_heads": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    export_pretrained(str(folder), tmp_path / "exported")

    colour = picture(5, 50, 90)
    squashed = np.asarray(Image.fromarray(colour).resize((40, 40), Image.Resampling.BILINEAR))[4:36, 4:36]
    inputs = (squashed / np.float32(255) - np.float32(said["mean"])) / np.float32(said["std"])
    expected, _ = network.apply(params, state, inputs[None])
    for name in (folder, tmp_path / "exported"):
        model = ssl_jax.load(name)
        assert model.preprocessing.resize == "squash" and model.channels == 3
        np.testing.assert_allclose(
            model.embed(colour), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )
        floats = model.embed(colour / 255, batch_size=1)
        np.testing.assert_allclose(floats, expected, rtol=0, atol=0.05 * np.abs(expected).max())
