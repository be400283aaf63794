"""The encoder of a run by itself, for use elsewhere: the body of ``experiments.export``."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_jax.augment.color import normalize
from ssl_jax.cli.tables import evaluation_table
from ssl_jax.config import build
from ssl_jax.config.weights import RECORD
from ssl_jax.core.bucket import BucketPath
from ssl_jax.core.check import choice, require
from ssl_jax.core.files import write_atomically
from ssl_jax.core.numerics import at_least_float32
from ssl_jax.core.types import Array
from ssl_jax.data.stores import redact
from ssl_jax.interop import snippets, write_onnx, write_timm, write_torchvision, write_transformers
from ssl_jax.interop.model_card import NO_LICENSE, Card, write_card
from ssl_jax.interop.preprocessing import Preprocessing
from ssl_jax.interop.pretrained import load_pretrained
from ssl_jax.interop.write_files import Encoder, Target, encoder_of
from ssl_jax.methods.method import Method
from ssl_jax.models.build import BUILDERS
from ssl_jax.models.serialize import export_stablehlo, save_encoder
from ssl_jax.train.checkpoint import RestoredModel
from ssl_jax.train.workdir import read_images

ENCODER, PROGRAM, FACTS, CARD = "encoder.safetensors", "encoder.stablehlo", "encoder.json", "README.md"
DEFAULT = ("ssl_jax", "stablehlo")
"""Formats without a folder of their own, and those that are written unless others are asked for."""
FOLDERS: Mapping[str, Target] = {
    "timm": write_timm.TARGET,
    "torchvision": write_torchvision.TARGET,
    "transformers": write_transformers.TARGET,
    "onnx": write_onnx.TARGET,
}
"""Formats with a folder of their own."""
FORMATS = (*DEFAULT, *FOLDERS)


class Subject(NamedTuple):
    """What is exported.

    Attributes:
      encoder: the encoder.
      facts: content of ``encoder.json``.
      card: what model cards say.
    """

    encoder: Encoder
    facts: Mapping[str, Any]
    card: Card


def export_encoder(
    workdir: Path,
    out: Path,
    *,
    step: str = "latest",
    formats: Sequence[str] = DEFAULT,
    license: str = NO_LICENSE,
) -> None:
    """Write the encoder of a run, by default ``encoder.safetensors``, ``encoder.stablehlo`` and ``encoder.json``.

    Args:
      workdir: folder of the run.
      out: folder to write to; made if it is missing.
      step: checkpoint: ``latest``, ``best`` or a number of steps.
      formats: of :data:`FORMATS`; those of :data:`FOLDERS` get a folder of their own in ``out``.
      license: of the weights, for the model card.

    Raises:
      ValueError: an unknown format, one that cannot express the encoder, or a folder that holds something else. Then nothing is
        written.
    """
    require_formats(formats)
    require_license(license)
    write(subject_of_run(workdir, step, license), out, formats)


def export_pretrained(
    name: str, out: Path, *, formats: Sequence[str] = DEFAULT, license: str = NO_LICENSE
) -> None:
    """Write an encoder that somebody trained in other formats.

    Args:
      name: see :func:`ssl_jax.interop.load_pretrained`.
      out: as in :func:`export_encoder`.
      formats: likewise.
      license: likewise.

    Raises:
      ValueError: as of :func:`export_encoder`, or weights that cannot be loaded.
    """
    require_formats(formats)
    require_license(license)
    write(subject_of_weights(name, license), out, formats)


def require_formats(formats: Sequence[str]) -> None:
    """Refuse names that are no formats.

    Raises:
      ValueError: an unknown one, or none at all.
    """
    require(bool(formats), "to", list(formats), f"one or more of {', '.join(FORMATS)}")
    for name in formats:
        choice("to", name, FORMATS)


def require_license(license: str) -> None:
    """Refuse a licence that says nothing.

    Raises:
      ValueError: it is blank.
    """
    require(bool(license.strip()), "license", license, f"a name such as apache-2.0, or {NO_LICENSE}")


def subject_of_run(workdir: Path, step: str, license: str) -> Subject:
    """Restore the encoder of a run, and what is known of it."""
    config, method, model = build.restore(workdir, step)
    view, channels = method.views[0], config["data"]["channels"]
    crop_ratio = config["watch"]["evaluate"]["crop_ratio"]
    # As embedding and evaluation prepare images, whose shorter side they round.
    preprocessing = Preprocessing(
        (view.size, view.size),
        crop_ratio=view.size / round(view.size / crop_ratio),
        mean=one_each(view.mean or (0.0,), channels),
        std=one_each(view.std or (1.0,), channels),
    )
    variables = method.encoder_variables(model.params, model.state)
    encoder = encoder_of(method.encoder, *variables, preprocessing, license=license)
    facts = {
        "method": config["method"]["name"],
        "step": model.step,
        "image_shape": [view.size, view.size, channels],
        "mean": list(view.mean),
        "std": list(view.std),
        "features": method.encoder.features,
        "weights": whose_weights(method, model),
        "crop_ratio": crop_ratio,
        "preprocessing": preprocessing._asdict(),
        "license": license,
    }
    return Subject(encoder, json.loads(json.dumps(facts)), card_of_run(workdir, config, encoder, facts))


def subject_of_weights(name: str, license: str) -> Subject:
    """Load an encoder that somebody trained, and what is known of it."""
    loaded = load_pretrained(name)
    encoder = encoder_of(loaded.network, loaded.params, loaded.state, loaded.preprocessing, license=license)
    provenance = {key: value for key, value in loaded.provenance.items() if key not in ("file", "files")}
    source = Path(name).name if Path(name).exists() else name
    provenance["name"] = source  # without the folders of somebody's disk
    facts = {
        "method": str(loaded.provenance.get("method", loaded.provenance["family"])),
        "step": 0,
        "image_shape": [*loaded.preprocessing.size, encoder.channels],
        "mean": list(loaded.preprocessing.mean),
        "std": list(loaded.preprocessing.std),
        "features": loaded.network.features,
        "weights": str(loaded.provenance.get("part") or "as in the file"),
        "preprocessing": loaded.preprocessing._asdict(),
        "license": license,
        "provenance": provenance,
    }
    rows = {
        "weights": f"{source}, {loaded.provenance['family']}",
        **{
            key: str(value)
            for key, value in provenance.items()
            if key in ("part", "revision", "sha256", "dtype")
        },
        **encoder_rows(encoder),
    }
    summary = f"An image encoder converted by ssl_jax from `{source}`; it was not trained by this conversion."
    tags = (encoder.network.config["name"],)
    card = Card(f"{encoder.network.config['name']} of {source}", summary, rows, license=license, tags=tags)
    return Subject(encoder, json.loads(json.dumps(facts, default=str)), card)


def one_each(numbers: Sequence[float], channels: int) -> tuple[float, ...]:
    """Give each channel its number where there is one for all.

    >>> one_each((0.5,), 3)
    (0.5, 0.5, 0.5)
    """
    return tuple(float(x) for x in np.broadcast_to(np.asarray(numbers, float), (channels,)))


def whose_weights(method: Method, model: RestoredModel) -> str:
    """Tell whose weights evaluation and export use.

    Args:
      method: of the run.
      model: its checkpoint.

    Returns:
      ``"student"``, whom the optimizer trained, or ``"teacher"``, the average of him.
    """
    exported, _ = method.encoder_variables(model.params, model.state)
    # Methods hand out the very arrays of params, or those that the state holds.
    trained = {id(leaf) for leaf in jax.tree.leaves(model.params)}
    return "student" if any(id(leaf) in trained for leaf in jax.tree.leaves(exported)) else "teacher"


WHOSE = {
    "student": "those that the optimizer trained (student)",
    "teacher": "the moving average of the trained ones (EMA teacher)",
}


def card_of_run(workdir: Path, config: build.Config, encoder: Encoder, facts: Mapping[str, Any]) -> Card:
    """Say on a model card what a run did, and how good its encoder was found to be."""
    name, method, data = encoder.network.config["name"], facts["method"], config["data"]
    recorded = read_images(workdir)
    count = recorded.num_images if recorded is not None else data.get("num_examples")
    seen = facts["step"] * config["batch_size"]
    epochs = f", {seen / count:.1f} epochs" if count else ""
    source = public_source(data["source"])
    rows = {
        "method": method,
        **encoder_rows(encoder),
        "weights": WHOSE[facts["weights"]] + (", LoRA merged" if config["encoder"].get("lora_rank") else ""),
        "started from": started_from(workdir, config),
        "data": f"{source}, split {data['split']}" + (f", {count:,} images" if count else ""),
        "budget": f"{facts['step']:,} steps of {config['batch_size']:,} images: {seen:,} images seen{epochs}",
        "seed": str(config["seed"]),
    }
    return Card(
        f"{name}, {method} on {source}",
        f"An image encoder, pretrained by {method} with ssl_jax on {source}.",
        rows,
        evaluation_of(workdir, facts["step"]),
        facts["license"],
        (method, name),
    )


def encoder_rows(encoder: Encoder) -> dict[str, str]:
    """Describe an encoder and its input in rows of a model card."""
    config, preprocessing = encoder.network.config, encoder.preprocessing
    height, width = preprocessing.size
    resize = {
        "short": f"shorter side to {round(min(height, width) / preprocessing.crop_ratio)}, center crop",
        "squash": "both sides resized, whatever the shape",
    }.get(preprocessing.resize, preprocessing.resize)
    usual = BUILDERS[config["name"]]().config
    special = [f"{key}={value}" for key, value in config.items() if key != "name" and usual.get(key) != value]
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(encoder.params))
    return {
        "encoder": ", ".join([config["name"], *special, f"{count / 1e6:.2f} M parameters"]),
        "input": f"{height} x {width} pixels, {encoder.channels} channel(s): {resize}, {preprocessing.interpolation}; "
        f"mean {listed(preprocessing.mean)}, std {listed(preprocessing.std)} in [0, 1]",
        "features": f"{encoder.network.features} numbers: {snippets.pooling(encoder)}",
    }


def listed(numbers: Sequence[float]) -> str:
    """Format numbers with four digits.

    >>> listed((0.4855, 0.5))
    '0.4855, 0.5'
    """
    return ", ".join(f"{number:.4g}" for number in numbers)


def public_source(source: str) -> str:
    """Name a source of images without the folders of somebody's disk.

    >>> public_source("folder:/home/me/photos/"), public_source("tfds:cifar10"), public_source("embedded")
    ('folder:photos', 'tfds:cifar10', 'embedded')
    """
    kind, colon, place = source.partition(":")
    return f"{kind}{colon}{redact(place).rstrip('/').split('/')[-1]}"


def started_from(workdir: Path, config: build.Config) -> str:
    """Say what a run began with."""
    weights = config["encoder"].get("weights")
    if not weights:
        return "random weights"
    record = workdir / RECORD
    known = json.loads(record.read_text()) if record.exists() else {}
    facts = [f"{key} {known[key]}" for key in ("family", "part", "revision", "sha256") if known.get(key)]
    return ", ".join([Path(weights).name if "/" in weights and ":" not in weights else weights, *facts])


def evaluation_of(workdir: Path, step: int) -> str:
    """Return the table of ``evaluation.json`` of a run, as far as it is about this step."""
    file = workdir / "evaluation.json"
    try:
        result = json.loads(file.read_text())
        if result["step"] != step or not result["rows"]:
            return ""
        return evaluation_table({**result, "source": public_source(result["source"])}, markdown=True)
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_to_bucket(subject: Subject, out: Path, formats: Sequence[str]) -> None:
    """Write to a folder here, then copy file by file, the facts last."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "export"
        write(subject, made, formats)
        files = sorted(path for path in made.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: path.suffix in (".json", ".md")):
            write_atomically(out / str(path.relative_to(made)), path.read_bytes())
    print(f"copied to {out}")


def write(subject: Subject, out: Path, formats: Sequence[str]) -> None:
    """Write an encoder in several formats: all of them, or nothing.

    Everything is made in a hidden folder inside ``out``, and moved when all of it is there. A folder of a format that an
    earlier export left is replaced as a whole.

    Args:
      subject: what is written.
      out: folder to write to; made if it is missing.
      formats: names of formats.
    """
    formats = list(dict.fromkeys(formats))
    for name in formats:
        if name in FOLDERS:
            FOLDERS[name].check(subject.encoder)
    if isinstance(out, BucketPath):
        _write_to_bucket(subject, out, formats)
        return
    require_free(out, formats)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    hidden.chmod(0o777 & ~current_umask())
    try:
        uses = {name: WRITERS[name](subject, hidden) for name in formats if name in DEFAULT}
        if uses:
            write_facts(subject, hidden, uses, library="ssl_jax")
        for name in formats:
            if name in FOLDERS:
                folder = hidden / name
                folder.mkdir()
                code = FOLDERS[name].write(subject.encoder, folder)
                write_facts(subject, folder, {name: code}, library=name)
        written = publish(hidden, out)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in made:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    print(f"{out}: {', '.join(written)}")
    print(f"weights: {WHOSE.get(subject.facts['weights'], subject.facts['weights'])}")


def current_umask() -> int:
    """Return the umask of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_free(out: Path, formats: Sequence[str]) -> None:
    """Refuse a folder that holds what no export has written and would be replaced.

    Raises:
      ValueError: names the file or folder.
    """
    require(out.is_dir() or not out.exists(), "out", str(out), "a folder, and this is a file")
    if any(name in DEFAULT for name in formats) and (out / CARD).exists() and not (out / FACTS).exists():
        raise ValueError(f"out={str(out)!r}: it has a {CARD} that no export wrote: choose another folder")
    for folder in (out / name for name in formats if name in FOLDERS):
        if folder.exists() and not (folder / FACTS).exists() and (folder.is_file() or any(folder.iterdir())):
            raise ValueError(f"out={str(out)!r}: {folder} holds what no export wrote: choose another folder")


def write_facts(subject: Subject, folder: Path, uses: Mapping[str, str], *, library: str) -> None:
    """Write ``encoder.json`` and the model card."""
    (folder / FACTS).write_text(json.dumps(subject.facts, indent=2) + "\n")
    (folder / CARD).write_text(write_card(subject.card, uses, library=library))


def publish(hidden: Path, out: Path) -> list[str]:
    """Move what was made to where it belongs, and return the names of it."""
    order = [*(ENCODER, PROGRAM, FACTS, CARD), *FOLDERS]
    names = sorted((path.name for path in hidden.iterdir()), key=order.index)
    for name in names:
        made, place = hidden / name, out / name
        if made.is_dir() and place.exists():
            place.rename(hidden / f"replaced-{name}")
        made.replace(place)
    shutil.rmtree(hidden)
    return [f"{name}/" if name in FOLDERS else name for name in names]


def write_ssl_jax(subject: Subject, folder: Path) -> str:
    """Write ``encoder.safetensors``, and return how to use it."""
    encoder = subject.encoder
    save_encoder(folder / ENCODER, encoder.network, encoder.params, encoder.state, metadata=subject.facts)
    picture = '"photo.png"' if encoder.channels in snippets.MODES else 'np.load("photo.npy")'
    return "\n".join(
        [
            *(["import numpy as np"] if encoder.channels not in snippets.MODES else []),
            "import ssl_jax",
            "",
            'model = ssl_jax.load(".")',
            f"features = model.embed({picture})  # [1, {encoder.network.features}]",
        ]
    )


def write_stablehlo(subject: Subject, folder: Path) -> str:
    """Write ``encoder.stablehlo``, and return how to use it."""
    encoder, preprocessing = subject.encoder, subject.encoder.preprocessing

    def encode(images: Array) -> Array:
        normal = normalize(images, mean=preprocessing.mean, std=preprocessing.std)
        return at_least_float32(encoder.network.apply(encoder.params, encoder.state, normal)[0])

    export_stablehlo(folder / PROGRAM, encode, (*preprocessing.size, encoder.channels))
    return "\n".join(
        [
            "from pathlib import Path",
            "import numpy as np",
            "from jax import export",
            "from PIL import Image",
            "",
            f'program = export.deserialize(bytearray(Path("{PROGRAM}").read_bytes()))',
            *snippets.unit_pixels(encoder),
            "# The program normalises by itself.",
            "features = program.call(pixels[None])",
            f"print(features.shape)  # (1, {encoder.network.features})",
        ]
    )


WRITERS: Mapping[str, Callable[[Subject, Path], str]] = {
    "ssl_jax": write_ssl_jax,
    "stablehlo": write_stablehlo,
}
