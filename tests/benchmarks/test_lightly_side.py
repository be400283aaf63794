"""lightly's side against ours: one unit of every loss, one schedule, one encoder. Needs the extra ``peers``."""

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import peers
from benchmarks.torch_vision import import_torchvision
from ssl_jax import models
from ssl_jax.config import build
from ssl_jax.losses.contrastive import nt_xent
from ssl_jax.losses.distillation import byol_loss, dino_loss
from ssl_jax.models.torch_names_vit import vit_to_torch

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def side():
    for name in ("torch", "torchvision", "timm", "lightly"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs the extra peers: {name}")
    import_torchvision()
    return importlib.import_module("benchmarks.lightly_side")


def config_of(method, recipe="color32", **changes):
    config = peers.run_config(peers.PeerRun("lightly", recipe, method, 0), quick=True)
    return build.with_changes(config, changes)


def images_of(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("recipe", peers.RECIPES)
@pytest.mark.parametrize("method", peers.METHODS)
def test_every_method_trains_on_both_recipes(side, method, recipe):
    trained = side.train(config_of(method, recipe), images_of(64), workers=0)
    assert len(trained.losses) == 4
    assert np.isfinite(trained.losses).all()
    features = trained.encode(images_of(3))
    assert features.dtype == np.float32
    assert features.std(axis=0).max() > 0


def test_two_runs_of_a_seed_are_alike(side):
    first, second = (side.train(config_of("simclr"), images_of(64), workers=0) for _ in range(2))
    assert first.losses == second.losses


def test_the_convolutional_encoder_is_ours(side):
    torch = side.torch
    network = models.build("convnet", widths=(4, 8), grid=2)
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    theirs = side.build_encoder({**network.config, "widths": (4, 8)})
    for i, (conv, norm) in enumerate(zip(theirs.convs, theirs.norms, strict=True)):
        block = params[f"block_{i}"]
        kernel = np.asarray(block["conv"]["kernel"]).transpose(3, 2, 0, 1)
        conv.weight.data = torch.tensor(kernel)
        assert float(conv.weight.std()) == pytest.approx((2 / (9 * len(kernel))) ** 0.5, rel=0.2)
        norm.weight.data = torch.tensor(np.asarray(block["norm"]["scale"]))
    assert sum(p.numel() for p in theirs.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(params))
    images = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    for train in (True, False):
        ours, state = network.apply(params, state, jnp.asarray(images), train=train)
        theirs.train(train)
        np.testing.assert_allclose(ours, theirs(pixels).detach().numpy(), atol=2e-5)


def test_the_vit_is_ours(side):
    options = {"width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 32, "pool": "mean"}
    network = models.build("vit_micro", **options, position="sincos")
    params, state = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    theirs = side.build_encoder(network.config)
    arrays = {
        name: side.torch.tensor(np.asarray(array))
        for name, array in vit_to_torch(params, state, network).items()
    }
    left = theirs.tokens.vit.load_state_dict(arrays, strict=False)
    assert set(left.missing_keys) <= {"pos_embed"}
    assert not left.unexpected_keys
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    ours, _ = network.apply(params, state, jnp.asarray(images))
    found = theirs.eval()(side.torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(ours, found, atol=1e-4)


def test_losses_have_our_unit(side):
    torch = side.torch
    rows = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    a, b, c, d = map(torch.from_numpy, rows)
    method = config_of("simclr")["method"]
    found = side.losses.NTXentLoss(temperature=method["temperature"])(a, b)
    ours = nt_xent(jnp.asarray(rows[0]), jnp.asarray(rows[1]), temperature=method["temperature"])
    assert float(found) == pytest.approx(float(ours), rel=1e-5)
    cosine = side.losses.NegativeCosineSimilarity()
    ours = byol_loss(jnp.asarray(rows[0]), jnp.asarray(rows[3])) + byol_loss(
        jnp.asarray(rows[1]), jnp.asarray(rows[2])
    )
    assert float(4.0 + 2.0 * (cosine(a, d) + cosine(b, c))) == pytest.approx(float(ours), rel=1e-5)
    student, teacher = np.stack(rows[:3], 1), np.stack(rows[2:], 1)
    criterion = side.losses.DINOLoss(8, teacher_temp=0.05, student_temp=0.2)
    found = criterion(list(torch.from_numpy(teacher).unbind(1)), list(torch.from_numpy(student).unbind(1)))
    ours = dino_loss(
        *map(jnp.asarray, (student, teacher)),
        jnp.zeros(8),
        student_temperature=0.2,
        teacher_temperature=0.05,
    )
    assert float(found) == pytest.approx(float(ours), rel=1e-5)


def test_schedules_are_ours_but_for_the_first_step(side):
    config = config_of("dino", steps=40)
    config = build.with_changes(
        config, {"optimizer.steps": 40, "optimizer.warmup_steps": 10, "method.teacher.decay_steps": 40}
    )
    optimizer = build.optimizer(config)
    # lightly's warm-up skips the rate 0 of ours, its cosines reach their end a step earlier.
    ours = [float(optimizer.learning_rate(step + (step < 10))) for step in range(40)]
    theirs = [side.learning_rate(config, step) for step in range(40)]
    np.testing.assert_allclose(theirs, ours, atol=0.06 * max(ours))
    decays = [float(optimizer.weight_decay(step)) for step in range(40)]
    np.testing.assert_allclose([side.weight_decay(config, step) for step in range(40)], decays, atol=0.01)
    shares = [side.teacher_share(config, step) for step in (0, 39)]
    assert shares == [pytest.approx(0.99), pytest.approx(1.0)]


def test_the_batches_are_ours(side):
    from ssl_jax.data.loader import stream
    from ssl_jax.data.sources import ArraySource

    images = images_of(20)
    config = config_of("simclr", steps=3)
    order = side.order_of(config, 20)
    view = build.method(config).views
    with stream(ArraySource(images), batch_size=8, seed=0, views=view) as batches:
        for batch, indices in zip(batches, order, strict=False):
            assert np.array_equal(batch["image"], images[indices])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method.predictor": "mlp"}, "predictor"),
        ({"views.rotate_prob": 0.5}, "rotate_prob"),
        ({"optimizer.schedule": "constant"}, "schedule"),
        ({"encoder.norm": "group"}, "norm"),
        ({"encoder.name": "resnet18"}, "resnet18"),
        ({"method.name": "swav"}, "swav"),
    ],
)
def test_what_lightly_does_not_have_is_refused(side, changes, words):
    with pytest.raises(ValueError, match=words):
        side.train(config_of("dino", **changes), images_of(16), workers=0)
