"""What launchers say where the machine, a seed, a path or the folder they are started from is not what they need."""

import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest
import setuptools
from absl import flags

from ssl_jax.cli import launch, processes
from ssl_jax.config.load import load_config

ROOT = Path(__file__).parent.parent.parent


def test_a_platform_that_is_not_there_is_one_line_that_says_which_are():
    program = "import jax; from ssl_jax.cli import launch; launch.run(lambda: jax.devices())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "nonsense"},
        timeout=300,
    )
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "Traceback" not in done.stderr
    assert told[0].startswith("error: JAX_PLATFORMS=nonsense: JAX finds no such device")
    assert "; allowed here: cpu" in told[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore"),
    ],
)
def test_memory_that_is_not_enough_is_one_line_that_says_what_needs_less(error):
    told = launch._explain(error)
    assert told.startswith("out of memory") and "config.batch_size" in told and "\n" not in told


def test_other_errors_are_not_explained_away():
    assert launch._explain(RuntimeError("a fault of ours")) == ""


@pytest.mark.parametrize(
    "values",
    [[], [""], ["-1"], ["a"], ["1.5"], ["0", "2147483648"], ["²"], ["٣"], ["9" * 30], ["nan"], ["None"]],
)
def test_seeds_out_of_range_are_one_line(values):
    with pytest.raises(
        ValueError, match=r"--seeds=.*: allowed is an integer of 0 or more, below 2\^31"
    ) as caught:
        launch.parse_seeds(values)
    assert len(str(caught.value)) < 200


def test_seeds_in_range_are_integers():
    assert launch.parse_seeds(["0", "2147483647"]) == [0, 2**31 - 1]


@pytest.mark.parametrize(
    "address", ["abc", ":5", "localhost:", "localhost:0", "localhost:99999", "localhost:x", "h:²"]
)
def test_an_address_that_is_none_is_one_line(address):
    cluster = processes.Cluster(coordinator=address, processes=1, process=0)
    with (
        pytest.raises(ValueError, match=r"--coordinator=.*: allowed is HOST:PORT"),
        processes.distributed(cluster),
    ):
        pass


def test_an_editable_install_serves_launchers_and_configs_of_the_clone_and_a_wheel_is_one_package(
    monkeypatch,
):
    monkeypatch.chdir(ROOT)
    made = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: made.update(options))
    for command in ("editable_wheel", "bdist_wheel"):
        monkeypatch.setattr(sys, "argv", ["setup.py", command])
        runpy.run_path(str(ROOT / "setup.py"))
        tops = {package.partition(".")[0] for package in made["packages"]}
        assert tops == {"ssl_jax"} | ({"configs", "experiments"} if command == "editable_wheel" else set())
    assert {"ssl_jax.configs", "ssl_jax.experiments"} < set(made["packages"])
    assert made["package_dir"] == {"ssl_jax.configs": "configs", "ssl_jax.experiments": "experiments"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("configs/simclr.py", "--config=simclr is the one of ssl_jax"),
        ("./simclr:smoke", "--config=simclr is the one of ssl_jax"),
        ("simcrl", "did you mean 'simclr'?"),
        ("configs/simcrl.py", "did you mean 'simclr'?"),
        ("x" * 400, "(402 characters): there is no such file"),
        ("a\0b", "there is no such file"),
    ],
)
def test_a_config_that_is_not_there_is_one_line_with_where_it_was_looked_for(
    spec, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        load_config(spec)
    assert message in str(caught.value) and f"in {tmp_path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_without_a_name_is_one_line():
    with pytest.raises(ValueError, match=r"config='': allowed is the name of a method, such as simclr, or"):
        load_config(":smoke")


@pytest.mark.parametrize("folder", [".", "configs"])
def test_a_bare_name_is_the_package_s_config_whatever_files_the_current_folder_has(
    folder, tmp_path, monkeypatch
):
    """A foreign package ``configs`` here, first on the path, is not asked; nor is a file of that name."""
    for name in ("simclr", "simclr.py", "configs/__init__.py", "configs/simclr.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('not this one')\n")
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_config("simclr:smoke").method.name == "simclr"
    assert load_config("dcl:smoke").method.name == "dcl"  # which derives its recipes from simclr's
    with pytest.raises(ValueError, match=r"config='simclr.py' cannot be run: RuntimeError: not this one"):
        load_config("simclr.py")


def test_a_warning_is_one_line_and_said_once_wherever_it_comes_from(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        launch.show_messages()
        warnings.warn("cat/3.png is cut off", stacklevel=1)
        warnings.warn("cat/3.png is cut off", stacklevel=2)
        warnings.warn("cat/4.png is cut off", stacklevel=1)
    assert capsys.readouterr().err == "warning: cat/3.png is cut off\nwarning: cat/4.png is cut off\n"


def test_a_value_of_a_flag_that_is_not_allowed_is_told_with_what_is():
    values = flags.FlagValues()
    flags.DEFINE_enum("kind", "a", ["a", "b"], "", flag_values=values)
    flags.DEFINE_integer("count", 1, "", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("switch", True, "", flag_values=values)
    for given, allowed in {
        "kind=c": "a or b",
        "count=0": "a positive integer",
        "count=x: y": "a positive integer",
        "switch=perhaps": "true or false",
    }.items():
        with pytest.raises(flags.IllegalFlagValueError) as caught:
            values(["x", f"--{given}"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch.flags, "FLAGS", values)
            assert launch._describe_illegal(caught.value) == f"--{given}: allowed is {allowed}"
