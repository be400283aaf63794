"""Makes the shipped data: the first 1,000 train and 200 test images of each class of Fashion-MNIST.

    python -m ssl_jax.data.build_embedded [--idx=/usr/share/datasets/fashion-mnist] [--out=DIR]

writes `ssl_jax/data/embedded/` again, the same records in the same order: array_record shards with PNG
images in the form of TensorFlow Datasets, which `tfds.builder_from_directory` reads too, and the licence
beside them. The idx files come from the Debian package `dataset-fashion-mnist`.
"""

import argparse
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ssl_jax.data.fashion_mnist import CLASSES, EMBEDDED, SYSTEM
from ssl_jax.data.idx import read_split

PER_CLASS = {"train": 1000, "test": 200}

LICENCE = """\
The images and labels in this folder are a part of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist): the first 1,000 training and the first 200 test
images of each class, stored as PNG. Fashion-MNIST is distributed under this licence:

The MIT License (MIT)

Copyright © 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN
NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY,
WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the first ``count`` examples of each class, in the order of the file.

    >>> first_of_each_class(np.array([1, 0, 1, 1, 0]), 2)
    array([0, 1, 2, 4])
    """
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))


class FashionMnistEmbedded(tfds.core.GeneratorBasedBuilder):
    """The shipped part of Fashion-MNIST."""

    VERSION = tfds.core.Version("1.0.0")
    idx = SYSTEM

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The first 1,000 train and 200 test images of each class of Fashion-MNIST.",
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            license="MIT, see LICENSE",
            supervised_keys=("image", "label"),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in PER_CLASS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = read_split(self.idx, split)
        for i in first_of_each_class(labels, PER_CLASS[split]).tolist():
            png = io.BytesIO()
            Image.fromarray(images[i]).save(png, "PNG", optimize=True)
            yield i, {"image": png.getvalue(), "label": int(labels[i])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idx", type=Path, default=SYSTEM, help="folder of the idx files")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder that is written again")
    options = parser.parse_args()
    FashionMnistEmbedded.idx = options.idx
    with tempfile.TemporaryDirectory() as folder:
        builder = FashionMnistEmbedded(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
        shutil.rmtree(options.out, ignore_errors=True)
        shutil.copytree(builder.data_dir, options.out)
    (options.out / "LICENSE").write_text(LICENCE)
    total = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
