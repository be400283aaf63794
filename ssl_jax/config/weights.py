"""Runs that start from weights that somebody trained: what a config takes from their file, and what they begin with."""

import dataclasses
import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ssl_jax import interop, models
from ssl_jax.config.options import Options, defaults_of, fitting_options, typed
from ssl_jax.core import trees
from ssl_jax.core.bucket import is_bucket
from ssl_jax.core.files import write_atomically
from ssl_jax.core.types import Params, State
from ssl_jax.methods.parts.ema_teacher import EmaTeacher
from ssl_jax.models.build import adapt, merge_lora
from ssl_jax.models.channels import change_channels, shapes_for
from ssl_jax.models.lora import TARGETS
from ssl_jax.models.network import FRESH, Network, require_same_arrays, with_variables

if TYPE_CHECKING:
    from ssl_jax.interop.pretrained import Pretrained

MOST_PIXELS = 224
"""Largest side of the views that weights ask for by themselves: those that were trained at 518 pixels would take five times the
time, and positions are interpolated."""
OF_TRAINING = (
    "drop_path",
    "drop_path_kind",
    "drop_path_uniform",
    "dtype",
    "init",
    "mask_token",
    "remat",
    "remat_keeps",
)
"""Options of an encoder that a recipe gives also where the weights say the architecture: they change no array of the file."""
RECORD = "weights.json"
"""File of a workdir that says where the weights came from with which the run began."""
BACKBONE = rf"^encoder/(?!{'|'.join(FRESH)})"
"""Parameters of the backbone that stand still at first."""

Config = Mapping[str, Any]
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Options of ``config.encoder`` that only runs have which start from weights.

    Attributes:
      weights: name, see :func:`ssl_jax.interop.load_pretrained`.
      frozen_share: share of the run for which the encoder stands still while the fresh heads of the method are trained.
        BatchNorm works as in training meanwhile: by the statistics of the batch, and the running ones move. 1: the encoder
        stands still for ever and is applied as in evaluation, so that these statistics stay too. 0: all is trained from the
        start.
      lora_rank: rank of the low-rank matrices that are trained in place of the encoder's, see
        :func:`ssl_jax.models.lora.with_lora`; 0: the encoder itself is trained.
      lora_alpha: factor of their product, which is divided by the rank.
      lora_targets: regular expressions that name the linear layers which get them.
      with_heads: whether the method's heads start from those of the file too, where it has them.
    """

    weights: str
    frozen_share: float = 0.1
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = TARGETS
    with_heads: bool = False


START = tuple(field.name for field in dataclasses.fields(Start))


class Origin(NamedTuple):
    """What a config takes from weights.

    Attributes:
      encoder: options of ``models.build``.
      size: side of the views in pixels.
      mean: of the pixels in [0, 1], one number a channel that the encoder was trained on.
      std: likewise.
      crop_ratio: share of each side that the central crop keeps in evaluation.
    """

    encoder: Mapping[str, Any]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float


_OPENED: dict[tuple[str, float], Any] = {}


def open_weights(name: str) -> "Pretrained":
    """Load weights, those that were loaded last without reading them again.

    Args:
      name: see :func:`ssl_jax.interop.load_pretrained`.

    Raises:
      ValueError: they cannot be loaded, or hold an encoder that this cannot train on.
    """
    path = Path(name) / "checkpoints" if (Path(name) / "checkpoints").is_dir() else Path(name)
    key = (name, path.stat().st_mtime if path.exists() and not is_bucket(name) else 0.0)
    if key not in _OPENED:
        _OPENED.clear()
        loaded = interop.load_pretrained(name)
        network, params, state = merge_lora(loaded.network, loaded.params, loaded.state)
        _OPENED[key] = loaded._replace(network=network, params=params, state=state)
    return _OPENED[key]


def forget_weights() -> None:
    """Free the weights that were loaded last."""
    _OPENED.clear()


def find_origin(choices: Mapping[str, Any], recorded: Config, *, dataset_size: int) -> Origin | None:
    """Find what a config takes from the weights that were chosen; ``None`` where none were.

    Args:
      choices: values of the command line by dotted name.
      recorded: config of a run that goes on; the file is then not needed.
      dataset_size: side of the views for which the recipe was made.

    Raises:
      ValueError: as of :func:`open_weights`.
    """
    name = choices.get("encoder.weights")
    if not name:
        return None
    if recorded.get("encoder", {}).get("weights") == name:
        encoder = {option: value for option, value in recorded["encoder"].items() if option not in START}
        views, evaluate = recorded["views"], recorded["watch"]["evaluate"]
        mean, std = tuple(views["mean"]), tuple(views["std"])
        return Origin(encoder, views["size"], mean, std, evaluate["crop_ratio"])
    try:
        loaded = open_weights(name)
    except ValueError as error:
        raise ValueError(f"config.encoder.weights: {error}") from error
    encoder, preprocessing = dict(loaded.network.config), loaded.preprocessing
    return Origin(
        encoder,
        view_size(encoder, max(preprocessing.size), dataset_size),
        tuple(map(float, preprocessing.mean)),
        tuple(map(float, preprocessing.std)),
        float(preprocessing.crop_ratio),
    )


def normalization(
    known: tuple[tuple[float, ...], tuple[float, ...]],
    channels: int,
    measure: Callable[[], tuple[tuple[float, ...], tuple[float, ...]]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Choose the mean and deviation by which images are normalised for weights: those of the weights where they know them.

    Args:
      known: mean and deviation of the weights' channels.
      channels: of the images: as many as the weights know: theirs; one: the means of theirs; others: those of the images.
      measure: returns mean and deviation of the images.

    >>> normalization(((0.4, 0.6), (0.1, 0.3)), 1, lambda: ((), ()))
    ((0.5,), (0.2,))
    """
    if channels == len(known[0]):
        mean, std = known
    elif channels == 1:
        mean, std = ((float(np.mean(values)),) for values in known)
    else:
        mean, std = measure()
    return tuple(map(float, mean)), tuple(map(float, std))


def require_start(overrides: Mapping[str, Any]) -> None:
    """Raise a ValueError where options of a start from weights are given, and no weights, or are misspelt.

    Args:
      overrides: values of the command line by dotted name.

    >>> require_start({"encoder.weight": "vit.npz"})
    Traceback (most recent call last):
    ...
    ValueError: config.encoder.weight is not an option: did you mean 'weights'?

    >>> require_start({"encoder.lora_rank": "4"})
    Traceback (most recent call last):
    ...
    ValueError: config.encoder.lora_rank: allowed where config.encoder.weights=NAME says what the run starts from
    """
    if overrides.get("encoder.weights"):
        return
    for name in overrides:
        option = name.removeprefix("encoder.")
        near = difflib.get_close_matches(option, START, n=1, cutoff=0.85)
        if option != name and near and option not in START:
            raise ValueError(f"config.{name} is not an option: did you mean {near[0]!r}?")
    given = [name for name in overrides if name in [f"encoder.{option}" for option in START]]
    given.sort(key=lambda name: name == "encoder.weights")
    if given and given[0] == "encoder.weights":
        raise ValueError("config.encoder.weights='': allowed is a name, such as hf:owner/name or a file")
    if given:
        raise ValueError(
            f"config.{given[0]}: allowed where config.encoder.weights=NAME says what the run starts from"
        )


def view_size(encoder: Mapping[str, Any], file_size: int, dataset_size: int) -> int:
    """Choose the side of the views: that of the file, but no more than 224 pixels or than the recipe has, in whole patches.

    Args:
      encoder: options of the encoder.
      file_size: side for which the weights were made.
      dataset_size: side for which the recipe was made.

    >>> [view_size({"patch": 14}, size, 28) for size in (518, 224, 70)], view_size({"patch": 16}, 518, 300)
    ([224, 224, 70], 304)
    """
    if encoder.get("position") == "relative":
        return int(encoder["image_size"])
    return whole_patches(min(file_size, max(MOST_PIXELS, dataset_size)), encoder)


def whole_patches(size: float, encoder: Mapping[str, Any]) -> int:
    """Round a side up to whole patches; encoders without patches take any.

    >>> whole_patches(96, {"patch": 14}), whole_patches(96, {})
    (98, 96)
    """
    patch = int(encoder.get("patch", 1))
    return -int(-size // patch) * patch


def start_options(origin: Origin, name: str, given: Mapping[str, Any], dataset: Any) -> Options:
    """List the options of an encoder that starts from weights: the file's, those of training that a recipe gives, the start's.

    Args:
      origin: what the weights say.
      name: of the weights.
      given: options of the recipe.
      dataset: what the recipe was made for, see :func:`ssl_jax.config.options.fitting_options`.
    """
    defaults = defaults_of(models.BUILDERS[origin.encoder["name"]])
    of_recipe = {**fitting_options(dataset), **given}
    kept = {option: of_recipe[option] for option in OF_TRAINING if option in of_recipe}
    if origin.encoder.get("mask_token"):
        kept.pop("mask_token", None)
    values = {
        option: value
        for option, value in {**origin.encoder, **kept}.items()
        if option in defaults and (value is not None or not _is_placeholder(defaults[option]))
    }
    start = dataclasses.asdict(Start(weights=name))
    return {"name": origin.encoder["name"], **typed(defaults, values), **start}


def _is_placeholder(default: Any) -> bool:
    return type(default).__name__ == "FieldReference"


def start_of(config: Config) -> Start | None:
    """Read the options of a start from weights from a config; ``None``: it starts from nothing.

    Raises:
      ValueError: LoRA in an encoder that stands still for ever.
    """
    options = config["encoder"]
    if not options.get("weights"):
        return None
    start = Start(**{name: options[name] for name in START if name in options})
    if start.lora_rank and start.frozen_share == 1:
        raise ValueError(
            f"config.encoder.lora_rank={start.lora_rank} with frozen_share=1.0: nothing of the encoder would be trained; "
            "allowed is one of them"
        )
    return start


def architecture(config: Config) -> Options:
    """List the options of ``config.encoder`` that ``models.build`` takes, without those of the start."""
    return {name: value for name, value in config["encoder"].items() if name not in START}


def adaptation(start: Start | None) -> Options:
    """List the options of :func:`ssl_jax.models.build.adapt`: what of the encoder is trained."""
    if start is None:
        return {}
    if start.lora_rank:
        return {name: getattr(start, name) for name in ("lora_rank", "lora_alpha", "lora_targets")}
    return {"all_frozen": True} if start.frozen_share == 1 else {}


def freeze(config: Config) -> tuple[tuple[str, int], ...]:
    """List what the optimizer holds still because of the start: pairs of a pattern and the step from which it moves.

    >>> freeze({"steps": 50, "encoder": {"name": "resnet18", "weights": "a.npz", "frozen_share": 0.1}})
    (('^encoder/(?!mask_token)', 5),)
    """
    start = start_of(config)
    if start is None or not start.frozen_share:
        return ()
    until = -1 if start.frozen_share == 1 else round(start.frozen_share * config["steps"])
    return ((BACKBONE, until),) if until else ()


def started_encoder(config: Config, channels: int) -> tuple[Network, Params, State]:
    """Load the encoder that a config starts from, for images of so many channels, without LoRA.

    Args:
      config: config of the run.
      channels: of the images.

    Returns:
      ``(network, params, state)``; of :data:`ssl_jax.models.network.FRESH` params may lack.

    Raises:
      ValueError: weights that cannot be loaded, or options under which they do not fit.
    """
    name = config["encoder"]["weights"]
    loaded = open_weights(name)
    network = models.build(**architecture(config))
    try:
        params, state = change_channels(network, loaded.params, loaded.state, channels=channels)
        arrays = trees.flatten({"params": params, "state": state})
        shapes = {path: np.shape(leaf) for path, leaf in arrays.items()}
        require_same_arrays(shapes, shapes_for(network, channels))
    except ValueError as error:
        changed = [
            f"{option}={value!r} ({loaded.network.config[option]!r} in the file)"
            for option, value in network.config.items()
            if option in loaded.network.config and loaded.network.config[option] != value
        ]
        said = f"; changed: {', '.join(changed)}" if changed else ""
        raise ValueError(f"config.encoder.weights={name!r}: {error}{said}") from error
    return network, params, state


def started(network: Network, params: Params, state: State, start: Start) -> Network:
    """Build the encoder of a run whose ``init`` gives the weights that it starts from.

    Args:
      network: from :func:`started_encoder`, like the two others.
      params: its params; may be traced.
      state: its state.
      start: how the run starts.
    """
    return adapt(with_variables(network, params, state), **adaptation(start))


def with_heads(
    params: Params, state: State, heads: Mapping[str, tuple[Params, State]], name: str
) -> tuple[Params, State]:
    """Put the heads of a file into the params and state that a method begins with, and into those of its teacher.

    A queue of keys is taken too, where the method has one of the same size.

    Args:
      params: of the method; arrays or their shapes.
      state: likewise.
      heads: ``(params, state)`` by the name of the head.
      name: of the weights, for errors.

    Raises:
      ValueError: the file has no head of the method, or one of other arrays.
    """
    own = [part for part in params if part != "encoder"]
    found = [part for part in own if part in heads]
    if not found:
        has = f"it has {', '.join(sorted(heads))}" if heads else "it has none"
        raise ValueError(
            f"config.encoder.with_heads=True: {name} has no head of this method ({', '.join(own) or 'which has none'}); {has}"
        )
    for part in found:
        _require_same_head(part, heads[part][0], params[part], name)

    def replace(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {part: _copy(heads[part][0]) if part in found else inner for part, inner in parts.items()}

    def replace_state(value: Any) -> Any:
        if isinstance(value, EmaTeacher):
            average = value.average._replace(average=replace(value.params))
            return value._replace(average=average, state=replace_state(value.state))
        if not isinstance(value, dict):
            return value
        new = {}
        for part, inner in value.items():
            given = heads[part][1] if part in found else {}
            if trees.flatten(given):
                _require_same_head(part, given, inner, name)
            new[part] = _copy(given) if trees.flatten(given) else replace_state(inner)
        return new

    state = replace_state(state)
    queue = heads["queue"][1] if "queue" in heads else None
    if queue is not None and "queue" in state and _shapes(queue) == _shapes(state["queue"]):
        state = {**state, "queue": _copy(queue)}
    return replace(params), state


def _require_same_head(part: str, given: Any, needed: Any, name: str) -> None:
    try:
        require_same_arrays(_shapes(given), _shapes(needed))
    except ValueError as error:
        raise ValueError(f"config.encoder.with_heads=True: {part} of {name}: {error}") from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in trees.flatten(tree).items()}


def _copy(tree: Any) -> Any:
    # A step gives its arrays away: student and teacher may not share one.
    return jax.tree.map(np.array, tree)


def describe_start(config: Config, channels: int) -> str:
    """Say in a line or two what a run starts from, and how it sees images.

    Args:
      config: config of the run.
      channels: of the images.
    """
    loaded, start = open_weights(config["encoder"]["weights"]), start_of(config)
    assert start is not None
    pre, views = loaded.preprocessing, config["views"]
    sides = "x".join(map(str, dict.fromkeys(pre.size)))
    own = f"{sides}, {pre.resize} side / {pre.crop_ratio:.3g}, {pre.interpolation}"
    until = round(start.frozen_share * config["steps"])
    lines = [
        f"starts from {start.weights}: {loaded.provenance.get('family', 'an encoder')}",
        f"views of {views['size']} pixels (the weights: {own}), mean {_numbers(views['mean'])}, std {_numbers(views['std'])}",
    ]
    if start.lora_rank:
        lines.append(f"LoRA of rank {start.lora_rank} is trained, the encoder itself stands still")
    if start.frozen_share == 1:
        lines.append("the encoder stands still for ever")
    elif until:
        lines.append(f"nothing of the encoder moves in the first {until} of {config['steps']} steps")
    if channels != len(pre.mean):
        lines.append(
            f"first layer for {channels} instead of {len(pre.mean)} channels: the mean of its kernels"
        )
    return "; ".join(lines)


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def record_start(folder: Path, config: Config) -> None:
    """Write into a workdir where the weights come from.

    Args:
      folder: the workdir.
      config: config of the run.
    """
    loaded = open_weights(config["encoder"]["weights"])
    content = {**loaded.provenance, "preprocessing": loaded.preprocessing._asdict()}
    write_atomically(folder / RECORD, json.dumps(content, indent=2, default=str) + "\n")


def note_changed_file(folder: Path) -> None:
    """Log where the file that a run began with is another one now: the run goes on from its checkpoint all the same.

    Args:
      folder: the workdir.
    """
    record = folder / RECORD
    recorded = json.loads(record.read_text()) if record.is_file() else {}
    file, digest = Path(str(recorded.get("file", ""))), recorded.get("sha256")
    if not digest or not file.is_file():
        return
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
            _log.info(
                "%s is another file than the one that the run began with; it goes on from its checkpoint",
                file,
            )
