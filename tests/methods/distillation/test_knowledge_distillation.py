"""Distillation from a frozen teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax import models
from ssl_jax.augment import presets
from ssl_jax.methods.distillation import knowledge_distillation
from ssl_jax.methods.parts.dense_features import resample_grid
from ssl_jax.methods.parts.frozen_teacher import FrozenTeacher
from ssl_jax.models.serialize import save_encoder
from tests.methods.case import loss_of, method_of, start, zero_params_loss
from tests.methods.foreign import expected_pixels, loop_resample, save_foreign_vit

tiny = functools.partial(models.build, "convnet", widths=(8, 16), grid=1)
SAME = {"pairing": "same", "head_layers": 0}


def collapsed(case):
    """Predictions of 0 have cosine 0 with whatever the teacher says."""
    return zero_params_loss(case), 2.0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A teacher's file, and its params, with other numbers than a fresh network's."""
    network, path = tiny(), tmp_path_factory.mktemp("teacher") / "encoder.safetensors"
    params, state = network.init(jax.random.key(7), jnp.zeros((1, 28, 28, 1)))
    params = jax.tree.map(lambda x: x + 0.1, params)
    save_encoder(path, network, params, state, metadata={"mean": [0.5], "std": [2.0]})
    return str(path), params, state


def with_teacher(exported, **options):
    method = method_of("knowledge_distillation", teacher=exported[0], **options)
    return method, *start(method)


def test_the_weights_of_the_file_are_used_with_its_normalisation(exported):
    _, params, state = exported
    method, mine, kept, batch = with_teacher(exported, mode="feature", distance="mse", pairing="same")
    jax.tree.map(np.testing.assert_array_equal, kept["teacher"], FrozenTeacher(params, state))
    view = method.views[0]
    crops = batch["views"][0].reshape(-1, 28, 28, 1)
    pixels = crops * view.std[0] + view.mean[0]
    expected, _ = tiny().apply(params, state, (pixels - 0.5) / 2.0)
    zero = jax.tree.map(
        jnp.zeros_like, mine
    )  # predictions are 0, so the loss is the mean square of the teacher's features
    assert loss_of(method, zero, kept, batch)[0] == pytest.approx(float(jnp.mean(expected**2)), rel=1e-4)


@pytest.mark.parametrize("mode", ["feature", "similarity"])
def test_loss_is_zero_where_the_student_is_the_teacher(mode):
    options = {"mode": mode, "student_temperature": 0.1, "teacher_temperature": 0.1}
    method = method_of("knowledge_distillation", **SAME, **options)
    params, state, batch = start(method)
    state = {**state, "teacher": state["teacher"]._replace(params=params["encoder"])}
    loss, _, metrics = loss_of(method, params, state, batch)
    assert loss == pytest.approx(0.0, abs=1e-5)
    assert float(metrics["teacher_cosine"]) == pytest.approx(1.0, abs=1e-5)


def test_the_teacher_stays_as_it_is(exported):
    for method, params, state, batch in (
        with_teacher(exported),
        (m := method_of("knowledge_distillation"), *start(m)),
    ):
        _, moved, _ = loss_of(method, params, state, batch)
        after = method.after_update(params, moved, jnp.int32(0))
        jax.tree.map(np.testing.assert_array_equal, after["teacher"], state["teacher"])
        changed = jax.tree.map(lambda x, y: bool((x != y).any()), moved["online"], state["online"])
        assert any(jax.tree.leaves(changed))


def test_pairing_chooses_which_view_the_teacher_sees():
    same, other = (method_of("knowledge_distillation", pairing=p) for p in ("same", "other"))
    params, state, batch = start(same)
    view = batch["views"][0][:, :1]
    twice = {**batch, "views": (jnp.concatenate([view, view], axis=1),)}
    assert loss_of(same, params, state, twice)[0] == pytest.approx(loss_of(other, params, state, twice)[0])
    assert loss_of(same, params, state, batch)[0] != loss_of(other, params, state, batch)[0]


def test_similarities_to_a_queue_take_up_the_teacher_s_features(exported):
    method, params, state, batch = with_teacher(exported, mode="similarity", queue_size=40)
    loss, moved, metrics = loss_of(method, params, state, batch)
    assert loss > 0 and float(metrics["teacher_entropy"]) < float(metrics["student_entropy"])
    assert int(moved["queue"].pointer) == 32
    features = moved["queue"].items[:32]
    np.testing.assert_allclose(jnp.linalg.norm(features, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(moved["queue"].items[32:], state["queue"].items[32:])


def test_similarity_loss_is_that_of_the_formula():
    method = method_of("knowledge_distillation", mode="similarity", queue_size=0, **SAME)
    params, state, batch = start(method)
    loss, _, _ = loss_of(method, params, state, batch)
    crops, encoder = batch["views"][0].reshape(-1, 28, 28, 1), method.encoder

    def embed(params, state):
        x = np.asarray(encoder.apply(params, state, crops, train=True)[0], np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    teacher = embed(*state["teacher"])
    student = embed(params["encoder"], state["online"]["encoder"])
    logs = [
        s - np.log(np.exp(s).sum(1, keepdims=True))
        for s in (teacher @ teacher.T / 0.01, student @ teacher.T / 0.2)
    ]
    expected = 0.2**2 * (np.exp(logs[0]) * (logs[0] - logs[1])).sum(1).mean()
    assert loss == pytest.approx(expected, rel=1e-3)


def test_files_that_are_no_teacher_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        method_of("knowledge_distillation", teacher=str(tmp_path / "missing.safetensors"))
    noise, foreign = tmp_path / "noise.safetensors", tmp_path / "foreign.safetensors"
    noise.write_bytes(b"not a safetensors file")
    safetensors.numpy.save_file({"weight": np.zeros(3)}, str(foreign))
    for path in (noise, foreign):
        with pytest.raises(ValueError, match=rf"{path.name}.*experiments.export"):
            method_of("knowledge_distillation", teacher=str(path))


def test_a_teacher_of_other_channels_is_refused(exported):
    method = method_of("knowledge_distillation", teacher=exported[0])
    colour = {"views": (jnp.zeros((2, 2, 28, 28, 3)),)}
    with pytest.raises(ValueError, match=r"images of 3 channels; its .* has the shape"):
        jax.eval_shape(method.init, jax.random.key(0), colour)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "logit"}, "mode='logit'"),
        ({"distance": "l2"}, "distance='l2'"),
        ({"pairing": "cross"}, "pairing='cross'"),
        ({"queue_size": -1}, "queue_size=-1"),
        ({"head_layers": -1}, "head_layers=-1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("knowledge_distillation", **options)


def test_without_a_head_the_widths_have_to_agree(exported):
    with pytest.raises(ValueError, match="the student has 4 features, the teacher 16"):
        knowledge_distillation.build(tiny(widths=(4,)), teacher=exported[0], head_layers=0)


# Dense distillation.


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (8, 2), (1, 1)])
def test_patches_on_another_grid(grid):
    given = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    found = resample_grid(jnp.asarray(given), grid)
    expected = np.stack([loop_resample(one.astype(np.float64), *grid) for one in given])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return save_foreign_vit(tmp_path_factory.mktemp("teacher"), depth=1)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0), (2.0, 0.0)])
def test_the_dense_loss_is_that_of_the_formula(foreign, distance, weights):
    """A student with maps of 7 x 7 and a teacher that sees 16 pixels, hence 4 x 4 patches."""
    path, loaded = foreign
    method = method_of(
        "knowledge_distillation",
        mode="dense",
        pairing="same",
        teacher=path,
        distance=distance,
        head_layers=1,
        targets={"teacher_size": 16, "class_weight": weights[0], "patch_weight": weights[1]},
    )
    params, state, batch = start(method)
    loss, _, metrics = loss_of(method, params, state, batch)

    view = method.views[0]
    crops = batch["views"][0].reshape(-1, 28, 28, 1)
    pixels = expected_pixels(loaded, view, crops, 16)
    tokens = np.asarray(
        loaded.network.apply(loaded.params, loaded.state, pixels, output="tokens")[0], np.float64
    )
    grid = tokens[:, 1:].reshape(-1, 4, 4, 16)

    encoder = method.encoder
    maps = encoder.apply(params["encoder"], state["online"]["encoder"], crops, train=True, output="tokens")[0]
    maps = np.asarray(maps, np.float64)
    rows, columns = maps.shape[1:3]
    assert (rows, columns) != (4, 4)
    total, cosines = 0.0, []
    for name, student, teacher, weight in (
        ("head", maps.mean((1, 2)), tokens[:, 0], weights[0]),
        ("patch_head", maps, np.stack([loop_resample(one, rows, columns) for one in grid]), weights[1]),
    ):
        dense = jax.tree.map(lambda x: np.asarray(x, np.float64), params[name]["dense_0"])
        p = student @ dense["kernel"] + dense["bias"]
        cosines.append((unit(p) * unit(teacher)).sum(-1).mean())
        value = (
            (2 - 2 * (unit(p) * unit(teacher)).sum(-1))
            if distance == "cosine"
            else ((p - teacher) ** 2).mean(-1)
        )
        total += weight * value.mean()
    assert loss == pytest.approx(total, rel=1e-4)
    assert float(metrics["patch_cosine"]) == pytest.approx(cosines[1], abs=1e-4)
    mean = np.average(cosines, weights=weights)
    assert float(metrics["teacher_cosine"]) == pytest.approx(mean, abs=1e-4)


def test_a_vit_learns_from_the_class_token_and_patches_of_itself():
    """The teacher put in place of the student, without heads: the loss is 0 and so is its gradient."""
    encoder = models.build("vit_micro", width=16, depth=1, heads=2, patch=7, image_size=28)
    method = knowledge_distillation.build(encoder, views=presets.mae(size=28), mode="dense", head_layers=0)
    batch = {"views": (jax.random.normal(jax.random.key(0), (3, 1, 28, 28, 1)),)}
    params, state = method.init(jax.random.key(1), batch)
    state = {**state, "teacher": state["teacher"]._replace(params=params["encoder"])}
    loss = lambda p: method.loss(p, state, batch, jax.random.key(2), jnp.int32(0))[0]  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(params)
    assert value == pytest.approx(0.0, abs=1e-5)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-4


def test_the_teacher_may_be_a_checkpoint_of_others_in_every_mode(foreign):
    path, loaded = foreign
    for mode in ("feature", "similarity", "dense"):
        method = method_of("knowledge_distillation", mode=mode, pairing="same", teacher=path)
        params, state, batch = start(method)
        jax.tree.map(
            np.testing.assert_array_equal, state["teacher"], FrozenTeacher(loaded.params, loaded.state)
        )
        loss, moved, _ = loss_of(method, params, state, batch)
        assert np.isfinite(loss)
        jax.tree.map(np.testing.assert_array_equal, moved["teacher"], state["teacher"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairing": "other"}, "pairing='other': allowed is 'same', as mode='dense'"),
        (
            {"targets": {"teacher_size": 18}},
            r"targets.teacher_size=18: allowed is a multiple of .* 4 pixels, such as 16",
        ),
        ({"targets": {"patch_weight": -1.0}}, "targets.patch_weight=-1.0"),
    ],
)
def test_bad_dense_options_are_refused_by_name(foreign, options, message):
    with pytest.raises(ValueError, match=message):
        method_of(
            "knowledge_distillation", **{"mode": "dense", "pairing": "same", "teacher": foreign[0], **options}
        )
