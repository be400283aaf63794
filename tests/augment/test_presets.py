"""Presets: the numbers of the papers, flat options, every channel count."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import presets, views
from ssl_jax.augment.operations import Blur, ColorJitter, Flip, Grayscale, Solarize
from ssl_jax.augment.options import default_options, options_of, view_from
from ssl_jax.augment.views import View


def test_views_survive_json_and_are_hashable():
    for name in presets.PRESETS:
        for view in presets.build(name, mean=(0.5,), std=(0.25,)):
            again = view_from(json.loads(json.dumps(options_of(view))))
            assert again == view and hash(again) == hash(view)


def test_options_cannot_say_operations_twice_or_in_another_order():
    for ops in ((Flip(), Flip()), (Blur(), Flip())):
        with pytest.raises(ValueError, match="each once, in the order flip, rotate, jitter"):
            options_of(View(ops=ops))


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("area", (0.0, 1.0)), ("flip_prob", 1.5), ("blur_sigma", (0.0, 1.0)), ("mean", (0.5,))],
)
def test_an_option_out_of_range_is_an_error_that_names_it_also_of_an_operation_that_is_off(field, value):
    with pytest.raises(ValueError, match="std" if field == "mean" else field):
        view_from({field: value})


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_makes_finite_views_in_range_for_one_and_for_five_channels(name, channels):
    small = {"local_size": 6, "local_count": 2} if name == "dino" else {}
    wanted = presets.build(name, size=8, blur_kernel=3, **small)
    image = np.random.default_rng(0).integers(0, 256, (3, 12, 10, channels), dtype=np.uint8)
    found = jax.jit(lambda key, x: views.make_views(key, {"image": x}, wanted))(jax.random.key(0), image)
    sizes = [(3, len(g), wanted[g[0]].size, wanted[g[0]].size, channels) for g in views.groups(wanted)]
    assert [x.shape for x in found] == sizes
    for x in found:
        assert x.dtype == jnp.float32
        assert float(x.min()) >= 0 and float(x.max()) <= 1 and float(x.std()) > 0.01


def test_presets_have_the_published_numbers():
    byol = presets.byol()
    assert [view.ops[3:] for view in byol] == [(Blur(1.0),), (Blur(0.1), Solarize(0.2))]
    assert byol[0].ops[:3] == (Flip(0.5), ColorJitter(0.4, 0.4, 0.2, 0.1), Grayscale(0.2))
    assert byol[0].crop.area == (0.08, 1.0)
    dino = presets.dino()
    assert [view.crop.area for view in dino] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    assert [view.find(Blur).prob for view in dino] == [1.0, 0.1] + [0.5] * 8
    assert dino[2].find(Solarize) is None
    assert presets.mae()[0].crop.area == (0.2, 1.0) and len(presets.mae()) == 1
    assert presets.moco_v2()[0].find(ColorJitter) == ColorJitter(0.4, 0.4, 0.4, 0.1)
    assert presets.simclr()[0].find(ColorJitter) == ColorJitter(0.8, 0.8, 0.8, 0.2, prob=0.8)
    assert presets.simclr()[0].find(Blur).taps(224) == 23
    v1 = presets.moco_v1()[0]
    assert v1.find(ColorJitter) == ColorJitter(0.4, 0.4, 0.4, 0.4, prob=1.0) and v1.find(Blur) is None
    assert presets.npid() == (v1,)
    strong, weak = presets.msf()
    assert strong == presets.moco_v2()[0]
    assert (weak.crop, weak.ops) == (strong.crop, (Flip(0.5),))
    assert presets.msf(query="weak") == (weak, weak)
    first, *others = presets.wmse(count=4)
    assert others == [first] * 3 and first.crop.area == (0.2, 1.0)
    assert first.find(Grayscale) == Grayscale(0.1) and first.find(Blur) is None


def test_overrides_reach_every_view_and_a_mapping_changes_the_jitter_in_part():
    for name in presets.PRESETS:
        wanted = presets.build(name, mean=(0.4,), std=(0.2,), jitter={"hue": 0.0, "exact": False})
        assert all(view.mean == (0.4,) for view in wanted)
        # MeanShift's weak view has no jitter.
        jitters = [view.find(ColorJitter) for view in wanted if view.find(ColorJitter)]
        assert jitters and all(jitter.hue == 0.0 and not jitter.exact for jitter in jitters)
    assert presets.byol(jitter={"hue": 0.0})[0].find(ColorJitter).brightness == 0.4
    assert presets.simclr(jitter=None)[0].find(ColorJitter) is None


def test_every_option_of_a_view_is_one_of_every_preset():
    for name in presets.PRESETS:
        options = {
            option: value for option, value in default_options().items() if option not in ("area", "size")
        }
        own = {"byol": 2, "dino": 2}.get(name, 1)
        pairs = {"blur_prob": (0.0,) * own, "solarize_prob": (0.0,) * own} if own == 2 else {}
        wanted = presets.build(name, **{**options, **pairs})
        assert all(op == Blur(0.5) for view in wanted for op in view.ops)


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("simclrr", {}, "simclr"),
        ("simclr", {"strenght": 0.5}, "strength"),
        ("byol", {"jitter": {"hew": 0.1}}, "hue"),
        ("dino", {"area": (0.1, 1.0)}, "global_area"),
        ("wmse", {"count": 0}, "count=0"),
    ],
)
def test_a_misspelt_preset_or_option_is_an_error_with_the_nearest_right_one(preset, options, message):
    with pytest.raises(ValueError, match=message):
        presets.build(preset, **options)
