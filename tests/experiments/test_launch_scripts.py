"""The scripts of launch/: they parse, hand signals on, queue unfinished runs again, and say what gcloud is to do."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

# A run that is told to stop takes a moment to save.
RUN = "trap 'sleep 0.2; echo saved; exit 0' TERM; echo began; while true; do sleep 0.05; done"


def fake(folder, name, body):
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


@contextmanager
def begun(command, folder, **environment):
    """A process that has said that it began; nothing of it is left behind."""
    process = subprocess.Popen(
        command,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "began\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_executed(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck"):
        # SC2016: commands for other hosts are quoted on purpose.
        subprocess.run(["shellcheck", "--exclude=SC2016", script], check=True)


@pytest.mark.parametrize("code", [0, 3])
def test_unfinished_hands_on_the_exit_code(code):
    done = subprocess.run([LAUNCH / "unfinished.sh", "bash", "-c", f"exit {code}"])
    assert done.returncode == code


def test_unfinished_lets_a_run_save_and_calls_it_a_failure(tmp_path):
    with begun([LAUNCH / "unfinished.sh", "bash", "-c", RUN], tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (143, "saved\n")


@pytest.fixture
def slurm(tmp_path):
    """SLURM's commands: the step is a run; what is asked of the controller goes to a file."""
    fake(tmp_path, "srun", f'echo $$ > "{tmp_path}/step"\n{RUN}')
    fake(
        tmp_path, "scancel", f'echo "scancel $*" >> "{tmp_path}/asked"\nkill -TERM "$(cat "{tmp_path}/step")"'
    )
    fake(tmp_path, "scontrol", f'echo "scontrol $*" >> "{tmp_path}/asked"')
    return tmp_path


def test_slurm_saves_and_queues_again_when_time_is_up(slurm):
    with begun([LAUNCH / "slurm.sh", "--workdir=x"], slurm, SLURM_JOB_ID="7") as process:
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "saved\n")
    assert (slurm / "asked").read_text() == "scancel --signal=TERM 7\nscontrol requeue 7\n"


def test_slurm_waits_for_the_processes_that_preemption_stops(slurm):
    with begun([LAUNCH / "slurm.sh"], slurm, SLURM_JOB_ID="7") as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        os.kill(int((slurm / "step").read_text()), signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "saved\n")
    assert not (slurm / "asked").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_slurm_ends_as_the_run_does_and_starts_it_with_its_options(slurm, code):
    fake(slurm, "srun", f'echo "$*"\nexit {code}')
    path = f"{slurm}:{os.environ['PATH']}"
    command = [LAUNCH / "slurm.sh", "--config=configs/simclr.py", "--workdir=a b"]
    done = subprocess.run(
        command, env={**os.environ, "PATH": path, "SLURM_JOB_ID": "7"}, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.rstrip().endswith(
        "experiments.pretrain --distributed --config=configs/simclr.py --workdir=a b"
    )
    assert not (slurm / "asked").exists()


def pod(tmp_path, *arguments, gcloud='printf "%s\\n" "$*"', **variables):
    fake(tmp_path, "gcloud", gcloud)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TPU_NAME": "t",
        "ZONE": "z",
        "POLL": "0.01",
    }
    command = [LAUNCH / "tpu_pod.sh", *arguments]
    return subprocess.run(
        command, env={**environment, **variables}, capture_output=True, text=True, timeout=60
    )


def test_tpu_pod_asks_gcloud_for_what_the_environment_says(tmp_path):
    asked = {"ACCELERATOR_TYPE": "v5litepod-64", "RUNTIME_VERSION": "v2"}
    create = "compute tpus queued-resources create t --node-id=t --zone=z --accelerator-type=v5litepod-64 --runtime-version=v2"
    assert pod(tmp_path, "create", **asked).stdout == f"{create}\n"
    assert pod(tmp_path, "create", **asked, SPOT="1").stdout == f"{create} --spot\n"
    started = pod(tmp_path, "start", "--config=configs/mae.py:imagenet", "--workdir=/mnt/my runs").stdout
    assert started.startswith("compute tpus tpu-vm ssh t --zone=z --worker=all --command=cd ssl_jax\n")
    assert (
        r"experiments.pretrain --distributed --config=configs/mae.py:imagenet --workdir=/mnt/my\ runs >>"
        in started
    )


def test_tpu_pod_says_what_is_missing(tmp_path):
    for arguments, variables, message in (
        (("create",), {}, "set ACCELERATOR_TYPE"),
        (("stop",), {"TPU_NAME": ""}, "set TPU_NAME"),
        (("fly",), {}, "launch/tpu_pod.sh create"),
        ((), {}, "launch/tpu_pod.sh create"),
    ):
        done = pod(tmp_path, *arguments, **variables)
        assert done.returncode == 2
        assert message in done.stderr


def test_tpu_pod_rents_again_what_was_taken_away_until_the_run_is_done(tmp_path):
    """A slice that is taken away twice: first while nothing runs, then in the run."""
    gcloud = f"""
cd "{tmp_path}"
echo "$*" | head -n 1 | cut -d ' ' -f 3-4 >> asked
case "$*" in
  *describe*) state=$(head -n 1 states); sed -i 1d states; echo "$state" ;;
  *"kill -0"*) head -n 1 alive; sed -i 1d alive ;;
  *tail*) head -n 1 said; sed -i 1d said ;;
esac"""
    (tmp_path / "states").write_text("\nWAITING_FOR_RESOURCES\nACTIVE\nACTIVE\nSUSPENDED\n\nACTIVE\nACTIVE\n")
    (tmp_path / "alive").write_text("no\nyes\nno\nno\n")
    (tmp_path / "said").write_text("nothing yet\nstopped by preemption\ndone: 10 steps in x\n")
    variables = {"ACCELERATOR_TYPE": "a", "RUNTIME_VERSION": "r", "REPOSITORY": "g"}
    done = pod(tmp_path, "keep", "--workdir=x", gcloud=gcloud, **variables)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().split("\n")
    verbs = [line.split()[-1] for line in asked if line]
    assert verbs.count("create") == 2
    assert verbs.count("delete") == 1
    assert (tmp_path / "states").read_text() == ""


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_files_start_a_launcher_that_exists(path):
    documents = list(yaml.safe_load_all(path.read_text()))
    assert all({"apiVersion", "kind", "metadata"} <= set(document) for document in documents)
    job = documents[-1]["spec"]
    job = job["replicatedJobs"][0]["template"]["spec"] if "replicatedJobs" in job else job
    pod_spec = job["template"]["spec"]
    script, *command = pod_spec["containers"][0]["command"]
    assert (ROOT / script).exists()
    assert command[:3] == ["python", "-m", "experiments.pretrain"]
    (config,) = (word for word in command if word.startswith("--config="))
    assert (ROOT / config.removeprefix("--config=").partition(":")[0]).exists()
    assert job["parallelism"] == job["completions"]
    processes = [word for word in command if word.startswith("--processes=")]
    assert processes in ([], [f"--processes={job['completions']}"])
    assert pod_spec["terminationGracePeriodSeconds"] >= 60
