"""The notebooks run from a clean kernel, and hold the outputs of a real run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ssl_jax.cli import cpu

SAID = {
    "dense": ("mIoU, linear", "masked autoencoder", "cosines of patch ("),
    "foundation": (
        "$ ssl-jax pretrain --config=simclr:folder --config.data.source=folder:photos",
        "started from hub/timm",
        "model.safetensors",
        "largest difference of a feature after the way through timm's format",
    ),
}
"""What the outputs of a notebook say, where it is not the name of a method."""
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_a_clean_kernel(path, monkeypatch):
    monkeypatch.setenv("SSL_JAX_SMOKE", "1")
    # The kernel is a process of its own: one device, little optimisation, no display.
    known = cpu.jaxlib_knows(b"xla_backend_optimization_level")
    monkeypatch.setenv("XLA_FLAGS", cpu.UNOPTIMISED if known else "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": path.parent}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_of_a_run_from_top_to_bottom_without_an_error(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    text = "".join(output.get("text", "") for output in outputs)
    assert "raw pixels" in text
    for said in SAID.get(path.stem, ("SimCLR",)):
        assert said in text
