"""Teachers that stay as they are, read by name or drawn at random: distillation, BoWNet, targets of masked methods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssl_jax.augment.views import View
from ssl_jax.core import trees
from ssl_jax.core.check import require
from ssl_jax.core.types import Array, Key, Params, State
from ssl_jax.interop.pretrained import load_pretrained, split_part
from ssl_jax.models.build import without_draws
from ssl_jax.models.network import Network


class PretrainedNetwork(NamedTuple):
    """Network that was read by name; ``variables`` is ``None`` where they are to be drawn at random.

    ``metadata`` has ``mean`` and ``std`` of what it expects, where that is known.
    """

    network: Network
    variables: tuple[Params, State] | None
    metadata: Mapping[str, Any]


class FrozenTeacher(NamedTuple):
    """Teacher in a method's state that is never trained."""

    params: Params
    state: State

    def apply(self, network: Network, images: Array, *, train: bool = False, **options: Any) -> Any:
        """Apply a network with these weights, without gradient; with ``train`` by the statistics of the batch."""
        outputs, _ = network.apply(self.params, self.state, images, train=train, **options)
        return jax.lax.stop_gradient(outputs)


def read_teacher(path: str, encoder: Network, *, option: str = "teacher") -> PretrainedNetwork:
    """Read an encoder by name; for ``""`` return one of the student's architecture, without variables.

    Args:
      path: name that :func:`ssl_jax.interop.load_pretrained` takes, or ``""``.
      encoder: the student's network.
      option: name of the path in errors.

    Raises:
      ValueError: no such file, or no encoder in it that is understood.
    """
    if not path:
        return PretrainedNetwork(without_draws(encoder), None, {})
    allowed = "an encoder.safetensors that experiments.export has written, or another name that load_pretrained takes"
    there = path.startswith(("hf:", "timm:")) or Path(split_part(path)[0]).exists()
    require(there, option, path, f"{allowed}; there is no such file")
    try:
        loaded = load_pretrained(path)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{option}={path!r}: allowed is {allowed}; {error}") from error
    own_file = loaded.provenance["family"] == "ssl_jax" and "file" in loaded.provenance
    expected = {"mean": loaded.preprocessing.mean, "std": loaded.preprocessing.std}
    metadata = loaded.provenance if own_file else {**loaded.provenance, **expected}
    return PretrainedNetwork(loaded.network, (loaded.params, loaded.state), metadata)


def require_size(teacher: Network, view: View, size: int | None, *, option: str = "teacher_size") -> None:
    """Raise a ValueError unless a teacher's patches tile the images that it gets: ``size`` pixels, or those of the view."""
    patch = teacher.config.get("patch") if "class_token" in teacher.config else None
    side = view.size if size is None else size
    require(side >= 1, option, size, "a positive number of pixels, or None: that of the view")
    if patch is not None:
        nearest = max(round(side / patch), 1) * patch
        allowed = f"a multiple of the teacher's patch of {patch} pixels, such as {nearest}; the view has {view.size}"
        require(side % patch == 0, option, size, allowed)


def show_teacher(
    images: Float[Array, "b h w c"], factor: Array, offset: Array, *, size: int | None = None
) -> Float[Array, "b s s d"]:
    """Bring the images of a view into the form that a teacher gets: ``resize(images) · factor + offset``.

    Images of one channel are shown in each channel of a teacher that has several.

    Args:
      images: square ones, as the student sees them.
      factor: of :func:`renormalization`.
      offset: of :func:`renormalization`.
      size: side in pixels; ``None``: that of the images. Bilinear, with the kernel stretched where they shrink
        (``antialias``).

    Raises:
      ValueError: images of several channels, but not as many as the teacher's.

    >>> show_teacher(jnp.ones((1, 4, 4, 1)), jnp.ones(3), jnp.zeros(3), size=8).shape
    (1, 8, 8, 3)
    """
    channels, count = images.shape[-1], max(factor.size, offset.size)
    require(
        count in (1, channels) or channels == 1,
        "images",
        channels,
        f"1 or {count} channels, as the teacher's",
    )
    if size is not None and size != images.shape[1]:
        images = jax.image.resize(images, (images.shape[0], size, size, channels), "linear")
    return images * factor + offset


def renormalization(metadata: Mapping[str, Any], view: View) -> tuple[Array, Array]:
    """Return factor and offset of each channel that turn a view's normalisation into the one of a teacher's file.

    ``(x σ + μ − μ') / σ'`` with (μ, σ) of the view and (μ', σ') of the teacher; 1 and 0 where the file does not say.

    >>> scale, shift = renormalization({"mean": [0.5], "std": [0.5]}, View(size=8, mean=(0.0,), std=(1.0,)))
    >>> scale.tolist(), shift.tolist()
    ([2.0], [-1.0])
    """
    identity = {"mean": (0.0,), "std": (1.0,)}
    student = {"mean": view.mean, "std": view.std}
    teacher = {name: metadata.get(name, numbers) for name, numbers in student.items()}
    (mean, std), (teacher_mean, teacher_std) = (
        [jnp.asarray(numbers[name] or identity[name], jnp.float32) for name in identity]
        for numbers in (student, teacher)
    )
    return std / teacher_std, (mean - teacher_mean) / teacher_std


def start_teacher(
    path: str, teacher: PretrainedNetwork, key: Key, images: Array, *, option: str = "teacher"
) -> FrozenTeacher:
    """Start a teacher from its file, or from weights drawn at random.

    Raises:
      ValueError: a file whose encoder does not fit the images.
    """
    variables = teacher.variables
    if variables is None:
        variables = teacher.network.init(key, images)
    else:
        require_fit(path, teacher, variables, images, option)
    return FrozenTeacher(*variables)


def require_fit(
    path: str,
    teacher: PretrainedNetwork,
    variables: tuple[Params, State],
    images: Array,
    option: str = "teacher",
) -> None:
    """Raise a ValueError unless a teacher's variables have the shapes that images of this shape need."""
    needed = jax.eval_shape(teacher.network.init, jax.random.key(0), images)
    expected = {name: leaf.shape for name, leaf in trees.flatten(needed).items()}
    shapes = {name: leaf.shape for name, leaf in trees.flatten(variables).items()}
    wrong = [name for name in expected if expected[name] != shapes.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{option}={path!r}: allowed is an encoder for images of {images.shape[-1]} channels; its {name[2:]} has the "
            f"shape {shapes.get(name)}, these images need {expected[name]}"
        )
