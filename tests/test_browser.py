"""The chat page in a real Chromium, in front of real uvicorn and the real agent loop; only the model is scripted.

Run:         pytest tests/test_browser.py                 SCREENSHOTS=/tmp/shots saves pictures of the page there
"""

import os
import re
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_web_app import QUESTION, ScriptedModel, WebApp

pytestmark = pytest.mark.browser

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
HALF = "I should calcul"                                       # of the thought: what six tokens of the script hold
SCREENSHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests. A machine without one fails: a page that nobody opened is not tested."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.fail("Chromium is missing. Install it (Debian: apt-get install chromium), or name it in CHROMIUM.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedModel]:
    model = ScriptedModel()
    yield model
    model.stop()


@pytest.fixture(scope="module")
def app_process(scripted: ScriptedModel) -> Iterator[WebApp]:
    web = WebApp(scripted.url)
    yield web
    web.kill()


@pytest.fixture
def model(scripted: ScriptedModel) -> Iterator[ScriptedModel]:
    scripted.reset()
    yield scripted
    scripted.go_on()
    if scripted.http is None:
        scripted.start()


@pytest.fixture
def web(app_process: WebApp, model: ScriptedModel) -> Iterator[WebApp]:
    yield app_process
    if app_process.process is None:
        app_process.start()


@pytest.fixture
def page(browser: Browser, web: WebApp) -> Iterator[Page]:
    yield from open_page(browser, web)


@pytest.fixture
def phone(browser: Browser, web: WebApp) -> Iterator[Page]:
    yield from open_page(browser, web, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)


def open_page(browser: Browser, web: WebApp, **options) -> Iterator[Page]:
    """The page, freshly opened. Fails if a script broke, or if a request went to another host."""
    context = browser.new_context(**options)
    context.set_default_timeout(5000)
    page, problems, hosts = context.new_page(), [], set()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.extend([message.text] * is_problem(message.text, message.type)))
    page.on("request", lambda request: hosts.add(urllib.parse.urlsplit(request.url).netloc))
    page.goto(web.url)
    yield page
    context.close()
    assert not problems
    assert hosts == {f"127.0.0.1:{web.port}"}


def is_problem(text: str, kind: str) -> bool:
    """Whether a line of the console tells of a mistake in the page; that a killed server is not reached does not."""
    return kind == "error" and "Failed to load resource" not in text


def ask(page: Page, query: str) -> None:
    page.get_by_label("Your question").fill(query)
    page.get_by_label("Your question").press("Enter")


def picture(page: Page, name: str) -> None:
    """Saves a screenshot where SCREENSHOTS says so."""
    if SCREENSHOTS:
        page.wait_for_timeout(400)                             # until nothing moves
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def steps(page: Page) -> list[tuple[str, str]]:
    return [(step.locator(".kind").inner_text(), step.locator(".text").inner_text())
            for step in page.locator(".step").all()]


# -- A question and its answer ---------------------------------------------------------------------------------------

def test_question_shows_every_step_and_the_answer(page):
    """Prevents: the whole chain works, and the page shows nothing, or the wrong thing, of it."""
    ask(page, QUESTION)
    expect(page.locator(".turn")).to_have_attribute("data-state", "done")
    assert page.locator(".question").inner_text() == QUESTION
    assert steps(page) == [("Thought", "I should calculate this."), ("Action", "calc(1234 + 5678)"),
                           ("Observation", "6912")]
    expect(page.locator(".answer")).to_have_text("6912")
    assert "mono" in page.locator(".step[data-kind=action] .text").evaluate("e => getComputedStyle(e).fontFamily")
    expect(page.locator("#announcer")).to_have_text("6912")    # what a screen reader says
    expect(page.get_by_label("Your question")).to_be_focused()
    assert page.get_by_label("Your question").input_value() == ""
    picture(page, "desktop-light")


def test_steps_stream(page, model):
    """Prevents: a page that waits for the end of the answer before it shows anything."""
    model.hold_after = 6
    ask(page, QUESTION)
    expect(page.locator(".step .text")).to_have_text(HALF)
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    model.go_on()
    expect(page.locator(".answer")).to_have_text("6912")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_second_question_has_a_turn_of_its_own(page):
    """Prevents: pieces of one answer drawn into another, and an end of the page that is out of view."""
    ask(page, QUESTION)
    expect(page.locator(".answer")).to_have_text("6912")
    for i in range(5):
        ask(page, f"What is {i} plus 20?")
        expect(page.locator(".turn").nth(i + 1).locator(".answer")).to_have_text(str(i + 20))
    assert page.locator(".turn .answer").all_inner_texts() == ["6912", "20", "21", "22", "23", "24"]
    expect(page.locator(".answer").last).to_be_in_viewport()


def test_suggestions_ask(page):
    """Prevents: a first visit on which nothing happens at a click."""
    suggestions = page.get_by_role("list", name="Questions to try").get_by_role("button")
    assert suggestions.all_inner_texts() == [
        QUESTION, "What is the capital of Mongolia?", "How are you today?", "What is the atomic number of gold plus 5?"]
    picture(page, "welcome-light")
    suggestions.nth(2).click()
    expect(page.locator(".answer")).to_have_text("I am well, thank you.")
    expect(page.locator("#welcome")).to_be_hidden()
    assert page.locator(".step").count() == 0


def test_timing_opens_and_tells_each_span(page):
    """Prevents: a waterfall that is empty, unreachable by keyboard, or says nothing about its bars."""
    ask(page, QUESTION)
    expect(page.locator(".turn")).to_have_attribute("data-state", "done")
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    spans = page.locator(".span")
    layers = spans.locator(".layer").all_inner_texts()
    assert layers[0] == "L7" and "L8" in layers and "L6" in layers
    track, bar = (spans.first.locator(part).bounding_box() for part in (".track", ".bar"))
    assert track and bar and track["width"] * 0.9 < bar["width"] <= track["width"] + 1
    spans.nth(1).focus()
    expect(page.locator(".span-details")).to_contain_text("took")
    spans.first.hover()
    expect(page.locator(".span-details")).to_contain_text("web app")
    picture(page, "timing-light")


def test_header_names_the_model(page, model):
    """Prevents: a page that looks ready while no model answers, or that never notices that it is back."""
    expect(page.get_by_role("status")).to_have_text("agent · 1.05 M parameters")
    gpt2 = page.evaluate("modelName({model: {stage: 'base', parameters: 124439808}})")
    assert gpt2 == "base · 124 M parameters"
    model.stop()
    ask(page, QUESTION)                                        # an answer, or its failure, makes the page look again
    expect(page.get_by_role("status")).to_have_text("model not reachable")
    model.reset()
    model.start()
    expect(page.get_by_role("status")).to_have_text("agent · 1.05 M parameters")


# -- Stop and failures -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["click", "Escape"])
def test_stop_in_mid_stream(page, model, how):
    """Prevents: a Stop that loses the text so far, or that leaves the model computing; and a page stuck after it."""
    model.hold_after = 6
    ask(page, QUESTION)
    expect(page.locator(".step .text")).to_have_text(HALF)
    if how == "click":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".stopped")).to_be_visible()
    assert steps(page) == [("Thought", HALF)]
    assert model.client_left.wait(5), "the generation went on after Stop"
    picture(page, f"stopped-{how}")
    model.go_on()
    ask(page, QUESTION)
    expect(page.locator(".answer").last).to_have_text("6912")


def test_enter_does_not_stop(page, model):
    """Prevents: a second question typed in mid-stream that stops the first, or that is lost."""
    model.hold_after = 6
    ask(page, QUESTION)
    expect(page.locator(".step .text")).to_have_text(HALF)
    ask(page, "How are you?")
    model.go_on()
    expect(page.locator(".answer")).to_have_text("6912")
    assert page.get_by_label("Your question").input_value() == "How are you?"
    assert page.locator(".turn").count() == 1


def test_double_click_on_send_does_not_stop(page):
    """Prevents: the second click of a double click that hits Stop."""
    page.get_by_label("Your question").fill(QUESTION)
    page.get_by_role("button", name="Send").dblclick()
    expect(page.locator(".answer")).to_have_text("6912")


def test_model_server_killed_in_mid_stream_then_retry(page, model):
    """Prevents: half an answer without a word, a message that helps nobody, a Retry that keeps the broken half."""
    model.hold_after = 6
    ask(page, QUESTION)
    expect(page.locator(".step .text")).to_have_text(HALF)
    model.stop()
    expect(page.get_by_role("alert")).to_contain_text("broke off")
    assert steps(page) == [("Thought", HALF)]
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.get_by_role("alert")).to_contain_text("make demo")
    picture(page, "error-light")
    model.reset()
    model.start()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".answer")).to_have_text("6912")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert len(steps(page)) == 3 and page.locator(".turn").count() == 1


def test_web_app_killed_in_mid_stream_then_retry(page, model, web):
    """Prevents: the same, one layer up, where no error event can come any more."""
    model.hold_after = 6
    ask(page, QUESTION)
    expect(page.locator(".step .text")).to_have_text(HALF)
    web.kill()
    expect(page.get_by_role("alert")).to_contain_text("broke off")
    expect(page.get_by_role("status")).to_have_text("web app not reachable")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("alert")).to_contain_text("web app does not answer")
    model.go_on()
    web.start()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".answer")).to_have_text("6912")


def test_answer_without_text_is_said(page, model):
    """Prevents: an empty space where an untrained model ended at once."""
    model.script = lambda _: ""
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).to_contain_text(re.compile("answer"))
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


# -- Text, keys and sizes --------------------------------------------------------------------------------------------

def test_html_is_text(page, model):
    """Prevents: a question, a model or a tool that puts markup or a script on the page."""
    evil = '<img src=x onerror="document.title=1"><b>bold</b>'
    model.script = lambda prompt: (
        f"THOUGHT: {evil}\nACTION: {evil}\nOBSERVATION:" if "\nOBSERVATION:" not in prompt else f"ANSWER: {evil}")
    ask(page, evil)
    expect(page.locator(".answer")).to_have_text(evil)
    assert page.locator(".question").inner_text() == evil
    assert [text for _, text in steps(page)][:2] == [evil, evil]
    assert page.locator(".turn img, .turn b").count() == 0
    assert page.title() == "query-to-flop"


def test_characters_outside_ascii_survive(page, model):
    """Prevents: a CJK character or an emoji broken by the way from the model to the page."""
    model.script = lambda _: "ANSWER: 乌兰巴托 🙂 naïve"
    ask(page, "蒙古的首都是哪里? 🧮")
    expect(page.locator(".answer")).to_have_text("乌兰巴托 🙂 naïve")
    assert page.locator(".question").inner_text() == "蒙古的首都是哪里? 🧮"


def test_shift_enter_and_input_methods(page):
    """Prevents: a line break that sends; an Enter that picks a word of an input method and sends the half."""
    box = page.get_by_label("Your question")
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    assert box.input_value() == "one\ntwo"
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert page.locator(".turn").count() == 0
    box.press("Enter")
    expect(page.locator(".answer")).to_be_visible()


def test_question_too_long_is_not_sent(page):
    """Prevents: a refusal only after sending, and a limit that counts an emoji twice."""
    box = page.get_by_label("Your question")
    box.fill("🙂" * 500)
    expect(page.locator("#count")).to_have_text("500 of 500 characters")
    box.fill("🙂" * 501)
    expect(page.locator("#count")).to_have_text("501 of 500 characters")
    box.press("Enter")
    assert page.locator(".turn").count() == 0
    box.fill("🙂" * 500)
    box.press("Enter")
    expect(page.locator(".answer")).to_have_text("I am well, thank you.")


def test_phone_has_no_horizontal_scroll(phone, model):
    """Prevents: a page that slides sideways under the thumb, whatever the length of a word."""
    wide = "x" * 300
    overflow = "document.documentElement.scrollWidth - innerWidth, main.scrollWidth - main.clientWidth"
    check = f"() => {{ const main = document.querySelector('main'); return Math.max({overflow}); }}"
    assert phone.evaluate(check) <= 0
    picture(phone, "phone-welcome")
    ask(phone, QUESTION)
    expect(phone.locator(".answer")).to_have_text("6912")
    phone.locator("summary").tap()
    assert phone.evaluate(check) <= 0
    picture(phone, "phone")
    model.script = lambda prompt: (
        f"THOUGHT: {wide}\nACTION: calc({wide})\nOBSERVATION:" if "\nOBSERVATION:" not in prompt else f"ANSWER: {wide}")
    ask(phone, wide)
    expect(phone.locator(".answer").last).to_have_text(wide)
    assert phone.evaluate(check) <= 0
    expect(phone.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
    picture(phone, "phone-wide")


def test_dark_scheme(browser, web, model):
    """Prevents: a white page in a dark room, and text that cannot be read on it."""
    for page in open_page(browser, web, color_scheme="dark"):
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(int(part) for part in re.findall(r"\d+", background)[:3]) < 60
        picture(page, "welcome-dark")
        ask(page, QUESTION)
        expect(page.locator(".answer")).to_have_text("6912")
        page.locator("summary").click()
        picture(page, "desktop-dark")
        model.stop()
        ask(page, "What is 20 plus 22?")
        expect(page.get_by_role("alert")).to_be_visible()
        picture(page, "error-dark")


def test_keyboard_alone_is_enough(page):
    """Prevents: a control that only a mouse can reach."""
    box = page.get_by_label("Your question")
    expect(box).to_be_focused()
    page.keyboard.press("Shift+Tab")                           # the suggestions stand before the box
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_text("I am well, thank you.")
    expect(box).to_be_focused()
