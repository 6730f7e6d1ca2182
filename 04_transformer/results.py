"""Measured results: one JSON file for each thing measured and each machine, in reports/results.

Use:         write_result("agent", {...})  ->  reports/results/agent-<machine>.json

The machine's name is the setting RESULT_MACHINE, else the GPU's name, else "cpu" and the number of cores. No host name,
no user name and no path of the machine is written.
"""

import datetime
import json
import os
import platform
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "reports" / "results"


def machine_name() -> str:
    """A short name for the kind of machine: "h200", "cpu2"."""
    if name := os.environ.get("RESULT_MACHINE"):
        return name
    if torch.cuda.is_available():
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower().replace("nvidia", "")).strip("-")
    return f"cpu{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write_result(what: str, values: dict, folder: Path = RESULTS) -> Path:
    """Write values with the machine, versions, date and command; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(sys.argv[0])
    shown = script.resolve().relative_to(ROOT) if script.resolve().is_relative_to(ROOT) else script.name
    head = {"what": what, "machine": {"name": machine_name(), "processor": processor(),
                                      "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                                      "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
            "date": datetime.date.today().isoformat(), "command": " ".join(["python", str(shown), *sys.argv[1:]])}
    path = folder / f"{what}-{machine_name()}.json"
    path.write_text(json.dumps({**head, **values}, indent=1) + "\n", encoding="utf-8")
    return path
