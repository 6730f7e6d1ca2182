"""The READMEs show what was measured: every block is what reports/render.py makes of reports/results."""

import json
import os
import platform
import runpy
import subprocess
import sys

from results import RESULTS, ROOT, write_result


def test_the_readmes_are_rendered():
    """Bug: a number in a README that no result supports any more."""
    run = subprocess.run([sys.executable, "reports/render.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_render_fills_a_block():
    """Bug: a check that always says "up to date"."""
    rendered = runpy.run_path(str(ROOT / "reports" / "render.py"))["rendered"]
    text = "before\n<!-- begin:chain -->\nstale 123\n<!-- end:chain -->\nafter\n"
    filled = rendered(text)
    assert filled.startswith("before\n<!-- begin:chain -->\n") and filled.endswith("<!-- end:chain -->\nafter\n")
    assert "stale" not in filled and rendered(filled) == filled


def test_results_name_no_private_thing(tmp_path):
    """Bug: a host name or a path of somebody's machine in a published result."""
    path = write_result("probe", {"value": 1}, tmp_path)
    text = path.read_text()
    assert json.loads(text)["value"] == 1 and {"machine", "versions", "date", "command"} <= set(json.loads(text))
    for file in [path, *RESULTS.glob("*.json")]:
        text = file.read_text()
        assert str(ROOT) not in text and os.path.expanduser("~") + "/" not in text
        assert platform.node() not in text or len(platform.node()) < 4
