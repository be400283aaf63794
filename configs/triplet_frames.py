"""Triplets of frames. Numbers: Wang & Gupta 2015 and xiaolonw/caffe-video_triplet.

The clips of a folder: ``folder`` with ``--config.data.source=frames:PATH``.
"""

from ssl_jax.config import derive, entry

RECIPES = {
    "moving": derive(
        "time_contrastive",
        "moving",
        source=(
            "Garments that move over 40 x 40 pixels, minutes on two CPU cores: two whole frames of a clip, 8 "
            "apart."
        ),
        method={"embedding": 128},
        data={"window": 2, "stride": 8},
    ),
    "folder": derive(
        "time_contrastive",
        "folder",
        source="Your own clips at 64 pixels: two frames 29 apart, the first and the last of the paper's tracks.",
        views={"preset": "mae", "area": (0.5, 1.0)},
        data={"window": 2, "stride": 29},
    ),
}
SMOKE = {"negatives": 32, "embedding": 16}
get_config = entry("triplet_frames", RECIPES, smoke=SMOKE, dataset="moving")
