"""experiments.dense and experiments.evaluate on images with masks: rows, what is not made again, errors in one line."""

import json

import numpy as np
import pytest

from ssl_jax.cli.dense import dense_table, encoder_name, measure_dense, row_key, tables_of
from ssl_jax.cli.evaluate import evaluate_encoder
from ssl_jax.cli.pixel_targets import PixelOptions, open_pixel_targets
from ssl_jax.core.rows import read_rows
from ssl_jax.data.masks import MaskFormat
from ssl_jax.evaluate.dense.framing import Framing
from ssl_jax.evaluate.measures import parse_measures
from tests.data.images import encode

COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
CONFIG = {"data": {"channels": 3}}
OPTIONS = PixelOptions(framing=Framing(size=32), given=True)


@pytest.fixture
def scenes(tmp_path):
    """A folder of colored squares with their masks."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), int))
            (tmp_path / "images" / split / f"{i}.png").write_bytes(encode(COLORS[mask].astype(np.uint8)))
            (tmp_path / "masks" / split / f"{i}.png").write_bytes(encode(mask.astype(np.uint8)))
    return f"folder:{tmp_path}"


def test_targets_are_opened_where_a_measure_of_pixels_is_named_or_a_flag_given(scenes):
    both, every = ("train", "test"), parse_measures(["all"])
    assert open_pixel_targets(CONFIG, scenes, both, PixelOptions(), every, ["all"]) is None
    assert open_pixel_targets(CONFIG, scenes, both, OPTIONS, parse_measures(["knn"]), ["knn"]) is None
    for options, named in ((OPTIONS, ["all"]), (PixelOptions(), ["segmentation"])):
        found = open_pixel_targets(CONFIG, scenes, both, options, parse_measures(named), named)
        assert [len(part) for part in found.sources] == [12, 4] and found.framing == options.framing
    with pytest.raises(
        ValueError, match=r"--measures=segmentation: allowed with --source=parquet:.*embedded"
    ):
        chosen = parse_measures(["segmentation"])
        open_pixel_targets(CONFIG, "embedded", both, PixelOptions(), chosen, ["segmentation"])


def rows_of(method, encoder, *values):
    given = {"source": "parquet:x/camvid", "map_size": None, "map_align": "resize", "map_layers": 1}
    way = {"segmentation": {"ceiling": {"miou": 0.75}}}
    return [
        {**given, "method": method, "encoder": encoder, "seed": seed, "miou_linear": value, **way}
        for seed, value in enumerate(values)
    ]


def test_a_table_has_a_line_for_each_encoder_the_best_first_with_the_deviation_over_seeds():
    rows = [*rows_of("raw pixels", "", 0.1), *rows_of("mae", "vit_micro, patch 8", 0.3, 0.32, 0.34)]
    lines = dense_table(rows).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["mae", "raw pixels"]
    assert "32.0 ± 2.0" in lines[1] and "75.0" in lines[1]
    assert tables_of([]) == "Not run yet." and tables_of(rows, markdown=True).startswith(
        "**camvid, as stored**"
    )


def test_an_architecture_has_a_short_name():
    assert encoder_name({"encoder": {"name": "resnet18", "width": 0.5}}) == "resnet18, width 0.5"
    assert encoder_name({"encoder": {"name": "convnet", "widths": (4, 6)}}) == "convnet"


def test_a_measure_that_is_not_of_pixels_is_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match="measures='knn'"):
        measure_dense(scenes, tmp_path / "rows.jsonl", pixels=OPTIONS, measures=["knn"])


@pytest.mark.long
def test_rows_are_made_once_and_a_command_goes_on(scenes, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    given = {"pixels": OPTIONS, "random": ["simclr:smoke"]}
    rows = measure_dense(scenes, out, **given)
    assert [(row["method"], row["seed"]) for row in rows] == [("random encoder", 0), ("raw pixels", 0)]
    assert all(row["miou_linear"] > 0.2 and row["measures"] == ["segmentation"] for row in rows)
    capsys.readouterr()
    again = measure_dense(scenes, out, seeds=(0, 1), **given)
    assert capsys.readouterr().out.count("measured") == 1 and len(again) == 3
    assert read_rows(out) == sorted(again, key=row_key)
    other = measure_dense(scenes, out, pixels=OPTIONS._replace(format=MaskFormat(void=(2, 255))), minutes=0)
    assert len(other) == 3


@pytest.mark.long
def test_an_encoder_is_measured_by_everything_with_masks(scenes, tmp_path):
    import jax
    import jax.numpy as jnp

    from ssl_jax import models
    from ssl_jax.models.serialize import save_encoder

    network = models.build("convnet", widths=(4, 6))
    variables = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    facts = {"image_shape": [32, 32, 3], "mean": [0.5] * 3, "std": [0.25] * 3}
    save_encoder(tmp_path / "e.safetensors", network, *variables, metadata=facts)
    out = tmp_path / "evaluation.json"
    evaluate_encoder(
        str(tmp_path / "e.safetensors"),
        scenes,
        out=out,
        splits=("train", "test"),
        measures=["segmentation"],
        baselines=("pixels", "pca"),
    )
    rows = json.loads(out.read_text())["rows"]
    assert [("miou_linear" in row) for row in rows] == [True, False, True]
