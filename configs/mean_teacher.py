"""Mean Teacher. Numbers: Tarvainen & Valpola 2017 and CuriousAI/mean-teacher, ``pytorch/experiments``."""

from ssl_jax.config import Recipe, derive, entry, in_color

RECIPES = {
    "fashion_mnist": derive(
        "pi_model",
        "fashion_mnist",
        source="The Π-model's recipe; the teacher averages over about 100 steps.",
        method={"ramp": {"weight": 10.0}, "dropout": 0.0, "decay": 0.99},
    ),
    "cifar10": Recipe(
        source=(
            "4000 labels, 31 of 128 images: SGD 0.05, decay 2e-4, nesterov, weight 100, α 0.97, two classifiers "
            ".01 apart, 180 epochs (of a cosine over 210 there). Noise and dropout are off: the network there, a "
            "Shake-Shake, has its own."
        ),
        backbone="resnet18",
        batch_size=128,
        epochs={"short": 60, "paper": 180},
        warmup_epochs=0,
        method={
            "ramp": {"weight": 100.0},
            "decay": 0.97,
            "logit_distance": 0.01,
            "noise": 0.0,
            "dropout": 0.0,
        },
        views={"preset": "consistency"},
        optimizer={
            "name": "sgd",
            "learning_rate": 0.05,
            "scaling": "none",
            "schedule": "cosine",
            "weight_decay": 2e-4,
            "nesterov": True,
        },
        method_epochs={"ramp.steps": 5},
        num_labels=4000,
        labeled_fraction=0.2421875,
    ),
    "imagenet": derive(
        "pi_model",
        "imagenet",
        source=(
            "A tenth of the labels, half of each batch: KL with weight 10, α 0.9997, two classifiers .01 apart, "
            "60 epochs."
        ),
        method={
            "classes": 1000,
            "ramp": {"weight": 10.0},
            "noise": 0.0,
            "dropout": 0.0,
            "consistency": "kl",
            "decay": 0.9997,
            "logit_distance": 0.01,
        },
    ),
    "folder": derive(
        "pi_model",
        "folder",
        source=(
            "Your own images at 64 pixels, one sub-folder a class: give --config.method.classes and "
            "--config.data.num_labels."
        ),
        method={"ramp": {"weight": 10.0}, "dropout": 0.0, "decay": 0.99},
    ),
}
RECIPES["color32"] = in_color(RECIPES)
SMOKE = {"ramp.steps": 1, "ramp.quiet_steps": 0}
get_config = entry("mean_teacher", RECIPES, smoke=SMOKE)
