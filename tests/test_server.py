"""The inference server: server.py as a process of its own over a checkpoint made here; and its client.

Run:         pytest tests/test_server.py

What cannot be seen from outside (that a generation stops when its client goes away) is tested on make_app in a thread.
"""

import asyncio
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import torch
import uvicorn
from test_engine import BPE, PROMPTS, Dictated, pieces_and_end, small_model, whole

import checkpoint
import client
import server
from engine import Engine, Finished, Request
from openai_api import begin_at_text
from prompts import chat_trace, prompt_text

SERVER, CLIENT = Path(server.__file__), Path(client.__file__)
BLOCK = 512


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(model: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """server.py with this checkpoint, ready: its address and its process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, SERVER, "--model", model, "--port", str(port), "--threads", "1"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(600):
            if process.poll() is not None:
                pytest.fail(f"server.py ended at once: {process.communicate()[0]}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            time.sleep(0.1)
        else:
            pytest.fail("server.py did not answer within 60 s")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sft.pt"
    checkpoint.save(path, small_model(BLOCK, endless=True), BPE, "sft", {"preset": "test"})
    return path


@pytest.fixture(scope="module")
def url(model_file) -> Iterator[str]:
    with serving(model_file) as (address, _):
        yield address


@pytest.fixture(scope="module")
def engine(model_file) -> Engine:
    """The same checkpoint in this process, to compare with."""
    return Engine.load(str(model_file), "cpu")


@pytest.fixture(scope="module")
def http(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as connection:
        yield connection


def events_of(response: httpx.Response) -> list[dict]:
    """The events of a whole answer of /generate; fails when a line has another form."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    lines = [line for line in response.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines]


def text_of(events: list[dict]) -> str:
    return "".join(event["token"] for event in events[:-1])


# -- POST /generate --------------------------------------------------------------------------------------------------

def test_the_events_of_a_generation(http, engine):
    """Prevents: an event that breaks the contract of DESIGN section 5, which L8 and the page are written against."""
    *tokens, done = events_of(http.post("/generate", json={"prompt": "Q: Hi\n", "max_tokens": 30}))
    assert tokens and all(set(event) == {"token"} and event["token"] for event in tokens)
    assert set(done) == {"done", "id", "finish_reason", "stop_reason", "usage", "timings"}
    assert done["done"] is True and done["finish_reason"] == "length" and done["stop_reason"] is None
    assert done["usage"] == {"prompt_tokens": len(BPE.encode("Q: Hi\n")), "completion_tokens": 30}
    assert set(done["timings"]) == {"queue", "prefill", "decode"} and min(done["timings"].values()) >= 0
    assert text_of([*tokens, done]) == whole(engine, "Q: Hi\n", max_tokens=30)[0]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 4},
                                     {"temperature": 0.8, "top_k": 9, "top_p": 0.8, "seed": -1}], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_text_is_the_engines(http, engine, prompt, options):
    """Prevents: an option lost between the body and the engine; text broken by the coding of the stream."""
    events = events_of(http.post("/generate", json={"prompt": prompt, "max_tokens": 50, **options}))
    assert text_of(events) == whole(engine, prompt, max_tokens=50, **options)[0]


@pytest.mark.parametrize("form", [lambda stop: stop, lambda stop: [stop], lambda stop: ["never said", "", stop]],
                         ids=["text", "list", "longer list"])
def test_stop_texts(http, engine, form):
    """Prevents: "stop" as one text taken for a list of letters; an empty stop text that ends everything."""
    full = whole(engine, "The old man", max_tokens=60)[0]
    stop = full[12:18]
    body = {"prompt": "The old man", "max_tokens": 60, "stop": form(stop)}
    *tokens, done = events_of(http.post("/generate", json=body))
    assert "".join(event["token"] for event in tokens) == full[: full.find(stop)]
    assert (done["finish_reason"], done["stop_reason"]) == ("stop", stop)


def test_logprobs_are_sent_when_asked_for(http, engine):
    """Prevents: a report that does not belong to the text beside it."""
    *tokens, _ = events_of(http.post("/generate", json={"prompt": "The old man", "max_tokens": 20, "logprobs": 3}))
    reports = [report for event in tokens for report in event["logprobs"]]
    assert BPE.decode([report["id"] for report in reports]) == "".join(event["token"] for event in tokens)
    assert all(len(report["top"]) == 3 and report["top"][0]["id"] == report["id"] for report in reports)   # greedy


def test_the_request_id_is_passed_on(http):
    """Prevents: a trace that falls apart because each layer makes an id of its own."""
    body = {"prompt": "Q", "max_tokens": 2}
    response = http.post("/generate", json=body, headers={"X-Request-Id": "trace-42"})
    assert response.headers["X-Request-Id"] == events_of(response)[-1]["id"] == "trace-42"
    made = [http.post("/generate", json=body) for _ in range(2)]
    ids = {response.headers["X-Request-Id"] for response in made} | {events_of(response)[-1]["id"] for response in made}
    assert len(ids) == 2 and all(ids)


def test_health_says_what_is_served(http, engine):
    """Prevents: a page that shows another model than the one that answers."""
    health = http.get("/health").json()
    assert health == {"status": "ok", "model": {"stage": "sft", "parameters": engine.model.n_params(), "device": "cpu",
                                                **vars(engine.model.config)}}


# -- What is refused -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
@pytest.mark.parametrize("body, status, said", [
    ({}, 422, "prompt: Field required"), ({"prompt": 5}, 422, "prompt: Input should be a valid string"),
    ({"prompt": "Q", "max_tokens": 0}, 422, "max_tokens: Input should be greater"),
    ({"prompt": "Q", "max_tokens": "many"}, 422, "max_tokens: Input should be a valid integer"),
    ({"prompt": "Q", "temperature": -1}, 422, "temperature: Input should be greater"),
    ({"prompt": "Q", "temperature": 99}, 422, "temperature: Input should be less"),
    ({"prompt": "Q", "top_p": 0}, 422, "top_p: Input should be greater"),
    ({"prompt": "Q", "stop": 7}, 422, "stop"), ({"prompt": "Q", "seed": 2**64}, 422, "seed: Input should be less"),
    ({"prompt": ""}, 400, "the prompt is empty"), ({"prompt": " the" * BLOCK}, 400, f"{BLOCK} tokens, but this model"),
    ({"prompt": "x" * 10**6}, 400, "the prompt is too long: 1000000 characters"),
    (b"no json", 422, "the body is no JSON"), (b"[]", 422, "the body: Input should be a valid dictionary"),
    (b'{"prompt": "Q", "temperature": NaN}', 422, "temperature"),
    (rb'{"prompt": "Q", "max_tokens": "\ud800"}', 422, "max_tokens"),
    (b'{"prompt": "\xff"}', 400, "error parsing the body")],
    ids=lambda value: ascii(value)[:40] if isinstance(value, dict | bytes) else "")
def test_a_bad_body_is_refused_in_a_sentence(http, path, body, status, said):
    """Prevents: a stream that breaks off, status 500, or a list of Python objects, where a sentence would help."""
    content = body if isinstance(body, bytes) else json.dumps(body)
    response = http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    detail = response.json()["detail"]
    assert isinstance(detail, str) and said in detail
    assert response.json()["error"]["message"] == detail       # where OpenAI's clients look


def test_bounds_of_generate_alone(http):
    """Prevents: an engine that is asked for more than it can do."""
    for wrong in ({"max_tokens": 10**6}, {"top_k": -1}, {"logprobs": 21}, {"logprobs": -1}):
        response = http.post("/generate", json={"prompt": "Q", **wrong})
        assert response.status_code == 422 and next(iter(wrong)) in response.json()["detail"]


@pytest.mark.parametrize("options", [{"temperature": 1e-300, "seed": 1}, {"temperature": 1, "top_p": 1e-300, "seed": 1},
                                     {"temperature": 1, "top_k": 2**70, "seed": 1}, {"max_tokens": 100_000}], ids=str)
def test_the_edges_of_what_is_allowed_are_served(http, options):
    """Prevents: a value within the bounds that breaks the stream off in torch."""
    assert events_of(http.post("/generate", json={"prompt": "Q", "max_tokens": 5, **options}))[-1]["done"] is True


def test_text_that_is_no_unicode_is_served(http):
    """Prevents: half an emoji, as JavaScript can send it, that ends in status 500."""
    response = http.post("/generate", content=rb'{"prompt": "a\ud83d", "max_tokens": 3}',
                         headers={"Content-Type": "application/json"})
    assert events_of(response)[-1]["done"] is True


# -- Several at once -------------------------------------------------------------------------------------------------

def test_many_clients_and_health_answers_meanwhile(http, url, engine):
    """Prevents: generation on the event loop, where one long answer makes the whole server deaf; texts that mix."""
    def ask(seed: int) -> str:
        body = {"prompt": f"Q{seed}", "temperature": 1.0, "seed": seed, "max_tokens": 250}
        return text_of(events_of(httpx.post(f"{url}/generate", json=body, timeout=60, trust_env=False)))

    clients = server.AT_ONCE + 2                               # two of them wait for a place
    waits = []
    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(ask, seed) for seed in range(clients)]
        while not all(future.done() for future in asked):
            began = time.perf_counter()
            assert http.get("/health").status_code == 200
            waits.append(time.perf_counter() - began)
    assert len(waits) > 1 and max(waits) < 1
    assert [future.result() for future in asked] == [
        whole(engine, f"Q{seed}", temperature=1.0, seed=seed, max_tokens=250)[0] for seed in range(clients)]


def test_a_prompt_that_is_slow_to_encode_does_not_stop_the_others(http, url):
    """Prevents: encoding on the event loop: a long word of a prompt would hold up everyone."""
    slow = {"prompt": "the" * 1500, "max_tokens": 1}           # one piece of 4,500 letters: quadratic work
    waits = []
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(lambda: httpx.post(f"{url}/generate", json=slow, timeout=60, trust_env=False))
        while not refused.done():
            began = time.perf_counter()
            assert http.get("/health").status_code == 200
            waits.append(time.perf_counter() - began)
    assert refused.result().status_code == 400
    assert waits and max(waits) < 1


# -- A client that goes away (in this process, where the engine can be watched) --------------------------------------

class Watched(Engine):
    """An engine that notes how each generation ended, and may wait before each token."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.ended: queue.Queue[Finished] = queue.Queue()
        self.pause = 0.0

    def generate(self, request, *arguments):
        for event in super().generate(request, *arguments):
            time.sleep(self.pause)
            if isinstance(event, Finished):
                self.ended.put(event)
            yield event


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[str, Watched]]:
    """A server in a thread of this process: its address and its engine, which could go on for 4,000 tokens."""
    engine, port = Watched(small_model(4096, endless=True), BPE), free_port()
    app = uvicorn.Server(uvicorn.Config(server.make_app(engine), port=port, log_level="warning",
                                        timeout_graceful_shutdown=1))
    thread = threading.Thread(target=app.run, daemon=True)
    thread.start()
    while not app.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}", engine
    app.should_exit = True
    thread.join(10)


LONG = {"max_tokens": 4000, "temperature": 0}
QUESTION = {"messages": [{"role": "user", "content": "Who are you?"}]}


@pytest.mark.parametrize("path, body", [
    ("/generate", {"prompt": "Q"}), ("/v1/completions", {"prompt": "Q", "stream": True}),
    ("/v1/chat/completions", {**QUESTION, "stream": True}), ("/v1/completions", {"prompt": "Q"}),
    ("/v1/chat/completions", QUESTION)], ids=["generate", "completions", "chat", "completions-whole", "chat-whole"])
def test_a_client_that_goes_away_stops_its_generation(watched, path, body):
    """Prevents: a processor that computes thousands of tokens for a reader who has closed the page."""
    address, engine = watched
    engine.pause = 0.002
    host, port = address.removeprefix("http://").split(":")
    content = json.dumps({**LONG, **body}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        if path == "/generate" or body.get("stream"):
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        time.sleep(0.3)                                        # in mid-generation
    ended = engine.ended.get(timeout=5)
    assert ended.reason == "cancelled"
    assert ended.completion_tokens < 2000


def test_the_wait_for_a_place_is_counted_as_queue(watched):
    """Prevents: a server with too many clients that reports short times, because the wait is not in any of them."""
    address, engine = watched
    engine.pause = 0.01
    body = {"prompt": "Q", "max_tokens": 40}
    with ThreadPoolExecutor(server.AT_ONCE + 1) as pool:
        asked = [pool.submit(lambda: httpx.post(f"{address}/generate", json=body, timeout=30, trust_env=False))
                 for _ in range(server.AT_ONCE + 1)]
    queues = [events_of(future.result())[-1]["timings"]["queue"] for future in asked]
    assert max(queues) > 40 * 0.01                             # the last one waited for a whole generation of another
    while not engine.ended.empty():
        engine.ended.get()


# -- OpenAI's own client ---------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def theirs(url) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)


def test_openai_lists_the_model(theirs):
    """Prevents: a list that OpenAI's client cannot read."""
    assert [model.id for model in theirs.models.list()] == ["query-to-flop"]


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1, "seed": 3},
                                     {"temperature": 1, "seed": 3, "top_p": 0.7}], ids=str)
@pytest.mark.parametrize("prompt", ["The old man", "Q: How are you?\nA:"])
def test_openai_completions_streamed_and_whole(theirs, engine, prompt, options):
    """Prevents: a text that differs between stream and whole, or that lost its first space."""
    asked = {"model": "query-to-flop", "prompt": prompt, "max_tokens": 40, **options}
    text, finished = whole(engine, prompt, max_tokens=40, **options)
    answer = theirs.completions.create(**asked)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (text, "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (finished.prompt_tokens, 40)
    assert answer.usage.total_tokens == finished.prompt_tokens + 40
    chunks = list(theirs.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_openai_chat_streamed_and_whole(theirs, engine, seed):
    """Prevents: another prompt than the one of the training, and a stream that begins with the space behind "A:"."""
    asked = {"model": "query-to-flop", "messages": [{"role": "user", "content": "How are\nyou?"}], "max_tokens": 40,
             "temperature": 1, "seed": seed}
    prompt = prompt_text(chat_trace("How are\nyou?"))
    assert prompt == "Q: How are you?\nA:"
    text = whole(engine, prompt, max_tokens=40, temperature=1, seed=seed)[0].lstrip()
    answer = theirs.chat.completions.create(**asked)
    assert (answer.choices[0].message.role, answer.choices[0].message.content) == ("assistant", text)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 40
    chunks = list(theirs.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_openai_chat_text_begins_at_its_first_word():
    """Prevents: white space that is several tokens, cut in one way in the stream and in another in the whole answer."""
    engine = Engine(Dictated(BPE.encode("  \n\n hello  world \n")), BPE)

    async def given():
        for event in engine.generate(Request("Q")):
            yield event

    async def collect():
        return [event async for event in begin_at_text(given())]

    pieces, _ = pieces_and_end(asyncio.run(collect()))
    assert "".join(piece.text for piece in pieces) == "hello  world \n"


@pytest.mark.parametrize("stop", ["", [""], [], None])
def test_openai_an_empty_stop_is_none(theirs, engine, stop):
    """Prevents: stop="" from a form's empty field, which ended every answer before its first letter."""
    answer = theirs.completions.create(model="x", prompt="The old man", max_tokens=10, temperature=0, stop=stop)
    assert answer.choices[0].text == whole(engine, "The old man", max_tokens=10)[0]


def test_openai_stop_texts(theirs, engine):
    """Prevents: stop texts that OpenAI's clients send and that are ignored."""
    full = whole(engine, "The old man", max_tokens=60)[0]
    for stop in (full[12:18], [full[12:18]]):
        answer = theirs.completions.create(model="x", prompt="The old man", max_tokens=60, temperature=0, stop=stop)
        assert answer.choices[0].text == full[: full.find(full[12:18])]
        assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("messages", [
    [], [{"role": "system", "content": "Be brief."}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "You?"}]])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_conversations_are_refused(theirs, messages, stream):
    """Prevents: a system message or earlier turns that are dropped without a word."""
    with pytest.raises(openai.BadRequestError, match="exactly one message, of role user"):
        theirs.chat.completions.create(model="query-to-flop", messages=messages, stream=stream)


def test_openai_too_long_a_prompt_is_refused(theirs):
    """Prevents: an error that comes after the stream has begun, where OpenAI's client does not see it."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="too long"):
            theirs.completions.create(model="query-to-flop", prompt=" the" * BLOCK, stream=stream)


# -- The command: how it starts and ends -----------------------------------------------------------------------------

def run_main(monkeypatch, *arguments) -> str:
    """What server.py says when it refuses to start. A SystemExit with a text prints it and ends with status 1."""
    monkeypatch.setattr(sys, "argv", ["server.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        server.main()
    assert isinstance(ended.value.code, str)
    return ended.value.code


def test_a_missing_checkpoint_is_said(tmp_path):
    """Prevents: a stack trace as the first thing that a newcomer sees, and a status that says all is well."""
    path = tmp_path / "none.pt"
    run = subprocess.run([sys.executable, SERVER, "--port", str(free_port())], capture_output=True, text=True,
                         timeout=60, env={**os.environ, "MODEL_PATH": str(path)})
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith(f"server.py: no checkpoint at {path}: ") and "make demo" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def broken_files(good: Path) -> dict[str, bytes | dict | list]:
    state = torch.load(good, weights_only=True)
    return {
        "empty": b"", "text": b"hello\n" * 100, "half": good.read_bytes()[: good.stat().st_size // 2],
        "flipped": good.read_bytes().replace(b"PK", b"XX"),
        "other format": {**state, "format": "something else"}, "no dictionary": [1, 2, 3],
        "no model": {name: value for name, value in state.items() if name != "model"},
        "no tokenizer": {name: value for name, value in state.items() if name != "tokenizer"},
        "other shape": {**state, "config": {**state["config"], "n_embd": 64}},
        "unknown setting": {**state, "config": {**state["config"], "n_experts": 8}},
        "odd heads": {**state, "config": {**state["config"], "n_head": 5}},
    }


def test_a_corrupt_checkpoint_is_said(model_file, tmp_path, monkeypatch):
    """Prevents: a stack trace for a file that a full disk or a broken download cut off."""
    for name, content in broken_files(model_file).items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        said = run_main(monkeypatch, "--model", path, "--port", free_port())
        assert said.startswith("server.py: ") and ("n_head" if name == "odd heads" else str(path)) in said


def test_a_checkpoint_cannot_run_code(tmp_path, monkeypatch):
    """Prevents: a model file from a stranger that runs a command as soon as it is loaded."""
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"format": checkpoint.FORMAT, "stage": Trap()}, tmp_path / "trap.pt")
    assert "no checkpoint that can be read safely" in run_main(monkeypatch, "--model", tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_device_that_is_not_there_is_said(model_file, monkeypatch):
    """Prevents: an AssertionError out of torch for --device cuda on a laptop."""
    assert "nonsense" in run_main(monkeypatch, "--model", model_file, "--device", "nonsense")
    if not torch.cuda.is_available():
        assert "device cuda" in run_main(monkeypatch, "--model", model_file, "--device", "cuda")


def test_a_port_that_is_taken_is_said(model_file, monkeypatch, capsys):
    """Prevents: "serving" printed by a server that serves nothing, and an error without a way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run_main(monkeypatch, "--model", model_file, "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}" in said and "--port" in said
    assert capsys.readouterr().out == ""
    assert "port 99999" in run_main(monkeypatch, "--model", model_file, "--port", 99999)


def test_help_names_every_option(monkeypatch, capsys):
    """Prevents: a help that breaks on a stray % or leaves out the setting."""
    monkeypatch.setattr(sys, "argv", ["server.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        server.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in said for word in ("--model", "MODEL_PATH", "--host", "--port", "9000", "--device", "--threads"))


def test_sigterm_ends_it_within_five_seconds(tmp_path):
    """Prevents: a server that waits for its clients to the end, so that make demo cannot be stopped."""
    checkpoint.save(tmp_path / "long.pt", small_model(8192, endless=True), BPE, "sft", {})
    with serving(tmp_path / "long.pt") as (address, process):
        def listen(path: str) -> None:
            with contextlib.suppress(httpx.HTTPError):
                body = {"prompt": "Q", "max_tokens": 100_000}
                httpx.post(f"{address}{path}", json=body, timeout=20, trust_env=False)

        clients = [threading.Thread(target=listen, args=(path,), daemon=True)
                   for path in ("/generate", "/v1/completions", "/generate")]
        for one in clients:
            one.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.wait(5)
        assert process.returncode in (0, -signal.SIGTERM)
        for one in clients:
            one.join(10)
            assert not one.is_alive()


# -- client.py -------------------------------------------------------------------------------------------------------

def run_client(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, CLIENT, *arguments], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment}, encoding="utf-8")


def test_the_client_prints_the_text(url, engine):
    """Prevents: a command line that loses a piece of the text; a proxy asked for the way to this very machine."""
    proxy = f"http://127.0.0.1:{free_port()}"
    run = run_client("The old man", "--url", f"{url}/", "--temperature", "0", "--max-tokens", "30",
                     HTTP_PROXY=proxy, http_proxy=proxy, ALL_PROXY=proxy, NO_PROXY="", no_proxy="")
    assert run.returncode == 0, run.stderr
    text, _, last = run.stdout.rpartition("\n[")
    assert text == whole(engine, "The old man", max_tokens=30)[0]
    assert last.startswith("length, 30 tokens, ")


def test_the_client_says_that_the_server_is_down():
    """Prevents: a stack trace of httpx instead of the command that helps."""
    address = f"http://127.0.0.1:{free_port()}"
    run = run_client("The old man", "--url", address)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.strip() == f"client.py: the model server at {address} does not answer; start it with  make demo"


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "http://127.0.0.1:port", "nonsense"])
def test_the_client_says_that_an_address_is_none(address):
    """Prevents: a stack trace for an address without http:// in front."""
    run = run_client("The old man", "--url", address)
    assert run.returncode == 1
    assert run.stderr.startswith(f"client.py: '{address}' is no address of a model server")


def test_the_client_quotes_what_the_server_refused(url):
    """Prevents: "400 Bad Request" where the server said what is wrong."""
    assert run_client(" the" * BLOCK, "--url", url).stderr.startswith("client.py: the prompt is too long")
    assert "max_tokens: Input should be greater" in run_client("Q", "--url", url, "--max-tokens", "0").stderr
    said = run_client("Q", "--url", f"{url}/v1").stderr
    assert f"the model server at {url}/v1/generate answered with status 404: Not Found" in said
