"""What does the backbone keep that the projector throws away? Chen et al. 2020, table 3; Bordes et al. 2022.

python -m experiments.studies.inversion
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.color import DATA
from experiments.studies.command import run
from ssl_jax.cli.study import (
    Claim,
    Measurements,
    Results,
    Study,
    Variant,
    all_of,
    within_runs,
)
from ssl_jax.cli.study_runs import TrainedVariant
from ssl_jax.config import build
from ssl_jax.config.images import open_images
from ssl_jax.evaluate.inversion import (
    Training,
    build_inverter,
    feature_statistics,
    images_as_seen,
    readings,
    reconstruction_error,
    train_decoder,
)
from ssl_jax.evaluate.measure import Candidate
from ssl_jax.evaluate.transformations import transformation_accuracies

METHODS = {"simclr": "SimCLR", "byol": "BYOL", "vicreg": "VICReg"}
READ = ("backbone", "projector")
TRAINING = Training(steps=500, batch_size=64, learning_rate=2e-3, width=16)
"""Of each decoder: 32,000 images."""
PUBLISHED = {"rotation": (67.6, 25.6), "noise": (99.5, 59.6), "color": (99.3, 97.4)}
"""What SimCLR's table 3 has of the transformations that are measured here, in percent: before and after the projector."""


def inverted(config: build.Config, trained: TrainedVariant) -> dict[str, float]:
    """Measure how well pixels and transformations are predicted from backbone and projector.

    Returns:
      For each of the two ``<name>_pixels``, the share of the variance of test pixels that a trained decoder gives back;
      ``<name>_transformations``, the mean accuracy of a linear probe over all transformations, and
      ``<name>_transformations_<transformation>``.
    """
    data, options, method = config["data"], config["watch"]["evaluate"], trained.objects.method
    state = trained.final
    candidate = Candidate("trained", "encoder", method, state.params, state.state)
    sources = (
        open_images(config, data["source"], options["train_split"]),
        open_images(config, data["source"], options["test_split"]),
    )
    train, test = (images_as_seen(candidate, source, options["crop_ratio"]) for source in sources)
    size, channels = method.views[0].size, train.channels
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    found = readings(method, image, state.params, state.state)
    reads = {name: found[name] for name in READ}
    measures = {}
    for name, read in reads.items():
        inverter = build_inverter(candidate, read, channels=channels, width=TRAINING.width)
        statistics = feature_statistics(candidate, read, train)
        training = TRAINING._replace(seed=config["seed"])
        fitted = train_decoder(inverter, candidate, statistics, train, training=training)
        measures[f"{name}_pixels"] = reconstruction_error(inverter, fitted.state, test)["explained"]
    rows = transformation_accuracies(candidate, sources, reads, crop_ratio=options["crop_ratio"])
    for name in reads:
        measures[f"{name}_transformations"] = float(np.mean([row[name] for row in rows]))
        measures |= {f"{name}_transformations_{row['transformation']}": row[name] for row in rows}
    return measures


def kept(measured: Measurements, what: str) -> str:
    """Write a measure of backbone and projector, and their difference."""
    names = [f"{name}_{what}" for name in READ]
    return f"{measured.text(names[0])} against {measured.text(names[1])}: {within_runs(measured, names[0], names[1]).text}"


def claims(results: Results) -> list[Claim]:
    """What the two papers conclude."""
    by_method = {label: results[label] for label in METHODS.values()}

    def every_method(text: str, what: str) -> Claim:
        gaps = [within_runs(m, *(f"{name}_{what}" for name in READ)) for m in by_method.values()]
        evidence = "; ".join(f"{label} {kept(m, what)}" for label, m in by_method.items())
        return Claim(text, all_of(gap.exceeds() for gap in gaps), evidence)

    simclr = by_method[METHODS["simclr"]]
    return [
        every_method(
            "With every method more of the pixels comes back from the backbone than from the projector.",
            "pixels",
        ),
        every_method(
            "With every method a linear probe predicts the transformation of an image better from the backbone.",
            "transformations",
        ),
        *(
            Claim(
                f"SimCLR's backbone predicts {name} better than its projector (there: {before} % against {after} %).",
                within_runs(simclr, *(f"{read}_transformations_{name}" for read in READ)).exceeds(),
                kept(simclr, f"transformations_{name}"),
            )
            for name, (before, after) in PUBLISHED.items()
        ),
    ]


STUDY = Study(
    name="inversion",
    title="What does the backbone keep that the projector throws away?",
    question="The projector is trained to be invariant to the augmentations, and is thrown away. Is what it forgets still in "
    "the features before it: the pixels, and what was done to the image?",
    source="Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, section 4.2 and "
    "table 3 (SimCLR, ResNet-50, ImageNet; MLPs that predict transformations before and after the projector); Bordes et al., "
    "High Fidelity Visualization of What Your Self-Supervised Representation Knows About, TMLR 2022 (pictures, no number)",
    published_as="published",
    variants=tuple(Variant(label, method) for method, label in METHODS.items()),
    claims=claims,
    columns={
        "kNN": "knn",
        "linear": "linear",
        **{f"pixels explained, {name}": f"{name}_pixels" for name in READ},
        **{f"transformations, {name}": f"{name}_transformations" for name in READ},
        **{f"{what}, {name}": f"{name}_transformations_{what}" for what in PUBLISHED for name in READ},
    },
    measured={"inverted": inverted},
    data=DATA,
    notes=f"Pixels explained: 1 less the squared error of a convolutional decoder, trained on {TRAINING.steps} batches of "
    f"{TRAINING.batch_size} training images, over that of the mean image, on test images. A decoder that is too weak explains "
    "less of either: the two are compared, their height is not. Transformations: accuracy of ridge regression onto the "
    "values of each parameter (rotation, flip, crop, brightness, hue, color, blur, noise), on images that it was not fitted "
    "to; where the paper trains MLPs. Backbone and projector have different numbers of features, in the paper too. `noise` is "
    "the paper's corruption. Pictures of single runs: `python -m experiments.invert`.",
)

if __name__ == "__main__":
    run(STUDY)
