"""Lines of Python that a model card shows, and that tests run: from ``photo.png`` to the pixels that an encoder expects."""

from ssl_jax.interop.write_files import Encoder, kind_of

MODES = {1: "L", 3: "RGB"}
"""How PIL calls pictures of so many channels."""


def open_picture(encoder: Encoder) -> list[str]:
    """Return the line that opens ``photo.png`` as ``picture``; none for images that are no pictures.

    >>> from ssl_jax.interop.preprocessing import Preprocessing
    >>> from ssl_jax.models.build import build
    >>> open_picture(Encoder(build("resnet18"), {}, {}, Preprocessing((8, 8), mean=(0.5,), std=(0.5,))))
    ['picture = Image.open("photo.png").convert("L")']
    """
    mode = MODES.get(encoder.channels)
    return [f'picture = Image.open("photo.png").convert("{mode}")'] if mode else []


def imports(encoder: Encoder, *names: str) -> list[str]:
    """Return the lines that import modules, and what opens the picture: PIL, or numpy for images that are no pictures.

    Args:
      encoder: whose images are opened.
      *names: of modules.
    """
    reader = "from PIL import Image" if encoder.channels in MODES else "import numpy as np"
    return [
        *sorted([reader, *(f"import {name}" for name in names)], key=lambda line: line.split()[0] == "from"),
        "",
    ]


def unit_pixels(encoder: Encoder) -> list[str]:
    """Return lines that make ``pixels``, float32 ``[h, w, c]`` in [0, 1] of the size of the encoder, by numpy and PIL.

    They need ``import numpy as np`` and ``from PIL import Image, ImageOps``. Images of other than 1 or 3 channels are read from
    ``photo.npy``, which has that size already.
    """
    preprocessing, channels = encoder.preprocessing, encoder.channels
    height, width = preprocessing.size
    shape = f"[{height}, {width}, {channels}]"
    if channels not in MODES:
        return [f'pixels = np.load("photo.npy")  # float32 {shape} in [0, 1]']
    method = f"Image.Resampling.{preprocessing.interpolation.upper()}"
    bleed = round((1 - preprocessing.crop_ratio) / 2, 6)
    if preprocessing.resize == "squash":
        crop = (
            ""
            if not bleed
            else f", box=[{bleed} * s for s in picture.size] + [{1 - bleed} * s for s in picture.size]"
        )
        resized = f"picture.resize(({width}, {height}), {method}{crop})"
    else:
        resized = f"ImageOps.fit(picture, ({width}, {height}), {method}" + (
            f", bleed={bleed})" if bleed else ")"
        )
    axis = "[..., None]" if channels == 1 else ""
    return [
        *open_picture(encoder),
        f"picture = {resized}",
        f"pixels = np.asarray(picture, np.float32){axis} / 255  # {shape}",
    ]


def normalized_tensor(encoder: Encoder) -> list[str]:
    """Return lines that turn ``pixels`` ``[h, w, c]`` in [0, 1] into a normalised torch tensor ``[c, h, w]``."""
    mean, std = (
        tuple(round(float(x), 6) for x in xs)
        for xs in (encoder.preprocessing.mean, encoder.preprocessing.std)
    )
    return [
        f"mean, std = np.float32({list(mean)}), np.float32({list(std)})",
        "pixels = torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)",
    ]


def pooling(encoder: Encoder) -> str:
    """Say what the features of an encoder are, in words.

    >>> from ssl_jax.interop.preprocessing import Preprocessing
    >>> from ssl_jax.models.build import build
    >>> pooling(Encoder(build("vit_tiny", pool="mean"), {}, {}, Preprocessing((8, 8))))
    'the mean of the patch tokens'
    """
    config = encoder.network.config
    words = {
        "cls": "the class token",
        "mean": "the mean of the patch tokens",
        "map": "what a learned query attends to",
    }
    if "pool" in config:
        return words[config["pool"]]
    maps = {"resnet": "the mean of the last map", "convnext": "the mean of the last map, normalised"}
    return maps.get(kind_of(encoder.network), "what the network gives")
