"""Fine-tuning starts from the weights given, leaves them alone, and uses the labels it says."""

import jax
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.augment.views import View
from ssl_jax.data.open import open_source
from ssl_jax.data.sources import Subset
from ssl_jax.evaluate.finetune import RECIPES, Recipe, finetune

ENCODER = models.build("convnet", widths=(8, 16))
VIEW = View(size=28, mean=(0.286,), std=(0.353,))
TRAIN = Subset(open_source("embedded", "train"), range(0, 4000, 4))
TEST = Subset(open_source("embedded", "test"), range(0, 2000, 10))
LABELS = np.array([TRAIN[i]["label"] for i in range(len(TRAIN))], np.int32)


@pytest.fixture(scope="module")
def weights():
    return ENCODER.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))


def run(weights, **options):
    return finetune(ENCODER, *weights, TRAIN, TEST, labels=LABELS, view=VIEW, **options)


def test_training_on_a_share_of_the_labels_beats_chance_and_leaves_the_weights_alone(weights):
    before = jax.tree.map(np.array, weights)
    recipe = Recipe(epochs=10, batch_size=80, learning_rate=1e-2)
    done = run(weights, share=0.4, recipe=recipe)
    assert (done.labels, done.steps) == (400, 50)
    assert done.accuracy > 0.5
    jax.tree.map(np.testing.assert_array_equal, before, weights)


@pytest.mark.long
def test_zero_learning_rate_keeps_the_encoder_and_classifies_at_chance(weights):
    still = run(weights, share=0.08, recipe=Recipe(epochs=1, batch_size=80, learning_rate=0.0))
    assert still.steps == 1
    assert still.accuracy < 0.4


@pytest.mark.parametrize(("share", "message"), [(0.0, r"share=0.0"), (1e-3, "one label a class")])
def test_impossible_shares_are_refused(weights, share, message):
    with pytest.raises(ValueError, match=message):
        run(weights, share=share)


@pytest.mark.long
def test_the_recipe_of_mae_trains_a_vit_and_stochastic_depth_needs_one(weights):
    vit = models.build("vit_micro", width=16, depth=2, heads=2, patch=7, image_size=28, pool="mean")
    start = vit.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    recipe = RECIPES["mae"]._replace(epochs=30, batch_size=64, learning_rate=1e-2, area=(0.5, 1.0))
    done = finetune(vit, *start, TRAIN, TEST, labels=LABELS, view=VIEW, share=0.64, recipe=recipe)
    assert (done.labels, done.steps) == (640, 300)
    assert done.accuracy > 0.4
    with pytest.raises(ValueError, match=r"drop_path=0\.1.*without stochastic depth"):
        run(weights, share=0.1, recipe=Recipe(drop_path=0.1))
    with pytest.raises(ValueError, match="layer_decay"):
        run(weights, share=0.1, recipe=Recipe(layer_decay=0.65))
