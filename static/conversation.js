// The conversation as the page knows it. Pure: events in (the server's, and the page's own, `page.*`), a new state out.

import { locate, spokenUntil } from "./spoken.js";

const MOST_TURNS = 12; // whose timing is kept
const MOST_ENTRIES = 400; // lines kept on the page; the oldest go

export const initial = () => ({
  link: { state: "connecting" },
  session: null,
  started: false, // the user has pressed Start, so audio may sound
  microphone: null, // whether it is open; null: nobody has asked for it yet
  asking: false, // the browser asks the user for the microphone
  silent: false, // no speaker could be opened: replies are read, not heard
  muted: false,
  mode: "auto", // auto: hands-free; manual: push to talk
  talking: false, // the talk key is held
  hearing: false, // the server hears speech
  awaiting: false, // a turn was given, no reply has begun
  forgetting: false, // the server has not yet said that it forgot the conversation
  entries: [], // {kind: "user" | "reply" | "note", id, ...}, each replaced when it changes
  turns: [], // turn.metrics, newest last
});

const on = {
  "session.created": (state, event) => ({ ...adopt(state, event), session: event }),
  "session.updated": (state, event) => ({ ...state, session: { ...state.session, ...event }, mode: event.turn.mode }),
  "user.started": (state) => ({ ...(state.awaiting ? state : forget(state)), hearing: true, awaiting: false }), // awaited: its text comes yet
  "user.stopped": (state) => ({ ...state, hearing: false, awaiting: live(state) !== undefined }),
  "transcript.partial": (state, { text }) => (text ? hear(state, { text }) : state),
  "transcript.final": (state, { text, turn }) => finalText(state, text, turn),
  "reply.started": (state, event) => add({ ...state, awaiting: false }, newReply(event)),
  "reply.text": (state, { reply, text }) => amend(state, reply, (entry) => addText(entry, text, state.silent)),
  "reply.sentence": (state, event) => amend(state, event.reply, (entry) => addSentence(entry, event)),
  "reply.paused": (state, { reply }) => amend(state, reply, (entry) => ({ ...entry, held: true })),
  "reply.resumed": (state, { reply, reason }) => resume(state, reply, reason),
  "reply.interrupted": (state, event) => cutByServer(state, event),
  "reply.done": (state, event) => done(state, event),
  "turn.metrics": (state, event) => addTurn(state, event),
  history: (state, { messages }) => remembered(state, messages),
  error: (state, { code }) => failed(state, code),
  "page.link": (state, { link }) => (link.state === "open" ? { ...state, link } : { ...lost(state), link }),
  "page.started": (state) => ({ ...state, started: true }),
  "page.microphone": (state, { open, asking = false }) => ({ ...state, microphone: open, asking }),
  "page.silent": (state, { silent }) => ({ ...state, silent }),
  "page.mode": (state, { mode }) => ({ ...state, mode, talking: false }), // the server forgets what was being said
  "page.muted": (state, { muted }) => ({ ...state, muted, hearing: state.hearing && !muted }),
  "page.talking": (state, { talking, awaiting = false }) => ({ ...state, talking, awaiting }),
  "page.typed": (state, { text }) => add({ ...state, awaiting: true }, newUser({ text, final: true, typed: true })),
  "page.position": (state, { reply, ms }) => amend(state, reply, (entry) => position(entry, ms)),
  "page.finished": (state, { reply }) => amend(state, reply, finished),
  "page.cleared": (state) => ({ ...state, entries: [], forgetting: true }),
  "page.silenced": (state) => ({ ...silence(state), awaiting: false }),
};

export function reduce(state, event) {
  return on[event.type]?.(state, event) ?? state;
}

/** The state in one word: disconnected, hearing, paused, speaking, thinking, muted, listening or ready. */
export function phase(state) {
  if (state.link.state !== "open" || !state.session) return "disconnected";
  const replies = state.entries.filter((entry) => entry.kind === "reply");
  if (state.talking) return "hearing";
  if (replies.some((entry) => entry.held && entry.status !== "cut")) return "paused";
  if (state.hearing) return "hearing";
  if (replies.some((entry) => entry.status === "speaking")) return "speaking";
  if (state.awaiting || replies.some((entry) => entry.status === "waiting" && !entry.complete)) return "thinking";
  if (!state.started || !state.microphone || state.mode === "manual") return "ready";
  return state.muted ? "muted" : "listening";
}

/** Something sounds, or is about to: what Stop would stop. */
export const busy = (state) => ["speaking", "paused", "thinking"].includes(phase(state)) || speaking(state) !== null;

/** The reply that sounds now or, failing that, the one being thought of; null if there is none. */
export function speaking(state) {
  const open = state.entries.filter((entry) => entry.kind === "reply" && ["waiting", "speaking"].includes(entry.status));
  return open.find((entry) => entry.status === "speaking") ?? open.find((entry) => !entry.complete) ?? null;
}

/** A reply's text in three parts: what was heard, what is still to come, what was cut off and never heard. */
export function parts(entry, audible = true) {
  if (entry.status === "cut") return { said: entry.heard, coming: "", unheard: entry.unheard };
  if (entry.status === "done" || !audible) return { said: entry.text, coming: "", unheard: "" };
  const at = spokenUntil(entry);
  return { said: entry.text.slice(0, at), coming: entry.text.slice(at), unheard: "" };
}

let ids = 0;
const newUser = (fields) => ({ kind: "user", id: `user-${++ids}`, final: false, typed: false, recalled: false, turn: null, ...fields });
const newReply = ({ reply, turn, character }) => ({
  kind: "reply",
  id: `reply-${++ids}`,
  reply,
  turn,
  character,
  text: "",
  sentences: [],
  ms: 0, // of its audio that has sounded
  audioMs: null, // of its audio in all, once known
  status: "waiting", // waiting, speaking, done or cut
  complete: false, // the server has sent all of it
  held: false, // paused
  recalled: false, // of before this page was opened
  guessed: false, // cut off by the page: the server knows better what was heard, and will say it
  heard: "",
  unheard: "",
});

const add = (state, entry) => ({ ...state, entries: [...state.entries, entry].slice(-MOST_ENTRIES) });
const swap = (state, old, fresh) => ({ ...state, entries: state.entries.map((each) => (each === old ? fresh : each)) });
const remove = (state, old) => ({ ...state, entries: state.entries.filter((each) => each !== old) });
const live = (state) => state.entries.findLast((entry) => entry.kind === "user" && !entry.final);
const note = (state, text) => add(state, { kind: "note", id: `note-${++ids}`, text });

function amend(state, reply, change) {
  const entry = state.entries.findLast((each) => each.kind === "reply" && each.reply === reply);
  return entry ? swap(state, entry, change(entry)) : state;
}

// The lines above a new session's stay; if it is a new conversation, its replies are counted from the beginning again.
function adopt(state, { session, resumed }) {
  const still = lost(state);
  const past = { ...still, entries: still.entries.map((entry) => (entry.kind === "reply" ? { ...entry, reply: -1 } : entry)) };
  if (resumed || !state.session || state.session.session === session || past.entries.length === 0) return past;
  return note(past, "A new conversation: the server no longer has the one above.");
}

function hear(state, fields) {
  const entry = live(state);
  return entry ? swap(state, entry, { ...entry, ...fields }) : add(state, newUser(fields));
}

function finalText(state, text, turn) {
  const typed = state.entries.findLast((entry) => entry.typed && entry.turn === null && entry.text === text);
  if (typed) return swap(state, typed, { ...typed, turn });
  if (!text) return { ...forget(state), awaiting: false };
  return { ...hear(state, { text, turn, final: true }), awaiting: true };
}

// What was heard was no turn: it leaves no line.
function forget(state) {
  const entry = live(state);
  return entry ? remove(state, entry) : state;
}

// What could not be transcribed is no turn, though some of it had been understood.
function failed(state, code) {
  if (code === "bad_message") return state;
  return { ...(code.startsWith("stt_") ? forget(state) : state), awaiting: false };
}

// The user's cough or "mhm" is forgotten; a pause that the page itself asked for says nothing about them.
function resume(state, reply, reason) {
  const resumed = amend(state, reply, (entry) => ({ ...entry, held: false }));
  return reason === "client" ? resumed : { ...forget(resumed), awaiting: false };
}

function addText(entry, more, silent) {
  const status = silent && entry.status === "waiting" ? "speaking" : entry.status;
  return { ...entry, text: entry.text + more, status };
}

function addSentence(entry, { index, text, start_ms: startMs }) {
  const from = entry.sentences.at(-1)?.to ?? 0;
  const place = locate(entry.text, text, from);
  const whole = place ? entry.text : `${entry.text}${entry.text && " "}${text}`;
  const [start, to] = place ?? [whole.length - text.length, whole.length];
  return { ...entry, text: whole, sentences: [...entry.sentences, { index, startMs, from: start, to }] };
}

// A greeting answers nobody: it tells nothing of how long the user waits.
function addTurn(state, event) {
  const asked = state.entries.findLast((entry) => entry.kind === "user" && entry.turn === event.turn);
  return asked ? { ...state, turns: [...state.turns, { ...event, typed: asked.typed }].slice(-MOST_TURNS) } : state;
}

function position(entry, ms) {
  if (entry.status === "cut" || entry.status === "done") return entry;
  return { ...entry, ms, status: "speaking" };
}

function finished(entry) {
  return entry.status === "cut" ? entry : { ...entry, status: "done", held: false };
}

// A reply that came to nothing, for its model failed, leaves no line: the error has been told.
function done(state, event) {
  const next = amend(state, event.reply, (entry) => complete(entry, event, state.silent));
  return { ...next, entries: next.entries.filter(({ complete, text }) => !complete || text) };
}

function complete(entry, { text, audio_ms: audioMs }, silent) {
  const unheard = silent || (entry.status === "waiting" && !(audioMs > 0));
  const status = unheard && entry.status !== "cut" ? "done" : entry.status;
  return { ...entry, text: text || entry.text, audioMs, status, complete: true, guessed: false };
}

function cut(entry, heard, unheard) {
  return { ...entry, status: "cut", held: false, complete: true, guessed: false, heard, unheard };
}

function cutByServer(state, { reply, heard, unheard }) {
  const entry = state.entries.findLast((each) => each.kind === "reply" && each.reply === reply);
  if (!entry) return state;
  if (!heard && !unheard) return remove(state, entry);
  return swap(state, entry, unheard ? cut(entry, heard, unheard) : { ...entry, text: heard, status: "done", held: false });
}

// Everything stops at once, here: what the server knows of it, if anything, follows and is more exact.
function silence(state) {
  const entries = state.entries.map((entry) => {
    if (entry.kind !== "reply" || entry.status === "cut" || entry.status === "done") return entry;
    const at = spokenUntil(entry);
    return { ...cut(entry, entry.text.slice(0, at), entry.text.slice(at)), guessed: true };
  });
  return { ...state, entries: entries.filter((entry) => entry.status !== "cut" || entry.heard || entry.unheard) };
}

// What was being said is lost to the server with the connection, so it is no turn.
const lost = (state) => ({ ...forget(silence(state)), hearing: false, awaiting: false, talking: false });

// What the user wants forgotten does not come back with an answer that was on its way.
function remembered(state, messages) {
  if (state.forgetting) return messages.length > 0 ? state : { ...state, forgetting: false };
  return state.entries.length > 0 ? state : messages.reduce(recall, state);
}

function recall(state, { role, text, turn, character, cut: wasCut }) {
  if (role === "user") return add(state, newUser({ text, turn, final: true, recalled: true }));
  const entry = { ...newReply({ reply: -1, turn, character }), text, complete: true, recalled: true };
  return add(state, wasCut ? cut(entry, text, "…") : { ...entry, status: "done" });
}
