"""The whole chain as a newcomer meets it: the demo trains, serves, answers the ten in a real browser, and stops.

The tiny preset is trained for real, once, if 00c_agent_sft/out/agent.pt is not there: minutes on two cores.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from playwright.sync_api import expect
from test_browser import ask, browser, open_page, steps  # noqa: F401

import checkpoint
from results import ROOT
from traces import THE_TEN, read_smalltalk

AGENT = ROOT / "00c_agent_sft" / "out" / "agent.pt"


class Demo:
    """A running scripts/demo.py."""

    def __init__(self, *options: str):
        self.web, self.model = free_port(), free_port()
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "scripts/demo.py", "--web-port", str(self.web), "--model-port", str(self.model), *options], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output = ""

    def wait_until_ready(self) -> float:
        """Seconds until the demo says that it is ready."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if line.startswith("Ready"):
                return time.perf_counter() - self.started
        pytest.fail(f"the demo ended with status {self.process.wait()}:\n{self.output[-3000:]}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web}"

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """The demo, with all three stages trained first where they are not."""
    subprocess.run([sys.executable, "scripts/demo.py", "--train-only"], cwd=ROOT, check=True, timeout=1500)
    running = Demo()
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.mark.slow
def test_every_stage_learned(demo):
    """Bug: a stage that runs but learns nothing: each one's loss must have fallen, the first from ln(V)."""
    loss = {}
    for name, folder in (("base", "00_train"), ("sft", "00b_sft"), ("agent", "00c_agent_sft")):
        _, _, info = checkpoint.load(ROOT / folder / "out" / f"{name}.pt")
        assert info["stage"] == name
        loss[name] = (info["training"]["first_loss"], info["training"]["last_loss"])
    assert abs(loss["base"][0] - 6.93) < 0.1 and loss["base"][1] < 4.6
    assert loss["sft"][1] < loss["sft"][0] - 1
    assert loss["agent"][1] < 0.1


@pytest.mark.slow
@pytest.mark.browser
def test_the_ten_in_the_browser(demo, browser):  # noqa: F811
    """Bug: a chain that works in parts, but does not answer in the page that people open."""
    pages = open_page(browser, SimpleNamespace(url=demo.url, port=demo.web))
    page = next(pages)
    for number, (question, expected) in enumerate(THE_TEN):
        ask(page, question)
        turn = page.locator(".turn").nth(number)
        expect(turn).to_have_attribute("data-state", "done", timeout=20_000)
        said = turn.locator(".answer").inner_text()
        assert (expected in said) if expected else said == read_smalltalk()["how_are_you"][0], f"{question} -> {said}"
        if number == 2:
            assert ("Action", "calc(1234 + 5678)") in steps(turn) and ("Observation", "6912") in steps(turn)
    pages.close()


@pytest.mark.slow
def test_the_command_line_asks_too(demo):
    """Bug: the agent on the command line that does not find the server, or hides its steps."""
    run = subprocess.run([sys.executable, "02_agent/agent.py", "What is 1234 plus 5678?"], cwd=ROOT, capture_output=True, text=True,
                         timeout=60, env={**os.environ, "MODEL_URL": f"http://127.0.0.1:{demo.model}"})
    assert run.returncode == 0, run.stderr
    assert re.search(r"ACTION: calc\(1234 \+ 5678\)\nOBSERVATION: 6912\nANSWER: 6912", run.stdout), run.stdout


@pytest.mark.slow
def test_held_out_questions(demo):
    """Bug: an agent that knows the ten and nothing else: a sample of the held-out questions, through the real loop."""
    run = subprocess.run([sys.executable, "evaluate.py", "--per-category", "25", "--url", f"http://127.0.0.1:{demo.model}"],
                         cwd=ROOT / "00c_agent_sft", capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    right, asked = map(int, re.search(r"^all +(\d+) of (\d+)", run.stdout, re.MULTILINE).groups())
    assert asked == 200 and right >= 0.82 * asked, run.stdout


@pytest.mark.slow
def test_it_stops_both_servers(demo):
    """Bug: servers that live on after Ctrl-C and hold their ports; a second start that is slow or trains again."""
    other = Demo()
    assert other.wait_until_ready() < 15
    assert listens(other.web) and listens(other.model)
    other.stop()
    assert not listens(other.web) and not listens(other.model)


@pytest.mark.slow
def test_a_taken_port_is_said(demo):
    """Bug: a traceback, or minutes of training before the demo finds that it cannot listen."""
    run = subprocess.run([sys.executable, "scripts/demo.py", "--web-port", str(demo.web), "--model-port", str(free_port())],
                         cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert run.returncode == 1 and f"port {demo.web}" in run.stderr and "is taken" in run.stderr


def test_setup_refuses_an_old_python(tmp_path):
    """Bug: a syntax error, where a sentence should say which Python is needed."""
    script = (ROOT / "scripts" / "setup.py").read_text()
    pretend = "import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n" + script.split('"""', 2)[2]
    copy = tmp_path / "scripts" / "setup.py"
    copy.parent.mkdir()
    copy.write_text(pretend)
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    run = subprocess.run([sys.executable, str(copy)], capture_output=True, text=True)
    assert run.returncode == 1 and "Python 3.11 or newer is needed, this is 3.9" in run.stderr


def test_make_help_lists_the_layers():
    """Bug: a target that the help forgets."""
    run = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    for target in ("demo", "test", "base", "sft", "agent", "serve", "app", "ask", "gpu"):
        assert re.search(rf"make {target} ", run.stdout), target
