import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NEEDS = {
    "memory": (),
    "evaluation": ("sklearn",),
    "train_step": ("torch",),
    "augment": ("torch", "torchvision"),
    "input": ("torch", "torchvision"),
    "loader": ("torch", "torchvision", "webdataset"),
    "loop": (),
    "compile": (),
    "health": (),
    "page": ("playwright",),
    "seeds": (),
    "clustering": ("sklearn",),
    "masking": (),
    "attention": (),
    "multi_crop": (),
    "scanning": (),
}


def test_every_benchmark_is_tried_here():
    sources = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    assert {name for name, text in sources.items() if "pairs.main(" in text} == set(NEEDS)


@pytest.mark.long
@pytest.mark.parametrize("name", NEEDS)
def test_a_quick_run_ends_and_writes_what_it_measured(name, tmp_path):
    for package in NEEDS[name]:
        pytest.importorskip(package)
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", f"--out={out}"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    result = json.loads(out.read_text())
    assert result["quick"]
    assert result["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"
    for measurement in result["measurements"]:
        assert measurement["raw"]
        assert measurement["value"]["count"] >= 1


def test_memory_grows_with_the_exponent_of_its_curve():
    from benchmarks.memory import growth

    assert growth((2.0, 3 * 2.0**1.5), (8.0, 3 * 8.0**1.5)) == pytest.approx(1.5)


def test_peaks_are_those_of_the_data_sheets():
    from ssl_jax.cli.hardware import peak_flops

    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA L40S") == 362e12


def test_every_row_says_what_the_user_gains():
    from benchmarks import table
    from ssl_jax.core.rows import read_rows

    rows = [(row["benchmark"], m["name"]) for row in read_rows(table.RESULTS) for m in row["measurements"]]
    assert [row for row in rows if not table.gain(*row)] == []


def test_pytorch_models_have_the_parameters_of_ours():
    pytest.importorskip("torch")
    import jax

    from benchmarks import torch_models
    from ssl_jax import models
    from ssl_jax.augment import presets
    from ssl_jax.methods.contrastive import simclr

    def count(network, **options):
        method = simclr.build(network, views=presets.simclr(32))
        views = (jax.ShapeDtypeStruct((2, 2, 32, 32, 3), "float32"),)
        params, _ = jax.eval_shape(method.init, jax.random.key(0), {"views": views})
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    for name in ("resnet18", "resnet50"):
        plain = torch_models.ResNet(name, small=False, width=0.125)
        assert torch_models.parameters(torch_models.Simclr(plain)) == count(models.build(name, width=0.125))
    plain = torch_models.VisionTransformer(width=192, depth=12, heads=3, patch=16, size=32)
    ours = models.build("vit_tiny", patch=16, image_size=32)
    assert torch_models.parameters(torch_models.Simclr(plain)) == count(ours)


def test_pytorch_loss_is_that_of_ours():
    torch = pytest.importorskip("torch")
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import torch_models
    from ssl_jax.losses.contrastive import nt_xent

    class Rows(torch.nn.Module):
        features = 8

        def forward(self, x):
            return x

    model = torch_models.Simclr(Rows(), projection=8, temperature=0.2)
    model.hidden, model.norm, model.last, model.scale = (torch.nn.Identity() for _ in range(4))
    rows = np.abs(np.random.default_rng(0).normal(size=(6, 2, 8))).astype(np.float32)
    found = model(torch.from_numpy(rows.reshape(-1, 8)))
    ours = nt_xent(jnp.asarray(rows[:, 0]), jnp.asarray(rows[:, 1]), temperature=0.2)
    assert float(found) == pytest.approx(float(ours), rel=1e-5)
