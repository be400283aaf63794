"""What each layer has learnt: the pretext and generative methods from which modern ones descend, probed layer by layer.

python -m experiments.studies.pretext_ladder
"""

from collections.abc import Callable

import jax.numpy as jnp

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import (
    Claim,
    Difference,
    Measurements,
    Results,
    Study,
    Variant,
    Verdict,
    smallest_difference,
    within_runs,
)
from ssl_jax.config import build
from ssl_jax.core.types import Array, Params, State
from ssl_jax.models.convnet import pool_to_grid

PRETEXT = {
    "exemplar": ("exemplars", None),
    "relative_location": ("relative location", 29.6),
    "jigsaw": ("jigsaw", 28.3),
    "counting": ("learning to count", 25.7),
    "rotation": ("rotation", None),
    "colorization": ("colorization", None),
}
"""Label and the published accuracy of AlexNet's last convolution."""
GENERATIVE = {
    "autoencoder": ("autoencoder", None),
    "denoising_autoencoder": ("denoising autoencoder", None),
    "context_encoder": ("context encoder", 15.5),
    "bigan": ("BiGAN", 28.0),
}
LATER = {"simclr": "SimCLR", "supervised": "supervised"}
GRIDS = (4, 3, 2, 2)
"""To which each map is pooled, so that every layer has about 256 features, as the papers' have about 9,000."""
WIDTHS = (16, 32, 64, 64)


def layers(config: build.Config) -> dict[str, Callable[..., Array]]:
    """Features of each block of the convolutional encoder."""
    method = build.method(config)

    def at(i: int) -> Callable[..., Array]:
        def encode(params: Params, state: State, images: Array) -> Array:
            outputs, _ = method.encoder.apply(
                *method.encoder_variables(params, state), images, output="layers"
            )
            layer = jnp.float32(outputs[f"block_{i}"])
            return pool_to_grid(layer, grid=GRIDS[i]).reshape(len(images), -1)

        return encode

    return {f"layer_{i + 1}": at(i) for i in range(len(config["encoder"]["widths"]))}


LAYERS = tuple(f"layer_{i + 1}" for i in range(len(WIDTHS)))


def best_layer(measured: Measurements) -> str:
    """The measure of the layer with the highest mean accuracy."""
    return max((f"{layer}_linear" for layer in LAYERS), key=measured.mean)


def fall(measured: Measurements) -> Difference:
    """Points lost from the best layer to the last one."""
    return within_runs(measured, best_layer(measured), f"{LAYERS[-1]}_linear")


def lead(first: Measurements, second: Measurements) -> Difference:
    """Points by which the best layer of one method is better than that of another one."""
    values = [measured.values(best_layer(measured)) for measured in (first, second)]
    return Difference(float(values[0].mean() - values[1].mean()), smallest_difference(values))


def claims(results: Results) -> list[Claim]:
    """What the papers' tables of AlexNet, layer by layer, say."""
    early = [label for label, _ in [*PRETEXT.values(), *GENERATIVE.values()]]
    falls = {label: fall(results[label]) for label in early}
    sure = [label for label in early if falls[label].exceeds() is Verdict.HOLDS]
    against = [label for label in early if falls[label].exceeds() is Verdict.FAILS]
    most = Verdict.HOLDS if 2 * len(sure) > len(early) else Verdict.OPEN
    supervised = results[LATER["supervised"]]
    best = max(early, key=lambda label: results[label].mean(best_layer(results[label])))
    ahead = lead(results[LATER["simclr"]], results[best])
    return [
        Claim(
            "Most pretext and generative methods are best before their last layer (Zhang et al. 2016, Noroozi et al. 2017).",
            Verdict.FAILS if 2 * len(against) >= len(early) else most,
            "points lost from the best layer to the last: "
            + ", ".join(f"{label} {value.text}" for label, value in falls.items()),
        ),
        Claim(
            "Supervised training is best at its last layer.",
            fall(supervised).is_within(),
            f"points lost from the best layer to the last: {fall(supervised).text}",
        ),
        Claim(
            "The contrastive successor is better than all of them, each at its best layer.",
            ahead.exceeds(),
            f"SimCLR less {best}: {ahead.text}",
        ),
        Claim(
            "Rotation is the best of the tasks without reconstruction (Gidaris et al. 2018).",
            min(
                (
                    lead(results["rotation"], results[label]).exceeds()
                    for label, _ in PRETEXT.values()
                    if label != "rotation"
                ),
                key=[Verdict.FAILS, Verdict.OPEN, Verdict.HOLDS].index,
            ),
            ", ".join(
                f"{label} {results[label].mean(best_layer(results[label])):.1f}"
                for label, _ in PRETEXT.values()
            ),
        ),
    ]


STUDY = Study(
    name="pretext_ladder",
    title="What has each layer learnt?",
    question="Before views of an image were compared, networks turned images, solved puzzles, painted, denoised. Their last "
    "layers learn the task rather than the image: which layer is worth the most, and how far is it from what came later?",
    source="AlexNet on ImageNet, linear accuracy of conv5, as the papers repeat it: Doersch et al. 2015, Noroozi & Favaro 2016,"
    " Noroozi et al. 2017, Pathak et al. 2016, Donahue et al. 2017",
    published_as="published, conv5",
    variants=(
        *(
            Variant(label, method, published=number)
            for method, (label, number) in {**PRETEXT, **GENERATIVE}.items()
        ),
        *(Variant(label, method) for method, label in LATER.items()),
    ),
    claims=claims,
    columns={
        "kNN": "knn",
        "linear": "linear",
        **{f"linear, layer {i + 1}": f"{n}_linear" for i, n in enumerate(LAYERS)},
    },
    common={"encoder.widths": WIDTHS},
    extra=layers,
    layers=LAYERS,
    data=DATA,
    notes="Four convolutions of 16, 32, 64 and 64 channels; maps are pooled so that each layer has 256 features (288 of the "
    "second). The methods on clips, which need time, are not here. Dotted lines and `random encoder` are the network's before "
    "training, which falls from layer to layer too: what a method has "
    "learnt is its distance from there.",
)

if __name__ == "__main__":
    run(STUDY)
