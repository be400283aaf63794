"""Every example once, whatever the batches look like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.views import View
from ssl_jax.data.batches import TooManyCorrupt
from ssl_jax.data.sources import ArraySource, CorruptImage
from ssl_jax.evaluate.knn import knn_accuracy
from ssl_jax.evaluate.ridge import ridge
from ssl_jax.train.features import extract, extract_source

VIEW = View(size=2, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), dtype=np.uint8)


def batches(size, images=IMAGES):
    """As data.epoch makes them: the last batch is filled up with masked rows."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        index = np.arange(start, start + len(part))
        pad = [(0, size - len(part))]
        yield {
            "image": np.pad(part, [*pad, (0, 0), (0, 0), (0, 0)]),
            "label": np.pad(index % 3, pad, constant_values=-1),
            "index": np.pad(index, pad, constant_values=-1),
            "mask": np.pad(np.ones(len(part), bool), pad),
        }


def encode(images):
    return images.reshape(len(images), -1).astype(jnp.bfloat16)


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_every_example_comes_once_in_order_normalised_and_padding_is_dropped(size):
    found = extract(encode, batches(size), view=VIEW)
    assert found.index.tolist() == list(range(7)) and found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.features.dtype == np.float32
    expected = (IMAGES.reshape(7, -1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(found.features, expected, atol=0.02)


def test_rows_masked_inside_a_batch_are_dropped_too():
    (batch,) = batches(7)
    batch["mask"][2] = False
    assert extract(encode, [batch], view=VIEW).index.tolist() == [0, 1, 3, 4, 5, 6]


def test_variables_change_without_a_second_compilation():
    traces = []

    def scaled(scale, images):
        traces.append(1)
        return scale * images.reshape(len(images), -1)

    one = extract(scaled, batches(4), view=VIEW, variables=(jnp.float32(1.0),))
    two = extract(scaled, batches(4), view=VIEW, variables=(jnp.float32(2.0),))
    assert len(traces) == 1
    np.testing.assert_allclose(two.features, 2 * one.features)


def test_images_spread_over_devices_give_the_same_features():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = extract(encode, batches(4), view=VIEW, sharding=sharding)
    np.testing.assert_array_equal(spread.features, extract(encode, batches(4), view=VIEW).features)


def test_every_example_comes_once_from_eight_devices_and_kNN_and_ridge_read_the_same():
    images = np.random.default_rng(1).integers(0, 256, (27, 2, 2, 1), dtype=np.uint8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = extract(encode, batches(8, images), view=VIEW, sharding=sharding)
    plain = extract(encode, batches(5, images), view=VIEW)
    jax.tree.map(np.testing.assert_array_equal, spread, plain)
    sets = (plain.features[:24], plain.labels[:24])
    placed = tuple(jax.device_put(part, sharding) for part in sets)
    assert knn_accuracy(*placed, *placed, classes=3, k=3) == knn_accuracy(*sets, *sets, classes=3, k=3)
    assert ridge(*placed, *placed, classes=3, holdout=0.5) == ridge(*sets, *sets, classes=3, holdout=0.5)


def test_an_example_that_comes_twice_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"index \[0, 1, 2, 3, 4\] more than once"):
        extract(encode, [*batches(7), *batches(7)], view=VIEW)


def test_nothing_to_encode_is_an_error():
    with pytest.raises(ValueError, match="one batch or more"):
        extract(encode, [], view=VIEW)
    (batch,) = batches(7)
    batch["mask"][:] = False
    with pytest.raises(ValueError, match="only padding"):
        extract(encode, [batch], view=VIEW)


class Damaged(ArraySource):
    """Images, some of which cannot be read."""

    def __init__(self, corrupt=(), images=IMAGES):
        super().__init__(images, np.arange(len(images)) % 3)
        self.corrupt = frozenset(corrupt)

    def __getitem__(self, index):
        if index in self.corrupt:
            raise CorruptImage(self.file_name(index), "truncated")
        return super().__getitem__(index)


@pytest.mark.parametrize("corrupt", [(), (0,), (6,), (2, 3), (0, 1, 2, 3, 4, 5)])
@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_features_labels_and_index_belong_together_whatever_cannot_be_read(corrupt):
    source = Damaged(corrupt)
    found = extract_source(encode, source, view=VIEW, batch_size=3, max_corrupt_fraction=1.0)
    whole = extract_source(encode, Damaged(), view=VIEW, batch_size=3)
    readable = [i for i in range(7) if i not in corrupt]
    assert found.index.tolist() == readable
    np.testing.assert_array_equal(found.features, whole.features[readable])
    assert found.labels.tolist() == [i % 3 for i in readable]
    expected = [-1 if i in corrupt else i % 3 for i in range(7)]
    assert found.labels_in(source).tolist() == expected and found.labels_in(source).dtype == np.int32


@pytest.mark.filterwarnings("ignore:.*skipped the corrupt image")
def test_images_of_which_none_can_be_read_are_named():
    with pytest.raises(
        ValueError, match=r"array: none of the 7 images can be read: array/000000: truncated; "
    ):
        extract_source(encode, Damaged(range(7)), view=VIEW, max_corrupt_fraction=1.0)
    with pytest.raises(TooManyCorrupt, match=r"7 of the 7 images .*max_corrupt_fraction=0\.1"):
        extract_source(encode, Damaged(range(7)), view=VIEW)
