"""ConvNeXts of timm, Meta and transformers: parity, round trips, those that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax import models
from ssl_jax.interop import load_pretrained
from ssl_jax.interop.convnext import NAMES_META, to_timm, to_transformers
from ssl_jax.interop.names import translate_back
from ssl_jax.models.torch_names import convnext_to_torch
from tests.interop.parity import assert_parity, draw_images, randomize
from tests.models.fill import random_variables

SIZE = {"depths": (1, 1, 2, 1), "widths": (8, 8, 12, 16)}
SIZES = ((64, 64), (40, 72))


def timm_map(model):
    def theirs(pixels):
        maps = model.forward_features(pixels)
        return model.forward_head(maps, pre_logits=True), maps.permute(0, 2, 3, 1)

    return theirs


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "options",
    [{}, {"use_grn": True, "ls_init_value": None}, {"conv_mlp": True}, {"patch_size": 1, "in_chans": 4}],
    ids=["v1", "v2", "conv_mlp", "small_stem"],
)
def test_parity_with_timm_and_back(options, tmp_path):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    torch.manual_seed(0)
    plain = {"depths": SIZE["depths"], "dims": SIZE["widths"]}
    model = randomize(timm.create_model("convnext_tiny", **plain, **options))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    loaded = load_pretrained(str(tmp_path / "model.pth"))
    small = "patch_size" in options
    for size in ((9, 16),) if small else SIZES[bool(options) :]:
        assert_parity(loaded, timm_map(model), draw_images(*size, channels=4 if small else 3))
    written = to_timm(loaded.network, loaded.params, loaded.state)
    given = {n: a.numpy() for n, a in model.state_dict().items() if not n.startswith("head.fc.")}
    assert written.keys() == given.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array.reshape(given[name].shape), given[name], err_msg=name)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["DINOv3ConvNext", "ConvNext", "ConvNextV2"])
def test_parity_with_transformers_and_back(kind, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        depths=list(SIZE["depths"]), hidden_sizes=list(SIZE["widths"])
    )
    model = randomize(getattr(transformers, f"{kind}Model")(config))
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))

    def theirs(pixels):
        outputs = model(pixels)
        tokens = outputs.last_hidden_state
        if kind != "DINOv3ConvNext":
            return outputs.pooler_output, tokens.permute(0, 2, 3, 1)
        height, width = pixels.shape[2] // 32, pixels.shape[3] // 32
        return outputs.pooler_output, tokens[:, 1:].reshape(len(tokens), height, width, -1)

    assert_parity(loaded, theirs, draw_images(*SIZES[1]))
    written = to_transformers(loaded.network, loaded.params, loaded.state)
    given = {n: a.numpy() for n, a in model.state_dict().items()}
    assert written.keys() == given.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, given[name], err_msg=name, strict=True)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["ConvNext", "ConvNextV2"])
def test_the_last_normalisation_of_transformers_has_an_epsilon_of_its_own(kind, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        depths=list(SIZE["depths"]), hidden_sizes=list(SIZE["widths"])
    )
    model = getattr(transformers, f"{kind}Model")(
        config
    ).eval()  # fresh: the mean of a map has little variance
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    assert loaded.network.config["last_norm_epsilon"] == config.layer_norm_eps == 1e-12
    assert_parity(loaded, lambda pixels: (model(pixels).pooler_output, None), draw_images(96, 128))
    assert load_pretrained(str(tmp_path), last_norm_epsilon=1e-3).network.config["last_norm_epsilon"] == 1e-3


@pytest.fixture(scope="module", params=[False, True], ids=["v1", "v2"])
def ours(request):
    """A ConvNeXt, its variables, and its arrays in Meta's names and layouts."""
    options = {"grn": True, "layer_scale": None} if request.param else {}
    network = models.build("convnext_tiny", **SIZE, **options)
    params, _ = random_variables(network, jnp.zeros((1, 32, 32, 3)))
    arrays = translate_back(convnext_to_torch(params), NAMES_META).arrays
    vectors = {n: a.reshape(1, 1, 1, -1) for n, a in arrays.items() if ".grn." in n}
    return network, params, {**arrays, **vectors}


def save(arrays, tmp_path):
    safetensors.numpy.save_file(
        {n: np.ascontiguousarray(a) for n, a in arrays.items()}, tmp_path / "model.safetensors"
    )
    return str(tmp_path / "model.safetensors")


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_file_of_meta_is_read_with_a_classifier_and_prefixes(ours, tmp_path):
    network, params, arrays = ours
    head = {"head.weight": np.ones((5, 16), np.float32), "head.bias": np.ones(5, np.float32)}
    loaded = load_pretrained(save({f"model.{n}": a for n, a in {**arrays, **head}.items()}, tmp_path))
    assert_same(loaded.params, params)
    assert loaded.network.config == network.config
    assert loaded.provenance["family"] == "Meta ConvNeXt"
    assert loaded.preprocessing.interpolation == "bicubic"


@pytest.mark.long
def test_names_of_meta_are_those_that_timm_reads(ours):
    """timm's own renaming of Meta's files is the oracle."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from timm.models.convnext import checkpoint_filter_fn

    network, params, arrays = ours
    grn = network.config["grn"]
    options = {"use_grn": True, "ls_init_value": None} if grn else {}
    model = timm.create_model(
        "convnext_tiny", depths=SIZE["depths"], dims=SIZE["widths"], num_classes=0, **options
    )
    renamed = checkpoint_filter_fn({n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}, model)
    written = to_timm(network, params, {})
    assert renamed.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, renamed[name].numpy(), err_msg=name)


def test_dinov3_normalises_tokens_and_has_its_norm_twice(ours, tmp_path):
    network, _, arrays = ours
    if network.config["grn"]:
        return
    twice = {f"norms.3.{leaf}": arrays[f"norm.{leaf}"] for leaf in ("weight", "bias")}
    loaded = load_pretrained(save({**arrays, **twice}, tmp_path))
    assert loaded.network.config["norm_tokens"]
    assert loaded.preprocessing.resize == "squash"
    old = {
        n.removeprefix("model."): a
        for n, a in to_transformers(loaded.network, loaded.params, loaded.state).items()
    }
    again = load_pretrained(save(old, tmp_path))
    assert again.provenance["family"] == "transformers DINOv3ConvNext"
    assert again.network.config == loaded.network.config
    assert_same(again.params, loaded.params)


def test_what_fcmae_trained_has_no_norm_and_gets_a_fresh_one(ours, tmp_path):
    _, params, arrays = ours
    loaded = load_pretrained(save({n: a for n, a in arrays.items() if not n.startswith("norm.")}, tmp_path))
    assert_same(loaded.params["stem_0"], params["stem_0"])
    assert loaded.params["norm"]["scale"].tolist() == [1.0] * 16
    assert loaded.params["norm"]["bias"].tolist() == [0.0] * 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.0.0.dwconv.weight": (8, 1, 5, 5)}, r"kernel_size=.*7 x 7"),
        ({"stages.2.3.pwconv1.bias": (48,)}, r"blocks of stage 2=\[0, 1, 3\]: allowed is numbered from 0"),
        ({"stages.2.1.norm.bias": (3,)}, r"stages\.2\.blocks\.1\.norm\.bias has the shape \(3,\)"),
        ({"stages.2.1.attn.bias": (3,)}, r"nearest is Meta ConvNeXt.*has stages\.2\.1\.attn\.bias"),
    ],
)
def test_convnexts_of_another_kind_are_refused_with_the_reason(changes, message, ours, tmp_path):
    _, _, arrays = ours
    zeros = {name: np.zeros(shape, np.float32) for name, shape in changes.items()}
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(save({**arrays, **zeros}, tmp_path))
    assert "\n" not in str(error.value)


def test_an_overlapping_stem_of_timm_is_refused(ours, tmp_path):
    network, params, _ = ours
    arrays = {**to_timm(network, params, {}), "stem.1.weight": np.zeros((8, 8, 3, 3), np.float32)}
    with pytest.raises(ValueError, match=r"stem\.1\.weight=\(8, 8, 3, 3\).*overlapping"):
        load_pretrained(save(arrays, tmp_path))


@pytest.mark.parametrize(
    ("options", "write", "message"),
    [
        ({"stem_patch": 2}, to_timm, r"encoder\.stem_patch=2"),
        ({"depths": (1, 1), "widths": (8, 8)}, to_timm, r"encoder\.depths=\[1, 1\].*4 stages"),
        ({"grn": True}, to_transformers, r"encoder\.layer_scale=1e-06: allowed is None with grn"),
        ({"norm_tokens": True, "stem_patch": 1}, to_transformers, r"encoder\.stem_patch=1: allowed is 4"),
    ],
)
def test_what_a_library_cannot_have_is_not_written(options, write, message):
    network = models.build("convnext_tiny", **{**SIZE, **options})
    params, state = random_variables(network, jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match=message):
        write(network, params, state)
