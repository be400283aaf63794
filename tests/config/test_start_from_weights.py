"""What a config takes from the weights that a run starts from, what is refused, and the state at step 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.cli.show import describe_config
from ssl_jax.config import build, weights
from ssl_jax.config.load import load_config
from ssl_jax.core import trees
from ssl_jax.models.channels import change_channels
from ssl_jax.ops.queue import queue_init
from ssl_jax.train.loop import fit
from ssl_jax.train.step import make_init
from tests.weights_file import RESNET, VIT, write_weights


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    names = {name: str(folder / f"{name}.safetensors") for name in ("vit", "gray", "resnet", "mean")}
    write_weights(names["vit"])
    write_weights(names["gray"], channels=1)
    write_weights(names["mean"], class_token=False, pool="mean", mask_token=True)
    write_weights(names["resnet"], **RESNET)
    return names


def config_of(method, file, arguments="smoke", **options):
    changes = {"encoder.weights": file, **{f"encoder.{key}": value for key, value in options.items()}}
    return build.to_dict(load_config(f"configs/{method}.py:{arguments}", changes))


def test_architecture_and_normalization_are_those_of_the_file(files):
    config = config_of("byol", files["gray"])
    encoder = config["encoder"]
    assert {name: encoder[name] for name in VIT} == VIT
    assert encoder["weights"] == files["gray"] and encoder["frozen_share"] == 0.1 and not encoder["lora_rank"]
    assert config["views"]["mean"] == (0.4,) and config["views"]["std"] == (0.2,)
    assert config["watch"]["evaluate"]["crop_ratio"] == pytest.approx(0.875)
    plain = build.to_dict(load_config("configs/byol.py:smoke"))
    assert plain["encoder"].keys().isdisjoint(weights.START)


def test_one_channel_is_normalized_by_the_means_of_the_file(files):
    views = config_of("byol", files["vit"])["views"]
    assert views["mean"] == (0.5,) and views["std"] == (0.25,)


def test_recipe_gives_what_changes_no_array(files):
    assert config_of("simmim", files["vit"])["encoder"]["mask_token"] is True
    assert config_of("simclr", files["mean"])["encoder"]["mask_token"] is True
    assert config_of("simclr", files["vit"], drop_path=0.2)["encoder"]["drop_path"] == 0.2


def test_smaller_views_keep_their_share_in_whole_patches(files):
    views = config_of("dino", files["vit"], "imagenet")["views"]
    assert (views["size"], views["local_size"]) == (28, 14)
    # 96 of 224 pixels are 12 of 28, in patches of 7.


def test_a_run_that_goes_on_needs_no_file(files, tmp_path):
    path = tmp_path / "a.safetensors"
    write_weights(path)
    changes = {"encoder.weights": str(path), "encoder.drop_path": "0.1"}
    recorded = build.to_dict(load_config("configs/byol.py:smoke", changes))
    path.unlink()
    weights.forget_weights()
    assert build.to_dict(load_config("configs/byol.py:smoke", changes, recorded=recorded)) == recorded
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        load_config("configs/byol.py:smoke", changes)


@pytest.mark.parametrize(
    ("method", "file", "options", "message"),
    [
        ("mae", "resnet", {}, "mae cannot start from .*resnet.*: encoder='resnet18': allowed is a ViT"),
        (
            "ijepa",
            "vit",
            {},
            "ijepa cannot start from .*: encoder='vit_micro': allowed is a ViT with class_token=False",
        ),
        ("jigsaw", "vit", {}, r"jigsaw cannot start from .*: .*allowed is multiples of patch=7"),
        (
            "simclr",
            "vit",
            {"depth": 1},
            r"they have besides params/blocks_1/\S+.*changed: depth=1 \(2 in the file\)",
        ),
        ("simclr", "vit", {"patch": 14}, r"changed: patch=14 \(7 in the file\)"),
        ("simclr", "vit", {"lora_rank": 2, "frozen_share": 1.0}, "nothing of the encoder would be trained"),
        ("simclr", "resnet", {"lora_rank": 2}, "no linear kernel of resnet18 matches"),
        ("simclr", "vit", {"lora_targets": "query", "lora_rank": 2}, r"lora_targets=\('query',\)"),
        ("simclr", "vit", {"frozen_share": 1.5}, "frozen_share=1.5: allowed is a number from 0 to 1"),
        ("simclr", "vit", {"lora_rank": -1}, "lora_rank=-1: allowed is"),
        ("simclr", "vit", {"lora_targets": "("}, "lora_targets"),
        (
            "simclr",
            "vit",
            {"name": "vit_tiny"},
            "encoder vit_tiny with the weights .*: the architecture is theirs",
        ),
        ("simclr", "vit", {"layers": 3}, "config.encoder.layers is not an option"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(files, method, file, options, message):
    with pytest.raises(ValueError, match=message):
        build.run_objects(config_of(method, files[file], **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder.lora_rank": "4"}, "config.encoder.lora_rank: allowed where config.encoder.weights=NAME"),
        ({"encoder.weights": ""}, "config.encoder.weights='': allowed is a name"),
        ({"encoder.weights": "nowhere.npz"}, "config.encoder.weights: .*'nowhere.npz'"),
    ],
)
def test_options_of_a_start_need_weights(options, message):
    with pytest.raises(ValueError, match=message):
        load_config("configs/simclr.py:smoke", options)


def test_a_backbone_among_the_arguments_is_refused(files):
    with pytest.raises(ValueError, match="encoder resnet50 with the weights"):
        config_of("simclr", files["vit"], "resnet50,smoke")


def test_show_says_what_comes_from_the_file(files):
    lines = describe_config(
        "configs/simmim.py:smoke", {"encoder.weights": files["vit"], "encoder.lora_rank": "4"}
    )
    origins = {line.split()[0]: line for line in lines.splitlines() if line}
    for name in ("encoder.width", "encoder.patch", "views.size", "views.mean", "watch.evaluate.crop_ratio"):
        assert origins[name].endswith(f"from {files['vit']}")
    assert origins["encoder.mask_token"].endswith("recipe")
    assert origins["encoder.lora_rank"].endswith("command line")
    assert origins["encoder.frozen_share"].endswith("default of ssl_jax.config.weights.Start")


@pytest.mark.parametrize(
    ("share", "steps", "until"), [(0.1, 50, 5), (0.5, 4, 2), (1.0, 50, -1), (0.0, 50, None), (0.1, 4, None)]
)
def test_freezing_is_a_share_of_the_run(share, steps, until):
    config = {"steps": steps, "encoder": {"weights": "a", "frozen_share": share}}
    assert weights.freeze(config) == (() if until is None else ((weights.BACKBONE, until),))
    assert not trees.matches([weights.BACKBONE], "encoder/mask_token")
    assert not trees.matches([weights.BACKBONE], "projector/dense_0/kernel")
    assert trees.matches([weights.BACKBONE], "encoder/lora/blocks_0/attn/qkv/a")


def test_sizes_of_views_follow_the_file():
    relative = {"patch": 16, "position": "relative", "image_size": 384}
    assert weights.view_size(relative, 384, 224) == 384
    assert weights.view_size({}, 518, 28) == 224


def with_channels(config, channels):
    return {**config, "data": {**config["data"], "channels": channels}}


def test_state_at_step_0_is_that_of_the_file_and_so_is_the_teacher(files):
    config = with_channels(config_of("byol", files["vit"]), 1)
    first, loaded = build.started_state(config), weights.open_weights(files["vit"])
    params, _ = change_channels(loaded.network, loaded.params, loaded.state, channels=1)
    for found in (first.params["encoder"], first.state["teacher"].params["encoder"]):
        assert trees.flatten(found).keys() == trees.flatten(params).keys()
        assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (found, params)), strict=True))
    drawn = jax.eval_shape(make_init(build.method(config), build.optimizer(config), build.sample(config)), 0)
    shapes = [
        jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree._replace(key=None)) for tree in (drawn, first)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.long
def test_fresh_parts_follow_the_seed(files):
    config = with_channels(config_of("simmim", files["vit"], init="beit"), 3)
    one, two = (build.started_state({**config, "seed": seed}).params for seed in (0, 1))
    same = {
        path: np.array_equal(leaf, trees.flatten(two)[path]) and bool(np.any(leaf))
        for path, leaf in trees.flatten(one).items()
    }
    assert same["encoder/blocks_0/attn/qkv/kernel"] and not same["encoder/mask_token"]


@pytest.mark.long
def test_heads_of_the_file_are_taken_for_student_and_teacher(files, monkeypatch):
    config = with_channels(config_of("byol", files["gray"]), 1)
    drawn = build.started_state(config)
    heads = {
        name: (jax.tree.map(lambda x: np.float32(x + 1), drawn.params[name]), jax.tree.map(lambda x: x, {}))
        for name in ("projector", "predictor")
    }
    loaded = weights.open_weights(files["gray"])._replace(heads=heads)
    monkeypatch.setattr(weights, "open_weights", lambda name: loaded)
    config = build.with_changes(config, {"encoder.with_heads": True})
    first = build.started_state(config)
    for name, found in (
        ("projector", first.params["projector"]),
        ("predictor", first.params["predictor"]),
        ("projector", first.state["teacher"].params["projector"]),
    ):
        assert all(
            np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (found, heads[name][0])), strict=True)
        )
    # A step gives its arrays away, so that none may be in two places.
    fitted = fit(build.run(build.with_changes(config, {"steps": 1}), build.run_objects(config)))
    assert int(fitted.state.step) == 1


def test_heads_that_do_not_fit_are_refused():
    params = {"encoder": {}, "projector": {"kernel": jnp.zeros((2, 3))}}
    heads = {"projector": ({"kernel": np.zeros((2, 4))}, {})}
    with pytest.raises(ValueError, match=r"projector of a.pth: .*kernel \(2, 4\) instead of \(2, 3\)"):
        weights.with_heads(params, {}, heads, "a.pth")
    with pytest.raises(ValueError, match=r"a.pth has no head of this method \(projector\); it has decoder"):
        weights.with_heads(params, {}, {"decoder": ({}, {})}, "a.pth")
    statistics = {"batch_stats": {"norm_0": {"mean": np.zeros(3)}}}
    heads = {"projector": ({"kernel": np.zeros((2, 3))}, statistics)}
    state = {"online": {"encoder": {}, "projector": {"batch_stats": {}}}}
    with pytest.raises(ValueError, match=r"projector of a.pth: .*besides batch_stats/norm_0/mean"):
        weights.with_heads(params, state, heads, "a.pth")


def test_a_queue_of_keys_is_taken_where_it_has_the_size_of_the_method():
    params, state = {"encoder": {}, "projector": jnp.zeros(2)}, {"queue": queue_init(jax.random.key(0), 4, 2)}
    for size, taken in ((4, True), (8, False)):
        queue = queue_init(jax.random.key(1), size, 2)
        heads = {"projector": (np.ones(2), {}), "queue": ({}, queue)}
        _, found = weights.with_heads(params, state, heads, "a.pth")
        assert np.array_equal(found["queue"].items, (queue if taken else state["queue"]).items)
