"""ResNets of torchvision, timm and the self-supervised repositories: parity, their heads, those that are refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax import models
from ssl_jax.interop import load_pretrained
from ssl_jax.interop.resnet import to_torchvision
from ssl_jax.methods.clustering import swav
from ssl_jax.methods.contrastive import moco_v2, moco_v3
from ssl_jax.methods.distillation import simsiam
from ssl_jax.methods.redundancy import barlow, vicreg
from ssl_jax.models import heads
from tests.interop.parity import LIMIT, draw_images, randomize
from tests.models.fill import random_variables

TINY = {"width": 1 / 16}


def tiny_encoder():
    """A ResNet-18 with 32 features and its arrays in torchvision's names."""
    network = models.build("resnet18", **TINY)
    params, state = random_variables(network, jnp.zeros((1, 32, 32, 3)))
    positive = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.5, state)
    return network, to_torchvision(network, params, positive)


@pytest.mark.long
@pytest.mark.parametrize(("library", "name"), [("timm", "resnet18"), ("torchvision", "resnet50")])
@pytest.mark.filterwarnings("default")
def test_parity_with_timm_and_torchvision(library, name, tmp_path):
    torch, module = pytest.importorskip("torch"), pytest.importorskip(library)
    torch.manual_seed(0)
    build = module.create_model if library == "timm" else getattr(module.models, name)
    model = randomize(build(name) if library == "timm" else build())
    file = tmp_path / "model.pth"
    torch.save(model.state_dict(), file)
    loaded = load_pretrained(str(file))
    assert loaded.network.config["name"] == name

    def theirs(pixels):
        layers = (model.conv1, model.bn1, torch.relu, model.maxpool)
        for layer in (*layers, model.layer1, model.layer2, model.layer3, model.layer4):
            pixels = layer(pixels)
        return pixels.mean((2, 3)), pixels.permute(0, 2, 3, 1)

    images = draw_images(56, 40)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = theirs(pixels)
    for output, value in zip(("features", "tokens"), expected, strict=True):
        apply = jax.jit(loaded.network.apply, static_argnames="output")
        found, _ = apply(loaded.params, loaded.state, images, output=output)
        assert_relative(found, value.numpy())
    # In float32 some of a million ReLUs are so near to their kink that rounding decides about their gradient.
    model.double()
    pixels = pixels.double().requires_grad_()
    weights = np.random.default_rng(0).standard_normal((2, loaded.network.features))
    (theirs(pixels)[0] * torch.from_numpy(weights)).sum().backward()
    with jax.enable_x64(True):
        network = models.build(**{**loaded.network.config, "dtype": "float64"})
        params, state = jax.tree.map(
            lambda a: jnp.asarray(a, jnp.float64), (dict(loaded.params), dict(loaded.state))
        )

        def scalar(x, params, state):
            return jnp.sum(weights * network.apply(params, state, x)[0])

        gradient = jax.jit(jax.grad(scalar))(jnp.asarray(images, jnp.float64), params, state)
    assert_relative(gradient, pixels.grad.numpy().transpose(0, 2, 3, 1), limit=1e-10)
    model.float()
    written = to_torchvision(loaded.network, loaded.params, loaded.state)
    given = {n: a.numpy() for n, a in model.state_dict().items() if not n.startswith("fc.")}
    assert written.keys() == given.keys()
    for key, array in written.items():
        np.testing.assert_array_equal(array, given[key], err_msg=key)


def assert_relative(found, expected, *, limit=LIMIT):
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit * np.abs(expected).max())


def bias_free(torch, sizes, *, affine_end=None, last_bias=False):
    """Linear layers without bias, BatchNorm and ReLU between them, as in most of the heads."""
    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(torch.nn.Linear(inputs, outputs, bias=last and last_bias))
        if not last:
            layers += [torch.nn.BatchNorm1d(outputs), torch.nn.ReLU()]
        elif affine_end is not None:
            layers.append(torch.nn.BatchNorm1d(outputs, affine=affine_end))
    return torch.nn.Sequential(*layers)


def checkpoints(torch):
    """Torch's heads of each repository, the layout of its file, our head and the method that has it."""
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    no_bias = {"hidden_bias": False, "last_bias": False}
    with_bias = torch.nn.Sequential(linear(32, 16), torch.nn.BatchNorm1d(16), relu(), linear(16, 8))
    vicreg_projector = torch.nn.Sequential(
        *(linear(32, 16), torch.nn.BatchNorm1d(16), relu()),
        *(linear(16, 16), torch.nn.BatchNorm1d(16), relu()),
        linear(16, 16, bias=False),
    )
    simsiam_fc = bias_free(torch, (32, 16, 16, 16), affine_end=False, last_bias=True)
    return {
        "moco_v1": (
            {"projector": ("module.encoder_q.fc", linear(32, 8), heads.mlp((8,)))},
            lambda encoder: moco_v2.build(encoder, projector_layers=1, projection=8, queue_size=12),
            "state_dict",
        ),
        "moco_v2": (
            {
                "projector": (
                    "module.encoder_q.fc",
                    torch.nn.Sequential(linear(32, 32), relu(), linear(32, 8)),
                    heads.mlp((32, 8), hidden_norm="none"),
                )
            },
            lambda encoder: moco_v2.build(encoder, projection=8, queue_size=12),
            "state_dict",
        ),
        "moco_v3": (
            {
                "projector": (
                    "module.base_encoder.fc",
                    bias_free(torch, (32, 16, 8), affine_end=False),
                    heads.mlp((16, 8), last_norm="batch_no_affine", **no_bias),
                ),
                "predictor": (
                    "module.predictor",
                    bias_free(torch, (8, 16, 8)),
                    heads.mlp((16, 8), **no_bias),
                ),
            },
            lambda encoder: moco_v3.build(encoder, hidden_dim=16, projection=8),
            "state_dict",
        ),
        "simsiam": (
            {
                "projector": (
                    "module.encoder.fc",
                    simsiam_fc,
                    heads.mlp((16, 16, 16), last_norm="batch_no_affine", **no_bias),
                ),
                "predictor": (
                    "module.predictor",
                    bias_free(torch, (16, 8, 16), last_bias=True),
                    heads.mlp((8, 16), hidden_bias=False),
                ),
            },
            lambda encoder: simsiam.build(encoder, heads=simsiam.Heads(projection=16, predictor_width=8)),
            "state_dict",
        ),
        "swav": (
            {"projector": ("module.projection_head", with_bias, heads.mlp((16, 8)))},
            lambda encoder: swav.build(encoder, prototypes=12, projector_width=16, projection=8),
            "",
        ),
        "barlow": (
            {
                "projector": (
                    "module.projector",
                    bias_free(torch, (32, 16, 16, 16)),
                    heads.mlp((16, 16, 16), **no_bias),
                )
            },
            lambda encoder: barlow.build(encoder, projector_width=16, projection=16),
            "model",
        ),
        "vicreg": (
            {"projector": ("module.projector", vicreg_projector, heads.mlp((16, 16, 16), **no_bias))},
            lambda encoder: vicreg.build(encoder, projector_width=16, projection=16),
            "model",
        ),
    }


ENCODERS = {
    "moco_v1": "module.encoder_q.",
    "moco_v2": "module.encoder_q.",
    "moco_v3": "module.base_encoder.",
    "simsiam": "module.encoder.",
    "swav": "module.",
    "barlow": "module.backbone.",
    "vicreg": "module.backbone.",
}
BESIDE = {
    "moco_v1": {"module.queue": (8, 12), "module.queue_ptr": ()},
    "moco_v2": {"module.queue": (8, 12), "module.queue_ptr": ()},
    "swav": {"module.prototypes.weight": (12, 8)},
    "barlow": {"module.bn.running_mean": (16,), "module.bn.running_var": (16,)},
}


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_heads_of_a_training_checkpoint_are_those_of_our_method(name, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network, arrays = tiny_encoder()
    found, method, container = checkpoints(torch)[name]
    tensors = {f"{ENCODERS[name]}{n}": torch.from_numpy(np.array(a)) for n, a in arrays.items()}
    random = np.random.default_rng(0)
    for key, shape in BESIDE.get(name, {}).items():
        tensors[key] = (
            torch.tensor([5]) if key.endswith("ptr") else torch.from_numpy(random.normal(size=shape)).float()
        )
    for prefix, module, _ in found.values():
        tensors |= {f"{prefix}.{n}": a.clone() for n, a in randomize(module).state_dict().items()}
    if "moco_v" in name:
        momentum = {
            "module.encoder_q.": "module.encoder_k.",
            "module.base_encoder.": "module.momentum_encoder.",
        }
        prefix = ENCODERS[name]
        tensors |= {
            n.replace(prefix, momentum[prefix]): a + 1 for n, a in tensors.items() if n.startswith(prefix)
        }
    torch.save({container: tensors, "epoch": 3} if container else tensors, tmp_path / "checkpoint.pth.tar")

    loaded = load_pretrained(str(tmp_path / "checkpoint.pth.tar"))
    again = to_torchvision(loaded.network, loaded.params, loaded.state)
    for key, array in again.items():
        np.testing.assert_array_equal(array, arrays[key], err_msg=key)
    shapes = jax.eval_shape(
        method(network).init, jax.random.key(0), {"views": (jnp.zeros((2, 2, 32, 32, 3)),)}
    )
    online = shapes[1].get("online", shapes[1])
    features = random.normal(size=(5, 32)).astype(np.float32)
    for head, (_, module, ours) in found.items():
        params, state = loaded.heads[head]
        as_in_method = (shapes[0][head], online[head])
        assert jax.tree.map(jnp.shape, (params, state)) == jax.tree.map(jnp.shape, as_in_method), head
        given = features if head == "projector" else features[:, : next(module.parameters()).shape[1]]
        expected = module(torch.from_numpy(given)).detach().numpy()
        outputs = ours.apply(params, state, given)[0]
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
    if "queue" in shapes[1]:
        queue = loaded.heads["queue"][1]
        assert jax.tree.map(jnp.shape, queue) == jax.tree.map(jnp.shape, shapes[1]["queue"])
        np.testing.assert_array_equal(queue.items, tensors["module.queue"].numpy().T)
        assert queue.pointer == 5
    if name == "swav":
        assert loaded.heads["prototypes"][0].shape == shapes[0]["prototypes"].shape
        np.testing.assert_array_equal(
            loaded.heads["prototypes"][0], tensors["module.prototypes.weight"].numpy()
        )


def save(arrays, tmp_path):
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def test_a_classifier_is_no_projector(tmp_path):
    _, arrays = tiny_encoder()
    classifier = {"fc.weight": np.ones((10, 32), np.float32), "fc.bias": np.ones(10, np.float32)}
    loaded = load_pretrained(save({**arrays, **classifier}, tmp_path))
    assert loaded.network.config["width"] == 1 / 16
    assert not loaded.heads


def test_centroids_of_several_clusterings_are_one_array(tmp_path):
    _, arrays = tiny_encoder()
    rows = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    several = {f"prototypes.prototypes{i}.weight": rows[i] for i in range(2)}
    loaded = load_pretrained(save({f"module.{n}": a for n, a in {**arrays, **several}.items()}, tmp_path))
    np.testing.assert_array_equal(loaded.heads["centroids"][1], rows)


def test_other_repositories_prefixes_are_taken_off(tmp_path):
    """PixPro's file has the momentum encoder beside, DenseCL's a neck of two kinds of projector."""
    _, arrays = tiny_encoder()
    pixpro = {f"model.module.encoder.{n}": a for n, a in arrays.items()}
    pixpro |= {f"model.module.encoder_k.{n}": np.zeros_like(a) for n, a in arrays.items()}
    pixpro["model.module.projector.linear1.weight"] = np.ones((8, 32, 1, 1), np.float32)
    densecl = {f"state_dict.backbone.{n}": a for n, a in arrays.items()}
    densecl["state_dict.neck.mlp2.0.weight"] = np.ones((8, 32, 1, 1), np.float32)
    for checkpoint in (pixpro, densecl):
        loaded = load_pretrained(save(checkpoint, tmp_path))
        np.testing.assert_array_equal(loaded.params["bn1"]["scale"], arrays["bn1.weight"])


def change(arrays, **changes):
    return {**arrays, **{name.replace("__", "."): array for name, array in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1__0__weight": (4, 3, 3, 3)}, r"stem='three convolutions'.*resnet50d"),
        ({"layer1__0__conv2__weight": (8, 4, 3, 3)}, r"layer1\.0\.conv2\.weight=.*ResNeXt.*wide_resnet50_2"),
        ({"layer1__0__se__fc1__weight": (2, 4, 1, 1)}, r"nearest is ResNet.*has layer1\.0\.se\.fc1\.weight"),
        ({"layer1__2__conv1__weight": (4, 4, 3, 3)}, r"blocks=\(3, 2, 2, 2\): allowed is \(2, 2, 2, 2\)"),
        ({"layer3__1__bn2__bias": (3,)}, r"layer3\.1\.bn2\.bias has the shape \(3,\)"),
    ],
)
def test_resnets_of_another_kind_are_refused_with_the_reason(changes, message, tmp_path):
    _, arrays = tiny_encoder()
    changed = change(arrays, **{name: np.zeros(shape, np.float32) for name, shape in changes.items()})
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(save(changed, tmp_path))
    assert "\n" not in str(error.value)


def test_what_torchvision_has_not_is_not_written():
    network = models.build("resnet18", sobel=True, **TINY)
    with pytest.raises(ValueError, match=r"encoder\.sobel=True"):
        to_torchvision(network, {}, {})
