import assert from "node:assert/strict";
import { test } from "node:test";

import { busy, initial, parts, phase, reduce, speaking } from "../../static/conversation.js";
import { locate, spokenUntil } from "../../static/spoken.js";
import { stages } from "../../static/timing.js";

const CREATED = {
  type: "session.created",
  session: "s1",
  resumed: false,
  turn: { mode: "auto", silence_ms: 500 },
  characters: [{ id: "ada", name: "Ada" }],
};
const OPEN = [
  { type: "page.link", link: { state: "open" } },
  CREATED,
  { type: "page.started" },
  { type: "page.microphone", open: true },
];
const TEXT = "One two three. Four five six.";
const REPLY = [
  { type: "reply.started", reply: 1, turn: 1, character: "ada" },
  { type: "reply.text", reply: 1, text: "One two three. " },
  { type: "reply.text", reply: 1, text: "Four five six." },
  { type: "reply.sentence", reply: 1, index: 0, text: "One two three.", start_ms: 0 },
  { type: "reply.sentence", reply: 1, index: 1, text: "Four five six.", start_ms: 1000 },
];

const after = (...events) => [...OPEN, ...events.flat()].reduce(reduce, initial());
const lines = (state) => state.entries.map((entry) => entry.text);

test("what has sounded grows word by word, and a cut keeps what the server says was heard", () => {
  const half = after(REPLY, { type: "page.position", reply: 1, ms: 500 });
  assert.deepEqual(parts(half.entries[0]), { said: "One two", coming: " three. Four five six.", unheard: "" });
  const cut = reduce(half, { type: "reply.interrupted", reply: 1, heard: "One two", unheard: "three. Four five six." });
  assert.deepEqual(parts(cut.entries[0]), { said: "One two", coming: "", unheard: "three. Four five six." });
  assert.equal(speaking(cut), null);
});

test("speaking is what sounds, not what was sent", () => {
  const sent = after(REPLY, { type: "reply.done", reply: 1, text: TEXT, audio_ms: 2000 }, { type: "page.position", reply: 1, ms: 900 });
  assert.equal(phase(sent), "speaking");
  const over = reduce(sent, { type: "page.finished", reply: 1 });
  assert.equal(phase(over), "listening");
  assert.equal(parts(over.entries[0]).said, TEXT);
});

test("after Stop nothing speaks, whatever the server has yet to say", () => {
  const stopped = after(REPLY, { type: "page.position", reply: 1, ms: 500 }, { type: "page.silenced" });
  assert.equal(phase(stopped), "listening");
  assert.equal(busy(stopped), false);
  const late = [{ type: "reply.text", reply: 1, text: " More." }, { type: "page.position", reply: 1, ms: 600 }].reduce(reduce, stopped);
  assert.equal(phase(late), "listening");
  assert.deepEqual(parts(late.entries[0]), parts(stopped.entries[0]));
});

test("the text of what was said before does not hide that the user talks on", () => {
  const before = [{ type: "user.started" }, { type: "transcript.partial", text: "tell me" }, { type: "user.stopped" }];
  const again = after(before, { type: "user.started" });
  assert.deepEqual(lines(again), ["tell me"], "its text is still to come");
  const state = reduce(again, { type: "transcript.final", text: "tell me", turn: 1 });
  assert.equal(phase(state), "hearing");
  assert.deepEqual(lines(reduce(state, { type: "transcript.partial", text: "of" })), ["tell me", "of"]);
});

test("an empty transcript leaves no line and nothing to wait for", () => {
  const said = [{ type: "user.started" }, { type: "transcript.partial", text: "uh" }, { type: "user.stopped" }];
  const state = after(said, { type: "transcript.final", text: "", turn: 1 });
  assert.deepEqual(lines(state), []);
  assert.equal(phase(state), "listening");
});

test("between the end of speech and its transcript it thinks, it does not listen", () => {
  const state = after({ type: "user.started" }, { type: "transcript.partial", text: "who" }, { type: "user.stopped" });
  assert.equal(phase(state), "thinking");
  assert.equal(phase(reduce(state, { type: "error", code: "stt_failed" })), "listening");
});

test("a typed line that the server repeats is shown once", () => {
  const state = after({ type: "page.typed", text: "Hi" }, { type: "transcript.final", text: "Hi", turn: 1 }, { type: "page.typed", text: "Hi" });
  assert.deepEqual(lines(state), ["Hi", "Hi"]);
});

test("a lost session is said to be a new one, and its replies are not mistaken for the old", () => {
  const state = after(REPLY, { type: "page.link", link: { state: "lost" } });
  assert.equal(phase(state), "disconnected");
  const back = [OPEN[0], { ...CREATED, session: "s2" }, REPLY[0]].reduce(reduce, state);
  assert.equal(back.entries.filter((entry) => entry.kind === "note").length, 1);
  assert.equal(parts(back.entries[0]).unheard, TEXT);
  assert.equal(back.entries.at(-1).text, "");
});

test("history fills an empty page and nothing else", () => {
  const messages = [{ role: "user", text: "Hi", turn: 1 }, { role: "assistant", text: "Well", turn: 1, character: "ada", cut: true }];
  assert.deepEqual(lines(after({ type: "history", messages })), ["Hi", "Well"]);
  assert.deepEqual(lines(after(REPLY, { type: "history", messages })), [TEXT]);
});

test("a sentence is found in the text although it was tidied for the voice", () => {
  assert.deepEqual(locate("Well — *yes*, 5 %! So.", "Well, yes, 5!"), [0, 15]);
  assert.deepEqual(locate("No. No.", "No.", 3), [4, 7]);
  assert.equal(locate("One.", "Two."), null);
});

test("the last sentence is guessed by its length until the whole is known", () => {
  const reply = { text: TEXT, sentences: [{ startMs: 0, from: 0, to: 14 }], ms: 455, audioMs: null };
  assert.equal(TEXT.slice(0, spokenUntil(reply)), "One two");
  assert.equal(TEXT.slice(0, spokenUntil({ ...reply, audioMs: 455 })), "One two three.");
  assert.equal(spokenUntil({ ...reply, ms: 0 }), 0);
});

test("a stage that was ready early cost nothing", () => {
  const { stages: found, total } = stages({ turn_end: 500, transcript: 160, first_sent: 530 });
  assert.deepEqual(found.map(({ name, ms }) => [name, ms]), [["turn_end", 500], ["transcript", 0], ["first_sent", 30]]);
  assert.equal(total, 530);
});

test("a greeting tells nothing of how long one waits; a typed turn is known as one", () => {
  const metrics = (turn) => ({ type: "turn.metrics", turn, reply: turn, first_sent: 40 });
  const state = after(metrics(1), { type: "page.typed", text: "Hi" }, { type: "transcript.final", text: "Hi", turn: 2 }, metrics(2),
    { type: "transcript.final", text: "And you?", turn: 3 }, metrics(3));
  assert.deepEqual(state.turns.map(({ turn, typed }) => [turn, typed]), [[2, true], [3, false]]);
});

test("without a speaker a reply is read: it is over when the server says so", () => {
  const read = after({ type: "page.silent", silent: true }, REPLY);
  assert.equal(phase(read), "speaking");
  assert.equal(busy(read), true);
  const over = reduce(read, { type: "reply.done", reply: 1, text: TEXT, audio_ms: 2000 });
  assert.equal(phase(over), "listening");
  assert.equal(parts(over.entries[0]).said, TEXT);
  const cut = [{ type: "reply.interrupted", reply: 1, heard: "One", unheard: "two." }, { type: "reply.done", reply: 1, text: TEXT, audio_ms: 9 }].reduce(reduce, read);
  assert.equal(parts(cut.entries[0]).unheard, "two.");
});
