/* The chat page: sends a question to POST /chat and draws the events of the answer as they arrive.
 *
 * Every text that comes from a person, a model or a tool is put on the page with textContent, never as HTML.
 * What it leaves out: a history that survives a reload, and Markdown.
 */
"use strict";

const KINDS = { thought: "Thought", action: "Action", observation: "Observation" };
const LAYERS = {
  L1: "GPU", L2: "transformer", L3: "pretraining", L4: "instruction tuning",
  L5: "agent tuning", L6: "inference server", L7: "web app", L8: "agent loop",
};
const NO_ANSWER = "The web app does not answer. Start it with: make demo";
const BROKEN_OFF = "The connection broke off in the middle of the answer. If the web app has stopped, start it with: make demo";

const element = (id) => document.getElementById(id);
const conversation = element("conversation");
const query = element("query");
const send = element("send");
let running = null;                                            // the AbortController of the answer under way

// -- Asking ----------------------------------------------------------------------------------------------------------

/** Adds a question to the page and asks it. */
function ask(text) {
  element("welcome").hidden = true;
  const turn = clone("turn-template");
  turn.querySelector(".question").textContent = text;
  turn.querySelector(".retry").addEventListener("click", () => { if (!running) answer(turn, text); });
  const timing = turn.querySelector(".timing");
  timing.addEventListener("toggle", () => { if (timing.open) timing.scrollIntoView({ block: "nearest" }); });
  conversation.append(turn);
  conversation.scrollTop = conversation.scrollHeight;
  answer(turn, text);
}

/** Asks the server and draws the answer into the turn; used again, it replaces what an earlier try left there. */
async function answer(turn, text) {
  setRunning(new AbortController());
  clear(turn);
  try {
    const response = await fetch("/chat", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ query: text }),
      signal: running.signal,
    }).catch((error) => { throw error.name === "AbortError" ? error : new Error(NO_ANSWER); });
    if (!response.ok) throw new Error(await refusal(response));
    await draw(turn, response);
  } catch (error) {
    if (error.name === "AbortError") turn.dataset.state = "stopped";
    else fail(turn, error.message);
  }
  setRunning(null);
  announce(turn);
  if (matchMedia("(pointer: fine)").matches) query.focus();    // on a phone that would open the keyboard
  checkHealth();
}

/** While an answer is under way, the button stops it. */
function setRunning(controller) {
  running = controller;
  send.textContent = running ? "Stop" : "Send";
  element("composer").classList.toggle("running", running !== null);
}

/** Draws the events of a response until `done`. */
async function draw(turn, response) {
  for await (const event of events(response)) {
    if (event.type === "done") {
      if (turn.dataset.state === "failed") return;
      turn.dataset.state = "done";
      if (!turn.querySelector(".answer").textContent) fail(turn, "The model gave no answer.");
      return;
    }
    following(() => {
      if (event.type === "trace") drawTrace(turn, event);
      else if (event.type === "error") fail(turn, event.message);
      else write(turn, event.type, event.v);
    });
  }
  throw new Error(BROKEN_OFF);                                 // the events ended without `done`
}

/** The events of a response. The server sends each as one line "data: {...}"; other lines keep the connection alive. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Error(BROKEN_OFF);
    });
    if (done) return;
    const lines = (buffer + value).split("\n");
    buffer = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
  }
}

/** What the server said against the question. */
async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  return body.detail || `The web app answered with HTTP ${response.status}.`;
}

// -- Drawing ---------------------------------------------------------------------------------------------------------

function clone(template) {
  return element(template).content.firstElementChild.cloneNode(true);
}

/** Makes the turn as empty as it was before its first try. */
function clear(turn) {
  turn.dataset.state = "waiting";
  turn.dataset.kind = "";
  for (const part of [".steps", ".answer", ".error p", ".spans"]) turn.querySelector(part).textContent = "";
  turn.querySelector(".timing").classList.remove("drawn");
}

/** Adds a piece of text. Pieces of one kind that follow each other are one text. */
function write(turn, kind, piece) {
  if (kind !== "token" && !(kind in KINDS)) return;            // an event of a later version of the server
  turn.dataset.state = "streaming";
  if (turn.dataset.kind !== kind) {
    turn.dataset.kind = kind;
    if (kind !== "token") addStep(turn, kind);
  }
  const target = kind === "token" ? turn.querySelector(".answer") : turn.querySelector(".step:last-child .text");
  target.textContent += piece;
}

function addStep(turn, kind) {
  const step = clone("step-template");
  step.dataset.kind = kind;
  step.querySelector(".kind").textContent = KINDS[kind];
  turn.querySelector(".steps").append(step);
}

function fail(turn, message) {
  turn.dataset.state = "failed";
  following(() => { turn.querySelector(".error p").textContent = message; });
}

/** Has a screen reader say how the turn ended. An error needs none: it has the role of an alert. */
function announce(turn) {
  const said = turn.querySelector(".answer").textContent;
  element("announcer").textContent = turn.dataset.state === "stopped" ? `Stopped. ${said}` : said;
}

/** Changes the page and keeps its end in view, unless the reader has scrolled up to read. */
function following(change) {
  const atEnd = conversation.scrollHeight - conversation.scrollTop - conversation.clientHeight < 60;
  change();
  if (atEnd) conversation.scrollTop = conversation.scrollHeight;
}

// -- Timing ----------------------------------------------------------------------------------------------------------

/** Draws the spans of a trace as bars on one time axis, behind a line that opens. */
function drawTrace(turn, trace) {
  const total = Math.max(...trace.spans.map((span) => span.start + span.duration), 1e-6);
  turn.querySelector("summary").textContent = `${duration(total)} · where the time went`;
  turn.querySelector("summary").title = `Request ${trace.id}`;
  turn.querySelector(".timing").classList.add("drawn");
  for (const span of trace.spans) turn.querySelector(".spans").append(drawSpan(turn, span, total));
}

function drawSpan(turn, span, total) {
  const row = clone("span-template");
  row.dataset.layer = span.layer;
  row.querySelector(".layer").textContent = span.layer;
  row.querySelector(".name").textContent = span.name;
  row.querySelector(".duration").textContent = duration(span.duration);
  row.querySelector(".bar").style.left = `${100 * span.start / total}%`;
  row.querySelector(".bar").style.width = `${100 * span.duration / total}%`;
  const facts = [`${span.layer} ${LAYERS[span.layer] ?? ""}: ${span.name}`, `from ${duration(span.start)}`,
    `took ${duration(span.duration)}`, ...describe(span.details)].join(" · ");
  row.title = facts;
  const show = () => { turn.querySelector(".span-details").textContent = facts; };
  row.addEventListener("pointerenter", show);
  row.addEventListener("focus", show);
  return row;
}

/** {usage: {prompt_tokens: 12}} -> ["prompt tokens 12"]: the details of a span as short phrases. */
function describe(details) {
  return Object.entries(details ?? {}).flatMap(([name, value]) => {
    if (value !== null && typeof value === "object") return describe(value);
    const shown = typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(3)) : value;
    return [`${name.replaceAll("_", " ")} ${shown}`];
  });
}

function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  const milliseconds = 1000 * seconds;
  return `${milliseconds.toFixed(milliseconds < 10 && milliseconds >= 0.05 ? 1 : 0)} ms`;
}

// -- The model's health ----------------------------------------------------------------------------------------------

let nextCheck = 0;

/** Shows which model answers, and whether it does; looks again often while it does not. */
async function checkHealth() {
  clearTimeout(nextCheck);
  const health = await fetch("/health").then((response) => response.json()).catch(() => null);
  const label = element("model");
  const state = !health ? "down" : health.reachable ? "up" : "unreachable";
  const text = { down: "web app not reachable", unreachable: "model not reachable", up: "" }[state] || modelName(health);
  label.dataset.state = state;
  label.title = health ? health.model_server : "";
  if (label.textContent !== text) label.textContent = text;    // a status that is set again is read out again
  clearTimeout(nextCheck);
  nextCheck = setTimeout(checkHealth, state === "up" ? 30_000 : 3_000);
}

/** {stage: "agent", parameters: 1234567} -> "agent · 1.23 M parameters". */
function modelName({ model }) {
  const millions = (model.parameters / 1e6).toLocaleString("en", { maximumSignificantDigits: 3 });
  return `${model.stage} · ${millions} M parameters`;
}

// -- The composer ----------------------------------------------------------------------------------------------------

function submit() {
  const text = query.value.trim();
  if (!text || running || tooLong()) return;
  query.value = "";
  resize();
  ask(text);
}

/** Characters as Python counts them: an emoji is one, though JavaScript stores it as two. */
function length() {
  return [...query.value.trim()].length;
}

function tooLong() {
  return length() > Number(query.dataset.most);
}

/** Lets the box grow with its text, and shows the count when it comes near the limit. */
function resize() {
  query.style.height = "auto";
  query.style.height = `${query.scrollHeight}px`;
  const most = Number(query.dataset.most);
  element("count").textContent = length() > 0.8 * most ? `${length()} of ${most} characters` : "";
  element("composer").classList.toggle("too-long", tooLong());
  query.setAttribute("aria-invalid", String(tooLong()));
}

element("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else submit();
});
send.addEventListener("click", (event) => {
  if (event.detail > 1) event.preventDefault();                // a double click would send and stop at once
});
query.addEventListener("input", resize);
query.addEventListener("keydown", (event) => {
  // While an input method composes (Chinese, Japanese, ...), Enter picks a word and sends nothing.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
for (const button of document.querySelectorAll("#suggestions button")) {
  button.addEventListener("click", () => { if (!running) ask(button.textContent); });
}
resize();
checkHealth();
