"""What docs/how_to.md says: its files are written beside the packages, and do what it says of them."""

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import configs
import ssl_jax.evaluate
import ssl_jax.methods.contrastive
import ssl_jax.models
from ssl_jax import augment
from ssl_jax.augment import operations, presets
from ssl_jax.augment.views import View, make_views
from ssl_jax.config import build
from ssl_jax.config.datasets import DATASETS
from ssl_jax.evaluate.measure import Options, Subject
from ssl_jax.methods.registry import names
from ssl_jax.models.build import BUILDERS
from ssl_jax.train.features import Features
from tests.methods.case import loss_of, real_batch, start

PAGE = (Path(__file__).parent.parent / "docs/how_to.md").read_text()
FILES = {
    code.splitlines()[0].removeprefix("# "): code
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
}
PACKAGES = {
    "ssl_jax/methods/contrastive": ssl_jax.methods.contrastive,
    "ssl_jax/models": ssl_jax.models,
    "ssl_jax/evaluate": ssl_jax.evaluate,
    "configs": configs,
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write the files of the page where Python finds them, and forget them afterwards."""
    for path, code in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code)
    for folder, package in PACKAGES.items():
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    monkeypatch.syspath_prepend(tmp_path)
    for table, name in ((operations.OPERATIONS, "invert"), (DATASETS, "leaves")):
        monkeypatch.setitem(table, name, None)
        monkeypatch.delitem(table, name)
    return tmp_path


def test_the_page_has_a_file_for_each_kind_of_thing():
    assert len(FILES) == 6
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    assert headings == ["A method", "An augmentation", "A dataset", "A backbone", "A probe"]


def test_the_method_is_found_configured_and_has_the_loss_of_its_formula(written):
    assert "align_uniform" in names()
    config = build.to_dict(importlib.import_module("configs.align_uniform").get_config("smoke"))
    method = build.method(config)
    params, state, batch = start(method)
    value, _, _ = loss_of(method, params, state, batch)
    assert np.isfinite(value) and value != 0
    zeros = jax.tree.map(jnp.zeros_like, params)
    ones = {**zeros, "projector": jax.tree.map(jnp.ones_like, params["projector"])}
    assert loss_of(method, ones, state, batch)[0] == pytest.approx(method.collapse[0].at(8).value, abs=1e-5)


def test_the_augmentation_stands_in_views_and_presets(written):
    invert = importlib.import_module("invert").Invert
    image = real_batch(2)["image"]
    plain, inverted = (
        make_views(jax.random.key(0), {"image": image}, (View(size=8, ops=(invert(prob=prob),)),))[0]
        for prob in (0.0, 1.0)
    )
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)
    first, _ = presets.build("simclr", size=8, invert_prob=0.25)
    assert first.find(invert).prob == 0.25


def test_the_dataset_counts_its_images_and_takes_the_recipe_that_it_names(written, monkeypatch):
    for i in range(12):
        path = written / f"leaves/{'oak' if i % 2 else 'elm'}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 20 * i, np.uint8)).save(path)
    importlib.import_module("leaves")
    source = f"folder:{written / 'leaves'}"
    get_config = importlib.import_module("configs.simclr").get_config
    config = get_config("leaves,smoke", {"data.source": source})
    assert config.data.num_examples == 12 and config.views.size == 32
    with pytest.raises(ValueError, match="recipe"):
        importlib.import_module("configs.align_uniform").get_config("leaves,smoke")


def test_the_backbone_is_built_by_name(written, monkeypatch):
    monkeypatch.setitem(
        BUILDERS, "patch_mean", importlib.import_module("ssl_jax.models.patch_mean").patch_mean
    )
    config = importlib.import_module("configs.simclr").get_config("patch_mean,smoke")
    assert (config.encoder.name, config.encoder.patch) == ("patch_mean", 7)
    method = build.method(build.to_dict(config))
    params, state, batch = start(method)
    assert method.encode(params, state, batch["views"][0][:, 0]).shape == (16, method.encoder.features)


def test_the_probe_measures_the_nearest_mean(written):
    measure = importlib.import_module("ssl_jax.evaluate.centroids").MEASURE
    labels = np.array([0, 0, 1, 1], np.int32)
    features = np.array([[0.0], [2.0], [9.0], [11.0]], np.float32)
    train = Features(features, labels, np.arange(4, dtype=np.int32))
    test = Features(np.array([[1.5], [8.0], [4.0]], np.float32), np.array([0, 1, 1], np.int32), np.arange(3))
    source = type("Source", (), {"classes": ("a", "b")})()
    subject = Subject(train, test, (source, source), Options(1, 0.07, (), 1, 1.0))
    assert measure.run(subject) == {"nearest_mean": pytest.approx(2 / 3)}


def test_names_are_found_in_their_packages():
    assert ssl_jax.methods.simclr.build.__module__ == "ssl_jax.methods.contrastive.simclr"
    assert augment.View is View and ssl_jax.losses.nt_xent.__name__ == "nt_xent"
    assert {"fit", "Run", "methods"} <= set(dir(ssl_jax)) and "nt_xent" in dir(ssl_jax.losses)
    for name in (*dir(ssl_jax.losses), *dir(ssl_jax.evaluate)):
        package = ssl_jax.losses if name in dir(ssl_jax.losses) else ssl_jax.evaluate
        assert getattr(package, name) is not None
    assert ssl_jax.core.table.table and ssl_jax.report.embedding.project
    assert ssl_jax.models.chain and ssl_jax.models.heads.mlp and ssl_jax.methods.parts.EmaTeacher
    for name in (*names(), *names()):  # twice: packages that are imported become attributes
        assert getattr(ssl_jax.methods, name).build.__module__ == names()[name]
    for package in (ssl_jax, ssl_jax.losses, ssl_jax.methods):
        with pytest.raises(AttributeError, match="has no attribute 'nt_xnet'"):
            package.nt_xnet  # noqa: B018
