"""Random operations one by one: what they do, how often, from which numbers, and one more written here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import operations, presets, views
from ssl_jax.augment.operations import Blur, ColorJitter, Flip, Operation, Rotate, Solarize
from ssl_jax.augment.options import options_of, view_from
from ssl_jax.augment.views import View
from tests.golden_files import assert_close, golden

G = golden("augment")
IMAGE = np.moveaxis(G["in__img"], 0, -1)
JITTER = ColorJitter(0.8, 0.8, 0.8, 0.2)


def small(side=6):
    return jnp.asarray(np.random.default_rng(0).random((side, side, 3)), jnp.float32)


def test_flip_mirrors_like_torchvision_twice_is_identity_and_half_are_flipped():
    image, key = jnp.asarray(IMAGE, jnp.float32), jax.random.key(0)
    flipped = Flip(1.0)(key, image)
    assert_close(np.moveaxis(np.asarray(flipped), -1, 0), G["tv_hflip__out__y"], tolerance=1e-5)
    np.testing.assert_array_equal(Flip(1.0)(key, flipped), image)
    line = jnp.arange(3.0).reshape(1, 3, 1)
    first = jax.vmap(lambda k: Flip(0.5)(k, line)[0, 0, 0])(jax.random.split(key, 1000))
    assert set(np.unique(first)) == {0.0, 2.0} and abs(float(first.mean()) - 1.0) < 0.13


def test_blur_is_the_identity_where_off_and_mapped_equals_looped():
    image, keys = jnp.asarray(IMAGE[:12, :12], jnp.float32), jax.random.split(jax.random.key(0), 8)

    def one(key):
        return Blur(prob=0.5, sigma=(0.5, 2.0), kernel=5)(key, image)

    mapped, looped = jax.jit(jax.vmap(one))(keys), jax.jit(lambda k: jax.lax.map(one, k))(keys)
    np.testing.assert_allclose(mapped, looped, atol=1e-6)
    same = [bool((x == image).all()) for x in mapped]
    assert 0 < sum(same) < 8


@pytest.mark.parametrize("exact", [True, False])
def test_jitter_off_is_the_identity_bit_for_bit_and_on_stays_in_range(exact):
    image, keys = small(), jax.random.split(jax.random.key(0), 16)

    def jitter(prob):
        operation = dataclasses.replace(JITTER, prob=prob, exact=exact)
        return jax.jit(jax.vmap(lambda key: operation(key, image)))(keys)

    off, on = jitter(0.0), jitter(1.0)
    np.testing.assert_array_equal(off, np.broadcast_to(image, off.shape))
    assert float(on.min()) >= 0 and float(on.max()) <= 1
    assert (np.abs(np.asarray(on) - np.asarray(image)).max(axis=(1, 2, 3)) > 0.02).all()


def test_drawn_factors_have_the_stated_ranges_and_every_order_appears():
    uniforms = jax.random.uniform(jax.random.key(0), (4000, 9))
    jitter = dataclasses.replace(JITTER, brightness=1.5)
    applied, (factors, order) = jax.vmap(lambda u: operations.draw_operation(jitter, u))(uniforms)
    np.testing.assert_allclose(factors.min(0), [0.0, 0.2, 0.2, -0.2], atol=0.01)
    np.testing.assert_allclose(factors.max(0), [2.5, 1.8, 1.8, 0.2], atol=0.01)
    assert abs(float(applied.mean()) - 0.8) < 4 * 0.4 / 4000**0.5
    _, counts = np.unique(np.asarray(order) @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24 and counts.min() > 4000 / 24 * 0.6


def test_additive_brightness_adds_a_shift_of_either_sign():
    uniforms = jnp.zeros(9).at[5:9].set(jnp.arange(4.0) / 4)
    image = jnp.full((3, 2, 2), 0.5)
    for exact in (True, False):
        jitter = ColorJitter(0.3, 0.0, 0.0, 0.0, additive_brightness=True, exact=exact)
        found = jitter.apply(image, jitter.choose(uniforms))
        np.testing.assert_allclose(found, 0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip(1.5), "flip_prob=1.5"),
        (lambda: Rotate(-0.1), "rotate_prob=-0.1"),
        (lambda: Solarize(2.0), "solarize_prob=2.0"),
        (lambda: Blur(sigma=(0.0, 1.0)), "blur_sigma"),
        (lambda: Blur(kernel=4), "blur_kernel=4"),
        (lambda: ColorJitter(hue=0.6), "jitter.hue=0.6"),
        (lambda: ColorJitter(brightness=-0.1), "jitter.brightness=-0.1"),
        (lambda: ColorJitter(prob=2.0), "jitter.prob=2.0"),
    ],
)
def test_an_operation_out_of_range_is_an_error_that_names_its_option(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# An operation that the package does not have.


@pytest.fixture
def invert(monkeypatch):
    monkeypatch.setattr(operations, "OPERATIONS", operations.OPERATIONS)
    before = dict(operations.OPERATIONS)

    @dataclasses.dataclass(frozen=True)
    class Invert(Operation):
        option = "invert"
        draws = 1
        prob: float = 0.5

        def apply(self, planes, chosen):
            return 1.0 - planes

    yield Invert
    operations.OPERATIONS.clear()
    operations.OPERATIONS.update(before)


def test_a_new_operation_is_one_class_that_views_presets_and_options_know(invert):
    batch = {"image": np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)}
    plain, inverted = presets.mae(8), presets.mae(8, invert_prob=0.5)
    assert inverted[0].ops == (*plain[0].ops, invert(prob=0.5))
    assert view_from(options_of(inverted[0])) == inverted[0]
    one, other = (np.asarray(views.make_views(jax.random.key(0), batch, v)[0]) for v in (plain, inverted))
    # The numbers of the other operations are what they were, those of the crop follow.
    key = jax.random.key(1)
    images = jnp.ones((8, 8, 1)) * jnp.arange(8.0)[:, None] / 8
    first = views.finish(key, images, View(size=8, ops=(Flip(0.5), ColorJitter(), Solarize(0.5))))
    second = views.finish(
        key, images, View(size=8, ops=(Flip(0.5), ColorJitter(), Solarize(0.5), invert(1.0)))
    )
    np.testing.assert_allclose(second, 1.0 - first, atol=1e-6)
    assert one.shape == other.shape and np.abs(one - other).max() > 0.1


def test_every_operation_has_numbers_of_its_own_and_two_of_a_kind_draw_apart():
    kinds = [kind() for kind in operations.OPERATIONS.values()]
    positions, end = views.positions_of_numbers((*kinds, Flip(), Blur()))
    used = [position for own in positions for position in own]
    assert sorted(used) == list(range(end))
    assert [len(own) for own in positions] == [op.draws for op in (*kinds, Flip(), Blur())]


def test_what_an_operation_draws_does_not_depend_on_the_others():
    image = small(8)
    for op in (Flip(), Solarize(0.5), Blur(1.0, kernel=3), ColorJitter(prob=0.5)):
        for seed in range(4):
            key = jax.random.key(seed)
            none = View(size=8, ops=(op,))
            with_others = View(
                size=8, ops=(dataclasses.replace(Flip(), prob=0.0), op) if op != Flip() else (op, Rotate(0.0))
            )
            np.testing.assert_allclose(
                views.finish(key, image, none), views.finish(key, image, with_others), atol=1e-6
            )
