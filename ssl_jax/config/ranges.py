"""What values the options of a config may have: one table by name, checked when a config is read and when it is built.

Finer limits, which depend on other options (a queue that divides by the batch, masks on a grid of patches), are checked by
the functions that take the options.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssl_jax.core.check import require

MOST = 2**31 - 1
"""Counts, steps and seeds are 32-bit integers on the device."""
WIDEST = 2**20
"""Most features, channels, heads or pixels along one axis."""
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that an option may have.

    Attributes:
      allowed: what they are, in words.
      holds: tells whether a value is one of them.
      count: whether they are integers, alone or in a sequence: texts such as ``1e3`` are read as such.
      none: whether ``None`` is allowed too.

    >>> number(above=0).accepts(0.5), number(above=0).accepts(float("nan")), number(above=0).allowed
    (True, False, 'a number above 0')
    """

    allowed: str
    holds: Callable[[Any], bool]
    count: bool = False
    none: bool = False

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is in the range; arrays, which may be traced, are not read."""
        if value is None:
            return self.none
        return is_array(value) or bool(self.holds(value))


def is_array(value: Any) -> bool:
    """Tell whether a value is an array, such as a traced learning rate; numpy's scalars are numbers."""
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.generic)


def is_integer(value: Any) -> bool:
    """Tell whether a value is an integer; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Tell whether a value is a real number that float32 holds, neither infinite nor subnormal; True and False are none.

    >>> is_number(0.1), is_number(0), is_number(1e-46), is_number(1e39)
    (True, True, False, False)
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and (value == 0 or SMALLEST <= abs(value) <= LARGEST)


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Range:
    """Make the range of a finite number.

    Args:
      low: least value.
      high: greatest value.
      above: bound that is excluded, in place of ``low``.
      below: bound that is excluded, in place of ``high``.

    >>> number(0, below=1).allowed
    'a number of 0 or more and below 1'
    """
    limits = [
        "" if low is None else f"of {low} or more",
        "" if above is None else f"above {above}",
        "" if below is None else f"below {below}",
        "" if high is None else f"at most {high}",
    ]
    limits = [limit for limit in limits if limit]
    if (low, high) != (None, None) and None not in (low, high):
        limits = [f"from {low} to {high}"]

    def holds(value: Any) -> bool:
        return (
            is_number(value)
            and (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return Range(" ".join(["a number", " and ".join(limits)]).strip() if limits else "a finite number", holds)


def integer(low: int, high: int = MOST) -> Range:
    """Make the range of an integer.

    >>> integer(1).allowed, integer(0, 9).allowed
    ('an integer of 1 or more, below 2^31', 'an integer from 0 to 9')
    """
    text = f"an integer of {low} or more, below 2^31" if high == MOST else f"an integer from {low} to {high}"
    return Range(text, lambda value: is_integer(value) and low <= value <= high, count=True)


def pair(element: Range, example: str) -> Range:
    """Make the range of two values in order, the first at most the second.

    >>> pair(number(above=0, high=1), "0.2,1.0").allowed
    'two values, each a number above 0 and at most 1, the smaller one first, such as 0.2,1.0'
    """

    def holds(value: Any) -> bool:
        right = isinstance(value, tuple | list) and len(value) == 2 and all(map(element.holds, value))
        return right and value[0] <= value[1]

    text = f"two values, each {element.allowed}, the smaller one first, such as {example}"
    return Range(text, holds, element.count)


def each(element: Range, *, least: int = 0, most: int | None = None) -> Range:
    """Make the range of a sequence of values.

    Args:
      element: range of each.
      least: least length; 0: ``()`` is allowed.
      most: greatest length.

    >>> each(integer(1), least=1).allowed
    '1 or more values separated by commas, each an integer of 1 or more, below 2^31'
    """

    def holds(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) >= least
            and (most is None or len(value) <= most)
            and all(map(element.holds, value))
        )

    how_many = {None: f"{least} or more values", least: f"{least} values"}.get(
        most, f"{least} to {most} values"
    )
    return Range(f"{how_many} separated by commas, each {element.allowed}", holds, element.count)


def one_or_each(element: Range, *, length: int) -> Range:
    """Make the range of a value that may be given for all views together or for each.

    >>> one_or_each(number(0, 1), length=2).allowed
    'a number from 0 to 1, or 2 of them'
    """
    several = each(element, least=length, most=length)
    return Range(f"{element.allowed}, or {length} of them", lambda v: element.holds(v) or several.holds(v))


def optional(option_range: Range) -> Range:
    """Allow ``None`` as well."""
    return dataclasses.replace(option_range, allowed=f"{option_range.allowed}, or None", none=True)


def _is_pattern(value: Any) -> bool:
    """Tell whether a value is a regular expression, for the paths of parameters."""
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except (re.error, OverflowError, RecursionError):
        return False


def _is_freeze(value: Any) -> bool:
    right = isinstance(value, tuple | list) and len(value) == 2
    return right and _is_pattern(value[0]) and integer(-1).holds(value[1])


SWITCH = Range("True or False", lambda value: isinstance(value, bool))
TEXT = Range("a text", lambda value: isinstance(value, str))
TEXTS = each(TEXT)
PATTERN = Range("a regular expression, such as 'head/.*'", lambda value: _is_pattern(value))
PATTERNS = each(PATTERN)
FREE = number()
POSITIVE = number(above=0)
NOT_NEGATIVE = number(0)
PROBABILITY = number(0, 1)
SHARE = number(above=0, high=1)
BELOW_ONE = number(0, below=1)
COUNT = integer(1)
COUNT_OR_ZERO = integer(0)
STEPS = COUNT
WIDTH = integer(1, WIDEST)
WIDTH_OR_ZERO = integer(0, WIDEST)
DEPTH = integer(1, 4096)
DEPTH_OR_ZERO = integer(0, 4096)
PIXELS = integer(1, 2**16)
VIEWS = integer(1, 1024)
VIEWS_OR_ZERO = integer(0, 1024)
SEED = integer(0)
AREA = pair(SHARE, "0.2,1.0")
RATIO = pair(POSITIVE, "0.75,1.333")
FRACTIONS = pair(PROBABILITY, "0.1,0.5")

RANGES: Mapping[str, Range] = {
    "accumulate": COUNT,
    "batch_size": COUNT,
    "refresh_every": STEPS,
    "seed": SEED,
    "steps": STEPS,
    "data.channels": optional(integer(1, 2**16)),
    "data.image_column": optional(TEXT),
    "data.label_column": optional(TEXT),
    "data.labeled_fraction": optional(SHARE),
    "data.max_corrupt_fraction": PROBABILITY,
    "data.max_image_mib": POSITIVE,
    "data.max_value": optional(POSITIVE),
    "data.num_examples": COUNT,
    "data.num_labels": COUNT_OR_ZERO,
    "data.percentiles": optional(pair(number(0, 100), "1,99")),
    "data.stride": COUNT,
    "data.window": COUNT,
    "encoder.blocks": DEPTH_OR_ZERO,
    "encoder.channels": each(WIDTH),
    "encoder.classes": WIDTH,
    "encoder.depth": DEPTH,
    "encoder.depths": each(DEPTH, least=1),
    "encoder.drop_path": BELOW_ONE,
    "encoder.frozen_share": PROBABILITY,
    "encoder.grid": PIXELS,
    "encoder.heads": WIDTH,
    "encoder.image_size": PIXELS,
    "encoder.last_norm_epsilon": optional(number(above=0, high=1)),
    "encoder.layer_scale": optional(NOT_NEGATIVE),
    "encoder.lora_alpha": POSITIVE,
    "encoder.lora_rank": WIDTH_OR_ZERO,
    "encoder.lora_targets": each(PATTERN, least=1),
    "encoder.mlp_ratio": number(above=0, high=1024),
    "encoder.norm_epsilon": number(above=0, high=1),
    "encoder.patch": PIXELS,
    "encoder.patch_bias": Range("True, False or None", lambda value: isinstance(value, bool), none=True),
    "encoder.registers": WIDTH_OR_ZERO,
    "encoder.rope_base": POSITIVE,
    "encoder.rope_jitter": number(1),
    "encoder.rope_rescale": number(1),
    "encoder.rope_shift": NOT_NEGATIVE,
    "encoder.stem_patch": PIXELS,
    "encoder.stride": PIXELS,
    "encoder.vocabulary_size": WIDTH,
    "encoder.weights": TEXT,
    # ResNets take a factor, the others features.
    "encoder.width": number(above=0, high=WIDEST),
    "encoder.widths": each(WIDTH),
    "host.data": Range(
        "-1 (what fsdp leaves) or an integer of 1 or more", lambda v: v == -1 or COUNT.holds(v), True
    ),
    "host.fsdp": Range(
        "-1 (what data leaves) or an integer of 1 or more", lambda v: v == -1 or COUNT.holds(v), True
    ),
    "host.workers": integer(0, 4096),
    "optimizer.b1": BELOW_ONE,
    "optimizer.b2": BELOW_ONE,
    "optimizer.batch_size": COUNT,
    "optimizer.boundaries": each(COUNT_OR_ZERO),
    "optimizer.clip_norm": optional(POSITIVE),
    "optimizer.clip_tensor": optional(POSITIVE),
    "optimizer.constant_lr": PATTERNS,
    "optimizer.end_learning_rate": NOT_NEGATIVE,
    "optimizer.epsilon": POSITIVE,
    "optimizer.factor": POSITIVE,
    "optimizer.freeze": Range(
        "pairs of a pattern and a number of steps (-1: for ever), such as (('head', 100),)",
        lambda value: isinstance(value, tuple | list) and all(map(_is_freeze, value)),
    ),
    "optimizer.layer_decay": optional(SHARE),
    "optimizer.learning_rate": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.normalize_rows": PATTERNS,
    "optimizer.rampdown_steps": COUNT_OR_ZERO,
    "optimizer.reference_batch": COUNT,
    "optimizer.skip_zero_grads": PATTERNS,
    "optimizer.start_learning_rate": NOT_NEGATIVE,
    "optimizer.steps": STEPS,
    "optimizer.steps_per_epoch": optional(STEPS),
    "optimizer.trust_coefficient": POSITIVE,
    "optimizer.warmup_steps": COUNT_OR_ZERO,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.weight_decay_end": optional(NOT_NEGATIVE),
    "views.area": AREA,
    "views.blur_kernel": optional(integer(1, 4095)),
    "views.blur_prob": one_or_each(PROBABILITY, length=2),
    "views.blur_sigma": pair(POSITIVE, "0.1,2.0"),
    "views.count": VIEWS,
    "views.crop_area": AREA,
    "views.crop_count": VIEWS_OR_ZERO,
    "views.crop_size": PIXELS,
    "views.flip_prob": PROBABILITY,
    "views.global_area": AREA,
    "views.grayscale_prob": PROBABILITY,
    "views.jitter.brightness": NOT_NEGATIVE,
    "views.jitter.contrast": NOT_NEGATIVE,
    "views.jitter.hue": number(0, 0.5),
    "views.jitter.prob": PROBABILITY,
    "views.jitter.saturation": NOT_NEGATIVE,
    "views.local_area": AREA,
    "views.local_blur_prob": PROBABILITY,
    "views.local_count": VIEWS_OR_ZERO,
    "views.local_size": PIXELS,
    "views.mean": each(FREE),
    "views.ratio": RATIO,
    "views.rotate_prob": PROBABILITY,
    "views.size": PIXELS,
    "views.solarize_prob": one_or_each(PROBABILITY, length=2),
    "views.solarize_threshold": PROBABILITY,
    "views.std": each(POSITIVE),
    "watch.checkpoint.every": STEPS,
    "watch.checkpoint.keep": COUNT,
    "watch.checkpoint.rank_by": Range("knn or label_free", lambda value: value in ("knn", "label_free")),
    "watch.evaluate.crop_ratio": SHARE,
    "watch.evaluate.draws": COUNT,
    "watch.evaluate.k": COUNT,
    "watch.evaluate.measures": TEXTS,
    "watch.evaluate.per_class": each(COUNT),
    "watch.evaluate.temperature": POSITIVE,
    "watch.health.batch": COUNT_OR_ZERO,
    "watch.health.sample": COUNT_OR_ZERO,
    "watch.log.every": STEPS,
    "watch.log.stall_seconds": NOT_NEGATIVE,
    "watch.online.bank": COUNT,
    "watch.online.every": STEPS,
    "watch.online.k": COUNT,
    "watch.online.queries": COUNT,
    "method.adversarial_weight": NOT_NEGATIVE,
    "method.ahead": DEPTH,
    "method.alternate_steps": STEPS,
    "method.anneal_steps": optional(STEPS),
    "method.beta": NOT_NEGATIVE,
    "method.bins": WIDTH,
    "method.block_size": optional(COUNT),
    "method.blocks": COUNT,
    "method.blocks.context_scale": AREA,
    "method.blocks.least_context": COUNT,
    "method.blocks.target_aspect": RATIO,
    "method.blocks.target_scale": AREA,
    "method.blocks.targets": VIEWS,
    "method.bn_groups": COUNT,
    "method.border": COUNT_OR_ZERO,
    "method.cell": PIXELS,
    "method.center_decay": PROBABILITY,
    "method.chains": COUNT_OR_ZERO,
    "method.class_weight": NOT_NEGATIVE,
    "method.classes": integer(2, WIDEST),
    "method.clean_weight": NOT_NEGATIVE,
    "method.clusterings": VIEWS,
    "method.clusters": integer(2, WIDEST),
    "method.code_width": WIDTH,
    "method.color_projection": PROBABILITY,
    "method.context_depth": DEPTH_OR_ZERO,
    "method.context_width": WIDTH,
    "method.corrupted_weight": NOT_NEGATIVE,
    "method.costs": each(NOT_NEGATIVE),
    "method.counts": WIDTH,
    "method.covariance_weight": NOT_NEGATIVE,
    "method.decay": optional(PROBABILITY),
    "method.decay_steps": optional(STEPS),
    "method.decoder_channels": WIDTH,
    "method.decoder_depth": DEPTH_OR_ZERO,
    "method.decoder_heads": WIDTH,
    "method.decoder_width": WIDTH,
    "method.directions": WIDTH,
    "method.discriminator_channels": WIDTH,
    "method.distance.p": integer(1, 1024),
    "method.dropout": BELOW_ONE,
    "method.embedding": WIDTH,
    "method.epsilon": NOT_NEGATIVE,
    "method.erasing": PROBABILITY,
    "method.exemplars": COUNT,
    "method.expectation_decay": optional(PROBABILITY),
    "method.far": COUNT,
    "method.filters": each(TEXT, least=1),
    "method.gibbs_steps": integer(1, 10**6),
    "method.gray_threshold": NOT_NEGATIVE,
    "method.groups": COUNT,
    "method.hard": COUNT_OR_ZERO,
    "method.head.bottleneck": WIDTH,
    "method.head.hidden_dim": WIDTH,
    "method.head.layers": DEPTH,
    "method.head.prototypes": WIDTH,
    "method.head_layers": DEPTH_OR_ZERO,
    "method.head_widths": each(WIDTH),
    "method.heads": optional(TEXT),
    "method.heads.predictor_width": WIDTH,
    "method.heads.projection": WIDTH,
    "method.heads.projector_layers": DEPTH_OR_ZERO,
    "method.heads.projector_width": optional(WIDTH),
    "method.hidden_dim": optional(WIDTH_OR_ZERO),
    "method.hidden_layers": DEPTH_OR_ZERO,
    "method.input_noise": NOT_NEGATIVE,
    "method.invariance_weight": NOT_NEGATIVE,
    "method.inverse_delta": POSITIVE,
    "method.iterations": integer(1, 10**6),
    "method.joint": BELOW_ONE,
    "method.kappa": POSITIVE,
    "method.kl_weight": NOT_NEGATIVE,
    "method.knots": integer(3, WIDEST),
    "method.koleo_weight": NOT_NEGATIVE,
    "method.label_smoothing": BELOW_ONE,
    "method.latent": WIDTH,
    "method.layers": DEPTH,
    # BoWNet counts maps, autoencoders corrupt by a share or a deviation.
    "method.level": NOT_NEGATIVE,
    "method.levels": DEPTH,
    "method.limit": POSITIVE,
    "method.logit_distance": optional(NOT_NEGATIVE),
    "method.margin": NOT_NEGATIVE,
    "method.mask_ratio": number(above=0, below=1),
    "method.masking.crop_fraction": PROBABILITY,
    "method.masking.min_area": optional(COUNT),
    "method.masking.ratio": FRACTIONS,
    "method.min_area": optional(COUNT),
    "method.mixup": NOT_NEGATIVE,
    "method.mu": optional(POSITIVE),
    "method.near": COUNT,
    "method.negatives": COUNT,
    "method.neighbors": COUNT,
    "method.noise": NOT_NEGATIVE,
    "method.num_examples": optional(COUNT),
    "method.num_labels": COUNT_OR_ZERO,
    "method.overlap": integer(0, 2**16),
    "method.overlap_weight": NOT_NEGATIVE,
    "method.patch_center_decay": PROBABILITY,
    "method.patch_weight": NOT_NEGATIVE,
    "method.patches.jitter": integer(0, 2**16),
    "method.patches.side": PIXELS,
    "method.patches.stride": PIXELS,
    "method.pca": WIDTH_OR_ZERO,
    "method.permutation_seed": SEED,
    "method.permutations": integer(2, 10**6),
    "method.positive_margin": NOT_NEGATIVE,
    "method.power": integer(1, 2),
    "method.predictor_depth": DEPTH,
    "method.predictor_heads": optional(WIDTH),
    "method.predictor_width": optional(WIDTH),
    "method.projection": optional(WIDTH),
    "method.projector_layers": DEPTH_OR_ZERO,
    "method.projector_width": optional(WIDTH),
    "method.prototypes": WIDTH,
    "method.queue_size": COUNT_OR_ZERO,
    "method.queue_start": COUNT_OR_ZERO,
    "method.ramp.quiet_steps": COUNT_OR_ZERO,
    "method.ramp.steps": COUNT_OR_ZERO,
    "method.ramp.weight": NOT_NEGATIVE,
    "method.rebalancing.alpha": NOT_NEGATIVE,
    "method.rebalancing.gamma": PROBABILITY,
    "method.rebalancing.prior": each(NOT_NEGATIVE),
    "method.rebalancing.prior_decay": PROBABILITY,
    "method.reconstruction_weight": NOT_NEGATIVE,
    "method.redundancy_weight": NOT_NEGATIVE,
    "method.ridge": POSITIVE,
    "method.rotations": each(integer(0, 270), least=2, most=4),
    "method.run_steps": STEPS,
    "method.samples": COUNT,
    "method.scale": POSITIVE,
    "method.scale_decay": PROBABILITY,
    "method.search_block": optional(COUNT),
    "method.secondary": BELOW_ONE,
    "method.sigma": optional(POSITIVE),
    "method.sinkhorn.epsilon": POSITIVE,
    "method.sinkhorn.iterations": integer(1, 10**6),
    "method.skip": DEPTH_OR_ZERO,
    "method.student_temperature": POSITIVE,
    "method.subvector": WIDTH,
    "method.target": POSITIVE,
    "method.targets.class_weight": NOT_NEGATIVE,
    "method.targets.patch_weight": NOT_NEGATIVE,
    "method.targets.teacher_size": optional(PIXELS),
    "method.tau_plus": BELOW_ONE,
    "method.teacher.decay": PROBABILITY,
    "method.teacher.decay_steps": optional(STEPS),
    "method.teacher_size": optional(PIXELS),
    "method.teacher_temperature": POSITIVE,
    "method.temperature": POSITIVE,
    "method.temperature_end": POSITIVE,
    "method.temperatures.patch": POSITIVE,
    "method.temperatures.patch_start": optional(POSITIVE),
    "method.temperatures.student": POSITIVE,
    "method.temperatures.teacher": POSITIVE,
    "method.temperatures.teacher_start": optional(POSITIVE),
    "method.temperatures.teacher_steps": COUNT_OR_ZERO,
    "method.threshold": PROBABILITY,
    "method.tiles.channel_jitter": integer(0, 2**16),
    "method.tiles.gap": integer(0, 2**16),
    "method.tiles.grid": integer(2, 16),
    "method.tiles.jitter": integer(0, 2**16),
    "method.tiles.tile": PIXELS,
    "method.toward": each(TEXT, least=1, most=4),
    "method.top_k": optional(COUNT),
    "method.transformation_weight": NOT_NEGATIVE,
    "method.unit": PIXELS,
    "method.variance_weight": NOT_NEGATIVE,
    "method.vocabulary_size": WIDTH,
    "method.w_iter": integer(1, 10**4),
    "method.w_size": optional(COUNT),
    "method.weight": PROBABILITY,
    "method.window": optional(integer(2, 2**16)),
}
"""Ranges of options, by dotted name."""

FINETUNE: Mapping[str, Range] = {
    "epochs": POSITIVE,
    "batch_size": COUNT,
    "learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "layer_decay": optional(SHARE),
    "drop_path": BELOW_ONE,
    "label_smoothing": BELOW_ONE,
    "mixup": NOT_NEGATIVE,
    "cutmix": SWITCH,
    "erasing": PROBABILITY,
    "area": AREA,
    "jitter": NOT_NEGATIVE,
}
"""Ranges of the options of :class:`ssl_jax.evaluate.finetune.Recipe`."""


def range_of(name: str, value: Any = None) -> Range | None:
    """Look up the range of an option; those of ``optimizer.groups`` are the optimizer's.

    A number without an entry of its own, as of a method that is not part of the library, has to be finite.

    >>> range_of("method.temperature").allowed
    'a number above 0'
    """
    option_range = RANGES.get(name)
    if option_range is None and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return FREE
    return option_range


def check_option(name: str, value: Any, *, text: Any = None) -> None:
    """Check the value of an option.

    Args:
      name: dotted, such as ``method.temperature``.
      value: its value; of a mapping each member is checked.
      text: text that a sequence was read from, for the message; ``None``: the value.

    Raises:
      ValueError: it is outside of its range.

    >>> check_option("method.temperature", 0.0)
    Traceback (most recent call last):
    ...
    ValueError: config.method.temperature=0.0: allowed is a number above 0
    """
    if isinstance(value, Mapping):
        for member, inner in value.items():
            if name == "optimizer.groups":
                _check_group(member, inner)
            else:
                check_option(f"{name}.{member}" if name else str(member), inner)
        return
    option_range = range_of(name, value)
    if option_range is not None:
        check_value(f"config.{name}", value, option_range, text=text)


def check_value(name: str, value: Any, option_range: Range, *, text: Any = None) -> None:
    """Check a value against a range.

    Args:
      name: how the message calls it.
      value: the value.
      option_range: its range.
      text: text that a sequence was read from, for the message; ``None``: the value.

    Raises:
      ValueError: it is outside.
    """
    given = value if text is None or is_number(value) else text
    finite = isinstance(value, numbers.Real) and not is_integer(value) and math.isfinite(value)
    held = " that float32 holds" if finite and not isinstance(value, bool) and not is_number(value) else ""
    require(option_range.accepts(value), name, given, option_range.allowed + held)


def exact(value: Any, option_range: Range) -> Any:
    """Turn floats that are integers, and exactly so, into integers, alone or in a sequence, where the range is one of integers.

    >>> exact(1e3, integer(1)), exact((8.0, 16), each(integer(1))), exact(1.5, integer(1)), exact(2.0, number(0))
    (1000, (8, 16), 1.5, 2.0)
    """
    if not option_range.count:
        return value
    if isinstance(value, tuple | list):
        return type(value)(exact(inner, option_range) for inner in value)
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


def _check_group(pattern: Any, options: Any) -> None:
    """Check the options that some parameters have of their own."""
    where = f"config.optimizer.groups[{pattern!r}]"
    require(_is_pattern(pattern), "config.optimizer.groups", pattern, f"{PATTERN.allowed}, for each group")
    require(isinstance(options, Mapping), where, options, "a mapping of options")
    for name, value in options.items():
        option_range = range_of(f"optimizer.{name}", value)
        if option_range is not None:
            check_value(f"{where}.{name}", value, option_range)


def check_config(config: Mapping[str, Any]) -> None:
    """Check every option of a config, or of some parts of one.

    Raises:
      ValueError: an option is outside of its range.
    """
    check_option("", config)
