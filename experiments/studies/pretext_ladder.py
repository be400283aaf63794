"""What each layer has learnt: the pretext and generative methods from which modern ones descend, probed layer by layer.

python -m experiments.studies.pretext_ladder
"""

from collections.abc import Callable

import jax.numpy as jnp

from experiments.studies.command import run
from ssl_jax.cli.study import Claim, Results, Study, Variant
from ssl_jax.config import build
from ssl_jax.core.types import Array, Params, State
from ssl_jax.models.convnet import pool_to_grid

PRETEXT = {
    "exemplar": ("exemplars", None),
    "relative_location": ("relative location", 29.6),
    "jigsaw": ("jigsaw", 28.3),
    "counting": ("learning to count", 25.7),
    "rotation": ("rotation", None),
}
"""Label and the published accuracy of AlexNet's last convolution."""
GENERATIVE = {
    "autoencoder": ("autoencoder", None),
    "denoising_autoencoder": ("denoising autoencoder", None),
    "context_encoder": ("context encoder", 15.5),
    "bigan": ("BiGAN", 28.0),
}
PERCEPTRONS = {"greedy": "greedy layers", "dbn": "deep belief network"}
LATER = {"simclr": "SimCLR", "supervised": "supervised"}
GRIDS = (4, 3, 2, 2)
"""To which each map is pooled, so that every layer has about 256 features, as the papers' have about 9,000."""
WIDTHS = (16, 32, 64, 64)


def layers(config: build.Config) -> dict[str, Callable[..., Array]]:
    """Features of each block of a convolutional encoder, or of each layer of a perceptron."""
    method = build.method(config)
    names = "block" if config["encoder"]["name"] == "convnet" else "dense"

    def at(i: int) -> Callable[..., Array]:
        def encode(params: Params, state: State, images: Array) -> Array:
            outputs, _ = method.encoder.apply(
                *method.encoder_variables(params, state), images, output="layers"
            )
            layer = jnp.float32(outputs[f"{names}_{i}"])
            return (pool_to_grid(layer, grid=GRIDS[i]) if names == "block" else layer).reshape(
                len(images), -1
            )

        return encode

    return {f"layer_{i + 1}": at(i) for i in range(len(config["encoder"]["widths"]))}


LAYERS = tuple(f"layer_{i + 1}" for i in range(len(WIDTHS)))


def profile(results: Results, name: str) -> list[float]:
    """Mean linear accuracy of every layer of a variant."""
    return [results[name].mean(f"{layer}_linear") for layer in LAYERS]


def claims(results: Results) -> list[Claim]:
    """What the papers' tables of AlexNet, layer by layer, say."""
    early = {label: profile(results, label) for label, _ in [*PRETEXT.values(), *GENERATIVE.values()]}
    falling = [label for label, values in early.items() if max(values) > values[-1]]
    drop = {label: max(values) - values[-1] for label, values in early.items()}
    most = max(drop, key=lambda label: drop[label])
    supervised = profile(results, LATER["supervised"])
    best = max(early, key=lambda label: max(early[label]))
    simclr = profile(results, LATER["simclr"])
    return [
        Claim(
            "Pretext and generative methods are best before their last layer (Zhang et al. 2016, Noroozi et al. 2017).",
            len(falling) > len(early) / 2,
            f"{len(falling)} of {len(early)}; {most} falls the most, by {drop[most]:.1f} points",
        ),
        Claim(
            "Supervised training is best at its last layer.",
            supervised[-1] == max(supervised),
            ", ".join(f"{value:.1f}" for value in supervised),
        ),
        Claim(
            "The contrastive successor is better than all of them.",
            max(simclr) > max(early[best]),
            f"best layer of SimCLR {max(simclr):.1f}, of {best} {max(early[best]):.1f}",
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
        *(Variant(label, method, {"encoder.widths": (256, 256)}) for method, label in PERCEPTRONS.items()),
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
    notes="Four convolutions of 16, 32, 64 and 64 channels; maps are pooled so that each layer has 256 features (288 of the "
    "second). Greedy layers and the deep belief network are perceptrons of two layers of 256. Colorization, which needs "
    "colours, and the methods on clips, which need time, are not here: these images have neither. Dotted lines and `random "
    "encoder` are the convolutional network's before training, which falls from layer to layer too: what a method has "
    "learnt is its distance from there.",
)

if __name__ == "__main__":
    run(STUDY)
