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

    They need ``import numpy as np`` and ``from PIL import Image``. The pixels are those of ``Preprocessing.crop``. Images of
    other than 1 or 3 channels are read from ``photo.npy``, which has that size already.
    """
    preprocessing, channels = encoder.preprocessing, encoder.channels
    height, width = preprocessing.size
    shape = f"[{height}, {width}, {channels}]"
    if channels not in MODES:
        return [f'pixels = np.load("photo.npy")  # float32 {shape} in [0, 1]']
    axis = "[..., None]" if channels == 1 else ""
    return [
        *open_picture(encoder),
        *_resize_and_crop(encoder),
        f"pixels = np.asarray(picture, np.float32){axis} / 255  # {shape}",
    ]


def _resize_and_crop(encoder: Encoder) -> list[str]:
    """Return lines that resize and crop ``picture``, as ``Preprocessing.crop`` does."""
    preprocessing = encoder.preprocessing
    method = f"Image.Resampling.{preprocessing.interpolation.upper()}"
    (height, width), (rows, columns) = preprocessing.size, preprocessing.target
    if preprocessing.resize == "squash" and (rows, columns) == (height, width):
        return [f"picture = picture.resize(({width}, {height}), {method})"]
    if preprocessing.resize == "squash":
        size = f"({columns}, {rows})"
    elif preprocessing.resize == "short" and rows == columns:
        size = f"[{rows} * side // min(picture.size) for side in picture.size]"
    else:
        which = "max" if preprocessing.resize == "border" else "min"
        ratio = f"{which}(picture.width / {columns}, picture.height / {rows})"
        size = f"[max(round(side / {ratio}), 1) for side in picture.size]"
    resized = [f"picture = picture.resize({size}, {method})"]
    if preprocessing.resize == "border":
        color = tuple(round(255 * value) for value in preprocessing.mean)
        return [
            *resized,
            f"canvas = Image.new(picture.mode, ({width}, {height}), {color if len(color) > 1 else color[0]})",
            f"canvas.paste(picture, (({width} - picture.width) // 2, ({height} - picture.height) // 2))",
            "picture = canvas",
        ]
    half = "({0} - {1}) // 2" if preprocessing.crop_down else "round(({0} - {1}) / 2)"
    left, top = half.format("picture.width", width), half.format("picture.height", height)
    return [
        *resized,
        f"left, top = {left}, {top}",
        f"picture = picture.crop((left, top, left + {width}, top + {height}))",
    ]


def normalized_tensor(encoder: Encoder) -> list[str]:
    """Return lines that turn ``pixels`` ``[h, w, c]`` in [0, 1] into a normalised torch tensor ``[c, h, w]``."""
    mean, std = listed_statistics(encoder)
    return [
        f"mean, std = np.float32({mean}), np.float32({std})",
        "pixels = torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)",
    ]


def listed_statistics(encoder: Encoder) -> tuple[list[float], list[float]]:
    """Return mean and deviation of the channels, with six digits."""
    preprocessing = encoder.preprocessing
    mean, std = ([round(float(x), 6) for x in xs] for xs in (preprocessing.mean, preprocessing.std))
    return mean, std


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
