"""BYOL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import trees
from ssl_jax.methods.distillation import byol
from ssl_jax.models import heads
from tests.methods.case import loss_of, method_of, start, with_average


def collapsed(case):
    """Teacher equal to student, no predictor, identical views: perfect agreement."""
    del case
    method = method_of("byol", predictor="none")
    params, state, batch = start(method)
    teacher = {name: params[name] for name in ("encoder", "projector")}
    state["teacher"] = with_average(state["teacher"], teacher)
    view = batch["views"][0][:, :1]
    return loss_of(method, params, state, {**batch, "views": (jnp.concatenate([view, view], axis=1),)})[
        0
    ], 0.0


def test_without_batch_statistics_the_loss_is_a_mean_over_images_that_do_not_see_each_other():
    method = method_of("byol", encoder={"norm": "group"}, hidden_norm="group")
    params, state, batch = start(method)
    assert not [path for path in trees.flatten(state) if "batch_stats" in path]
    whole = loss_of(method, params, state, batch)[0]
    halves = [{**batch, "views": (batch["views"][0][part],)} for part in (slice(0, 8), slice(8, 16))]
    assert whole == pytest.approx(
        np.mean([loss_of(method, params, state, half)[0] for half in halves]), rel=1e-4
    )
    ordinary = method_of("byol")
    params, state, _ = start(ordinary)
    parts = [loss_of(ordinary, params, state, half)[0] for half in halves]
    assert abs(loss_of(ordinary, params, state, batch)[0] - np.mean(parts)) > 1e-4


def test_projector_and_predictor_have_the_width_of_hidden_unless_they_are_given_their_own():
    encoder, batch = heads.mlp((6,)), {"views": (jnp.zeros((4, 2, 5)),)}

    def widths(**options):
        method = byol.build(encoder, projection=3, **options)
        params, _ = jax.eval_shape(method.init, jax.random.key(0), batch)
        return [params[head]["dense_0"]["kernel"].shape[1] for head in ("projector", "predictor")]

    assert widths(hidden_dim=7) == [7, 7]
    assert widths(hidden_dim=7, predictor_width=9) == [7, 9]
    assert widths(hidden_dim=7, projector_width=8) == [8, 7]


@pytest.mark.parametrize("own", [True, False])
def test_the_teacher_starts_from_weights_of_its_own_or_from_the_students(own):
    params, state, _ = start(method_of("byol", independent_init=own))
    teacher = state["teacher"].params
    assert set(teacher) == {"encoder", "projector"}  # no predictor, and no statistics of one
    assert set(state["teacher"].state) == set(state["online"]) - {"predictor"}
    kernels = [
        (leaf, trees.flatten(params)[path])
        for path, leaf in trees.flatten(teacher).items()
        if path.endswith("kernel")
    ]
    same = [np.array_equal(mine, students) for mine, students in kernels]
    assert same and (not any(same) if own else all(same))


def test_an_unknown_norm_or_predictor_is_refused_by_name():
    with pytest.raises(ValueError, match="hidden_norm='instance'"):
        byol.build(heads.mlp((6,)), hidden_norm="instance")
    with pytest.raises(ValueError, match="predictor='fixed'"):
        byol.build(heads.mlp((6,)), predictor="fixed")
