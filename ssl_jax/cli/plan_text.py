"""Plans written out: as text, as a row of a table, as a name."""

from collections.abc import Sequence

from ssl_jax.cli.planning import AHEAD, Plan
from ssl_jax.core.table import table

RESOURCE_NAMES = {"compute": "compute", "memory": "memory bandwidth", "interconnect": "interconnect"}
PURPOSES = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "state": "teacher and other state",
    "batch": "batch",
    "padding": "padding of these, less what is unused",
    "ahead": f"{AHEAD} batches ahead",
    "activations": "activations and temporaries",
    "program": "program",
}


def plan_name(plan: Plan) -> str:
    """Name a plan by what it compiles and for what."""
    config = plan["config"]
    parts = (
        config["method"]["name"],
        config["encoder"]["name"],
        config["batch_size"],
        plan["topology"].replace(":", "_"),
    )
    return "-".join(map(str, (*parts, *(saving.replace(" ", "") for saving in _savings(plan)))))


def _savings(plan: Plan) -> list[str]:
    """What the config does to need less memory."""
    split, encoder = plan["mesh"]["fsdp"], plan["config"]["encoder"]
    keeps = encoder.get("remat_keeps", "nothing")
    remat = "remat" if keeps == "nothing" else f"remat-but-{keeps}"
    return [*([f"fsdp {split}"] if split > 1 else []), *([remat] if encoder.get("remat") else [])]


def step_bounds(plan: Plan) -> tuple[float, float] | None:
    """Bound the seconds of a step: where all resources work at the same time, and where none does; ``None``: not known."""
    known = list(plan["seconds"].values())
    return None if None in known else (max(known), sum(known))


def busiest_resource(plan: Plan) -> str:
    """Name the resource that is busy longest."""
    seconds = plan["seconds"]
    return RESOURCE_NAMES[max(seconds, key=lambda resource: seconds[resource])] if step_bounds(plan) else "–"


def format_plan(plan: Plan) -> str:
    """Write a plan as text."""
    config, mesh = plan["config"], plan["mesh"]
    lines = [
        f"{config['method']['name']}, {config['encoder']['name']}, batch {config['batch_size']}, {config['steps']} steps: "
        f"{plan['devices']} x {plan['chip']} ({plan['topology']}), mesh data={mesh['data']} fsdp={mesh['fsdp']}",
        f"images: {plan['images']}",
        "",
        table(
            [
                {"memory of a device": PURPOSES[part], "GB": size / 1e9}
                for part, size in plan["memory"].items()
            ],
            digits=3,
        ),
        f"total {plan['total'] / 1e9:.3f} of {plan['capacity'] / 1e9:.1f} GB: {describe_fit(plan)}",
        "",
        f"a step of a device: {plan['flops'] / 1e12:.3g} TFLOPs of matrix products and convolutions",
    ]
    if plan["traffic"] is not None:
        lines.append(f"its memory is read and written: {plan['traffic'] / 1e9:.3g} GB")
    if plan["collectives"]:
        rows = [
            {
                "communication": row["kind"],
                "devices": row["group"],
                "times": row["count"],
                "MB": row["bytes"] / 1e6,
                "MB sent": row["sent"] / 1e6,
            }
            for row in plan["collectives"]
        ]
        lines += ["", table(rows)]
    bounds = step_bounds(plan)
    if bounds:
        seconds = [f"{RESOURCE_NAMES[part]} {1e3 * value:.1f} ms" for part, value in plan["seconds"].items()]
        images = [config["batch_size"] / second for second in bounds]
        hours = [config["steps"] * second / 3600 for second in bounds]
        lines += [
            "",
            f"at published speeds: {', '.join(seconds)}; the limit is {busiest_resource(plan)}",
            f"a step takes {1e3 * bounds[0]:.1f} ms if all of this overlaps, {1e3 * bounds[1]:.1f} ms if nothing does: "
            f"{images[0]:,.0f} to {images[1]:,.0f} images/s, {hours[0]:.1f} to {hours[1]:.1f} hours",
        ]
    return "\n".join(lines) + "\n"


def describe_fit(plan: Plan) -> str:
    """Say whether a plan fits, and else what would."""
    if plan["fits"]:
        return "fits"
    if "remedy" not in plan:
        return "does not fit"
    remedy = plan["remedy"]
    if remedy is None:
        return "does not fit, nor does anything that was tried"
    options = " ".join(f"--config.{path}={value}" for path, value in remedy["change"].items())
    return f"does not fit; {options} would, with {remedy['total'] / 1e9:.1f} GB"


def plans_table(plans: Sequence[Plan], *, markdown: bool = False) -> str:
    """Tabulate plans, one row each."""
    rows = []
    for plan in plans:
        config, memory, bounds = plan["config"], plan["memory"], step_bounds(plan)
        resident = sum(memory[part] for part in ("parameters", "optimizer", "state"))
        sent = None if plan["collectives"] is None else sum(row["sent"] for row in plan["collectives"])
        rows.append(
            {
                "run": f"{config['method']['name']}, {config['encoder']['name']}, batch {config['batch_size']}",
                "devices": ", ".join([plan["topology"], *_savings(plan)]),
                "kept, GB": resident / 1e9,
                "activations, GB": memory["activations"] / 1e9,
                "total, GB": f"{plan['total'] / 1e9:.1f} of {plan['capacity'] / 1e9:.0f}",
                "TFLOPs": plan["flops"] / 1e12,
                "traffic, GB": None if plan["traffic"] is None else plan["traffic"] / 1e9,
                "sent, GB": None if sent is None else f"{sent / 1e9:.2f}",
                "step, ms": None if bounds is None else f"{1e3 * bounds[0]:.0f} to {1e3 * bounds[1]:.0f}",
                "images/s": None
                if bounds is None
                else f"{config['batch_size'] / bounds[1]:,.0f} to {config['batch_size'] / bounds[0]:,.0f}",
                "hours": None
                if bounds is None
                else f"{config['steps'] * bounds[0] / 3600:.1f} to {config['steps'] * bounds[1] / 3600:.1f}",
                "limit": busiest_resource(plan) if bounds else None,
                "verdict": describe_fit(plan).replace("--config.", ""),
            }
        )
    return table(rows, markdown=markdown)
