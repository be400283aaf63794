"""The wheel, installed outside of any clone: one package, the command ssl-jax, from a folder of images to a report."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_jax.cli import cpu, main
from ssl_jax.core import commands

ROOT = Path(__file__).parent.parent.parent


def run(*command, cwd, check=True, **environment):
    known = cpu.jaxlib_knows(b"xla_backend_optimization_level")
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    quick = {"XLA_FLAGS": cpu.UNOPTIMISED if known else "", "JAX_PLATFORMS": "cpu", "SSL_JAX_TUNE_CPU": "0"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean | quick | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def test_every_launcher_is_a_command_that_describes_itself():
    assert sorted(commands.VERBS) == sorted(path.stem for path in (ROOT / "experiments").glob("[a-z]*.py"))
    lines = main.describe_verbs().splitlines()
    for verb in commands.VERBS:
        (line,) = [line for line in lines if line.startswith(f"  {verb.replace('_', '-')} ")]
        assert len(line.split()) > 4 and len(line) < 140


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("pretrian", "did you mean 'pretrain'?"),
        ("two-stages", "did you mean 'two-stage'?"),
        ("/etc", "allowed: "),
        ("--workdir=x", "allowed: "),
        ("x" * 500, "allowed: "),
    ],
)
def test_a_word_that_is_no_command_is_one_line(word, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ssl-jax", word])
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1 and len(said) < 300


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_all_are_listed(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ssl-jax", *words])
    main.main()
    assert "pretrain" in capsys.readouterr().out


def test_launchers_are_called_as_the_user_starts_them():
    text = "see python -m experiments.two_stage, experiments.plan and runs/experiments.plan"
    assert (
        commands.spoken(text, installed=True)
        == "see ssl-jax two-stage, ssl-jax plan and runs/experiments.plan"
    )
    assert commands.spoken(text, installed=False) == text
    assert commands.command("plan") == "python -m experiments.plan"
    assert commands.launcher("plan") == [sys.executable, "-m", "ssl_jax", "plan"]


def build_wheel(folder):
    """Build from a copy of the files of the clone: setuptools leaves folders beside them, and takes what lies in them."""
    listed = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).stdout.split("\0")
    tops = ("ssl_jax", "configs", "experiments")
    wanted = [name for name in listed if name.startswith(tops) or "/" not in name]
    for name in filter(None, wanted):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    options = ("wheel", "-q", "--no-deps", "-w", folder / "dist")
    run(sys.executable, "-m", "pip", *options, folder / "source", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of a fresh environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(folder)
    venv.create(folder / "venv", with_pip=True)
    run(folder / "venv/bin/pip", "install", "-q", wheel, cwd=folder)
    return wheel, folder / "venv/bin"


def write_photos(folder, count=60):
    for k in range(count):
        path = folder / "photos" / ("cat", "dog")[k % 2] / f"{k:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40 + k % 5, 40)).save(path)


@pytest.mark.long
def test_from_a_folder_to_a_report_with_the_wheel_alone(installed, tmp_path):
    wheel, commands_folder = installed
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ssl_jax"}
    assert {"ssl_jax/configs/simclr.py", "ssl_jax/experiments/pretrain.py", "ssl_jax/py.typed"} <= set(names)
    assert any(name.startswith("ssl_jax/data/embedded/") for name in names)
    assert not any("studies" in name for name in names)

    write_photos(tmp_path)
    # Packages and files of other projects in the current folder stand in nobody's way.
    for name in (
        "configs/__init__.py",
        "configs/simclr.py",
        "experiments/__init__.py",
        "experiments/pretrain.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('of another project')\n")
    (tmp_path / "simclr").write_text("no config")

    def ssl_jax(*words, check=True):
        return run(commands_folder / "ssl-jax", *words, cwd=tmp_path, check=check)

    assert "two-stage" in ssl_jax().stdout and "results " not in ssl_jax("--help").stdout
    refused = ssl_jax("results", check=False)
    assert refused.returncode == 2 and "of a clone" in refused.stderr
    help_text = run(commands_folder / "ssl-jax", "pretrain", "--help", cwd=tmp_path, check=False).stdout
    assert "ssl-jax pretrain --config=simclr --workdir=runs/first" in help_text and "--workdir:" in help_text
    assert "experiments." not in help_text.partition("flags:")[0]
    assert (
        "recipe folder of simclr"
        in ssl_jax("show", "--config=simclr:folder", "--config.data.source=folder:photos").stdout
    )

    small = ["--config.encoder.name=convnet", "--config.encoder.widths=(8,)", "--config.views.size=16"]
    trained = ssl_jax(
        *(
            "pretrain",
            "--config=simclr:folder,smoke",
            "--config.data.source=folder:photos",
            "--workdir=run",
            *small,
        )
    )
    assert "next: ssl-jax evaluate --workdir=" in trained.stdout
    assert "simclr, 4 steps" in ssl_jax("evaluate", "--workdir=run", "--measures=knn").stdout
    ssl_jax("embed", "--workdir=run", "--source=folder:photos", "--out=features.npz")
    ssl_jax("export", "--workdir=run", "--out=encoder")
    ssl_jax("report", "--workdirs=run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "ssl-jax report" in page and "python -m experiments" not in page
    searched = (
        "sweep",
        "--config=simclr:folder,smoke",
        "--config.data.source=folder:photos",
        "--workdir=sweep",
        *small,
    )
    assert "seed=0: done" in ssl_jax(*searched, "--grid=seed=0", "--mode=processes").stdout
    misspelt = ssl_jax("pretrain", "--config=simcrl", "--workdir=other", check=False)
    assert misspelt.returncode == 2 and "did you mean 'simclr'?" in misspelt.stderr
    assert not (tmp_path / "other").exists()

    python = (
        "import numpy as np, ssl_jax\n"
        "a = ssl_jax.load('run').embed('photos'); b = ssl_jax.load('encoder').embed('photos')\n"
        "c = np.load('features.npz')['features']\n"
        "assert a.shape == c.shape and abs(a - c).max() < 1e-5 * abs(c).max() and abs(b - c).max() < 1e-5 * abs(c).max()\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('ssl_jax').origin.startswith(importlib.import_module('sys').prefix)\n"
    )
    (tmp_path / "use.py").write_text(python)
    run(commands_folder / "python", "use.py", cwd=tmp_path)


@pytest.mark.long
def test_start_with_the_wheel_alone(installed, tmp_path):
    _, commands_folder = installed
    write_photos(tmp_path)
    small = [
        "--config.encoder.widths=(8,)",
        "--config.encoder.grid=1",
        "--config.watch.evaluate.measures=('knn',)",
    ]
    words = ["start", "photos/", "--minutes=0.02", *small, "--config.encoder.name=convnet"]
    said = run(commands_folder / "ssl-jax", *words, cwd=tmp_path).stdout
    assert "Chosen:" in said and "method dcl" in said and "ssl-jax embed --workdir=photos-run" in said
    assert (tmp_path / "photos-run" / "report.html").exists()
    again = run(commands_folder / "python", "-m", "ssl_jax", "start", "photos/", cwd=tmp_path).stdout
    assert "trained already" in again and "evaluated already" in again
