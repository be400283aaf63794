"""Images with a target for each pixel, as the flags of a launcher name them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from ssl_jax.config.images import log_description, open_images, split_names
from ssl_jax.core import check
from ssl_jax.data.masks import MaskFormat, open_masks, parse_palette
from ssl_jax.data.sources import Source
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.measure import Measure, PixelTargets

NEEDS = frozenset({"pixel classes", "pixel values"})
"""What of a subject only images with a target for each pixel offer."""


class PixelOptions(NamedTuple):
    """Where the targets of pixels are, what they mean, and how images become inputs.

    Attributes:
      masks: column, folder or feature, see :func:`ssl_jax.data.masks.open_masks`.
      format: what the stored numbers mean.
      mask_classes: names of the classes; (): numbers.
      framing: how images become inputs.
      layers: number of last layers whose features a patch has together.
      given: whether a flag asked for them.
    """

    masks: str | None = None
    format: MaskFormat = MaskFormat()
    mask_classes: tuple[str, ...] = ()
    framing: Framing = Framing()
    layers: int = 1
    given: bool = False


def define_flags() -> Callable[[], PixelOptions]:
    """Define the flags of the measures of pixels; what is returned reads them."""
    masks = flags.DEFINE_string(
        "masks",
        None,
        "Targets of pixels: column of parquet: (mask), folder beside folder:, feature of tfds:.",
    )
    void = flags.DEFINE_list("void", ["255"], "Stored numbers of pixels that do not count; empty: all count.")
    palette = flags.DEFINE_list(
        "palette", [], "Stored number, or color such as #ff0000, of each class; others are void."
    )
    classes = flags.DEFINE_list("mask_classes", [], "Names of the classes of pixels; default: their numbers.")
    values = flags.DEFINE_bool("pixel_values", False, "Targets are numbers to predict, such as depth.")
    size = flags.DEFINE_integer(
        "map_size",
        None,
        "Shorter side in pixels of images of which patches are measured; default: as stored.",
        lower_bound=1,
    )
    align = flags.DEFINE_enum(
        "map_align", "resize", ("resize", "pad"), "What becomes of sides that the patch does not divide."
    )
    layers = flags.DEFINE_integer(
        "map_layers", 1, "Last layers whose features a patch has together.", lower_bound=1
    )

    def read() -> PixelOptions:
        every = (masks, void, palette, classes, values, size, align, layers)
        format = MaskFormat(_numbers("void", void.value), parse_palette(palette.value), values.value)
        names = tuple(name for name in classes.value if name)
        framing = Framing(size=size.value, align=align.value)
        given = any(flag.present for flag in every)
        return PixelOptions(masks.value, format, names, framing, layers.value, given)

    return read


def _numbers(name: str, values: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in values if value)
    except ValueError:
        raise ValueError(f"--{name}={','.join(values)}: allowed are whole numbers") from None


def open_both(
    config: Mapping[str, Any],
    source: str,
    splits: tuple[str, str],
    options: PixelOptions,
    measures: Sequence[Measure],
    named: Sequence[str],
) -> tuple[tuple[Source, Source], PixelTargets | None]:
    """Open training and test images, and as of :func:`open_pixel_targets` the targets of their pixels.

    Raises:
      ValueError: images or targets that cannot be opened.
    """
    targets = open_pixel_targets(config, source, splits, options, measures, named)
    if targets is not None:
        train, test = (part.images for part in targets.sources)
        return (train, test), targets
    return (open_images(config, source, splits[0]), open_images(config, source, splits[1])), None


def open_pixel_targets(
    config: Mapping[str, Any],
    source: str,
    splits: tuple[str, str],
    options: PixelOptions,
    measures: Sequence[Measure],
    named: Sequence[str],
) -> PixelTargets | None:
    """Open the training and test images with a target for each pixel, where a measure of pixels was asked for.

    Args:
      config: config of the run, for the number of channels and the names of splits.
      source: images.
      splits: splits of the training and the test images.
      options: where the targets are.
      measures: measures that will be taken.
      named: measures that were asked for by name: those of pixels, or any flag about them, make targets that cannot be opened
        an error.

    Returns:
      ``None``: no measure wants them.

    Raises:
      ValueError: there are none, or they cannot be read.
    """
    wanting = {measure.name for measure in measures if measure.needs & NEEDS}
    asked = wanting & set(named)
    if not wanting or not (asked or options.given):
        return None
    kinds = ("parquet", "folder", "tfds")
    if source.partition(":")[0] not in kinds:
        what = f"--measures={','.join(sorted(asked))}" if asked else "targets of pixels"
        raise ValueError(
            f"{what}: allowed with --source={':..., '.join(kinds)}:... that has masks; this is {source}"
        )
    channels = config["data"]["channels"]
    kind: dict[str, Any] = {}
    if not source.startswith("tfds:"):
        kind = {"splits": split_names(config, splits[0])}
        kind |= {"channels": channels} if channels is not None else {}
    opened = []
    for split in splits:
        part = open_masks(
            source,
            split,
            masks=options.masks,
            format=options.format,
            mask_classes=options.mask_classes,
            **kind,
        )
        log_description(part, source, split)
        opened.append(part)
    train, test = opened
    check.require(
        channels in (None, train.channels), "config.data.channels", channels, f"{train.channels} of {source}"
    )
    return PixelTargets((train, test), options.framing, options.layers)
