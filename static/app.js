// The page: devices, model and views, wired together. Events go in, the state changes, the views show it.

import { stayAwake } from "./awake.js";
import { initial, reduce } from "./conversation.js";
import { listenToKeys } from "./keys.js";
import { Microphone, devices } from "./microphone.js";
import { Player } from "./player.js";
import { prefer, preferences } from "./preferences.js";
import { Socket } from "./socket.js";
import { Talk } from "./talk.js";
import { Tap } from "./tap.js";
import { AnnouncerView } from "./views/announcer.js";
import { CastView } from "./views/cast.js";
import { ControlsView } from "./views/controls.js";
import { find } from "./views/dom.js";
import { LatencyView } from "./views/latency.js";
import { NoticesView } from "./views/notices.js";
import { ReadAloudView } from "./views/read-aloud.js";
import { SettingsView } from "./views/settings.js";
import { StageView } from "./views/stage.js";
import { TabsView } from "./views/tabs.js";
import { TranscriptView } from "./views/transcript.js";
import { SLOW, serverTrouble } from "./words.js";

const SESSION = "parley.session"; // where this tab keeps its session's id, so that a reload goes on with it
const MANY_GAPS = 5; // in one reply: the user wants to know why

const query = new URLSearchParams(location.search);
const store = { state: initial(), dispatch };
const levels = { heard: 0, said: 0 };
let gaps = 0; // in the reply that sounds

const player = new Player(playing);
const microphone = new Microphone({ frame: captured, lost: () => talk.microphoneLost() });
const socket = new Socket(address, { message: received, audio: (pcm) => player.push(pcm), link: linked });
const notices = new NoticesView();
const talk = new Talk({ store, socket, player, microphone, notices });

const announcer = new AnnouncerView();
const settings = new SettingsView(
  {
    ...talk,
    microphone: (id) => (prefer({ microphone: id }), store.state.started && talk.openMicrophone(id)),
    speaker: (id) => (prefer({ speaker: id }), player.setSink(id)),
    volume: (volume) => (prefer({ volume }), player.setVolume(volume)),
    theme: (theme) => (prefer({ theme }), wear(theme)),
    announce: (announce) => (prefer({ announce }), (announcer.lines = announce)),
  },
  devices,
);
const views = [
  new StageView(() => ({ heard: levels.heard, said: player.level() })),
  new ControlsView(talk),
  new CastView(talk.choose),
  new TranscriptView(),
  new LatencyView(),
  announcer,
];

function dispatch(event) {
  const before = store.state;
  store.state = reduce(before, event);
  if (store.state !== before && !drawing) drawing = requestAnimationFrame(draw);
}

let drawing = 0;
let last = null; // the server's last word before it closed the connection

function draw() {
  drawing = 0;
  for (const view of views) view.render(store.state);
}

function address() {
  const url = new URL("ws", location.href.replace(/[?#].*$/, ""));
  url.protocol = url.protocol.replace("http", "ws");
  const session = remembered();
  if (session) url.searchParams.set("session", session);
  if (store.state.started && store.state.entries.length === 0) invite(url.searchParams);
  if (query.has("token")) url.searchParams.set("token", query.get("token"));
  return url;
}

// A conversation that begins: whoever is chosen greets. It keeps its id, and so its seat on a server that is full.
function invite(params) {
  params.set("greet", "1");
  for (const { id } of store.state.session?.characters ?? []) params.append("character", id);
}

const obey = {
  "session.created": greet,
  "reply.audio": ({ reply, rate }) => player.announce(reply, rate),
  "reply.paused": () => player.pause(),
  "reply.resumed": () => player.resume(),
  "reply.interrupted": ({ reply }) => player.flush(reply),
  "reply.done": ({ reply }) => player.end(reply),
  error: trouble,
};

function received(message) {
  dispatch(message);
  obey[message.type]?.(message);
}

// A session begins, or is taken up again: what the user has chosen before still holds. But a conversation keeps those it
// was with, whoever was chosen in another tab meanwhile.
function greet({ session, resumed, available, characters, turn, notice }) {
  remember(session);
  player.reset();
  const { mode, silenceMs, interrupt, characters: latest, noticed } = preferences();
  const ids = (resumed ? talk.chosen : latest)?.filter((id) => available.some((each) => each.id === id)) ?? [];
  const changes = {};
  if (ids.length > 0 && ids.join() !== characters.map(({ id }) => id).join()) changes.characters = ids;
  if ((mode && mode !== turn.mode) || silenceMs) changes.turn = { mode: mode ?? turn.mode, silence_ms: silenceMs ?? turn.silence_ms };
  if (interrupt) changes.interrupt = interrupt;
  if (Object.keys(changes).length > 0) talk.update(changes);
  else dispatch({ type: "session.updated", ...store.state.session });
  talk.tellInputRate();
  socket.send({ type: store.state.forgetting ? "history.clear" : "history.get" }); // asked without a connection, perhaps
  if (notice && notice !== noticed) {
    const [, text = notice, detail = ""] = notice.match(/^(.+?[.!?])\s+(.+)$/s) ?? []; // its first sentence, and the rest
    notices.show({ key: "notice", kind: "info", text, detail, onclose: () => prefer({ noticed: notice }) });
  }
}

// A fatal error is followed by the end of the connection, and told with it.
function trouble(event) {
  if (event.fatal) last = event;
  else notices.show({ key: `error-${event.code}`, ...serverTrouble(event) });
}

function linked(link) {
  dispatch({ type: "page.link", link });
  talk.tellLink({ ...link, error: last });
  if (link.state !== "reconnecting") last = null;
  if (link.state === "lost" || link.state === "refused") player.flush();
}

function playing({ type, reply, ms, latencyMs = 0, frame }) {
  tap?.events.push({ type, reply, ms, frame });
  if (type === "started") gaps = 0;
  if (type === "underrun") starved();
  if (type === "playback") socket.send({ type, reply, ms });
  else if (type === "finished") dispatch({ type: "page.finished", reply });
  else if (["started", "position", "paused"].includes(type) && reply !== null)
    dispatch({ type: "page.position", reply, ms: Math.max(0, ms - latencyMs) });
}

function starved() {
  talk.tellStarved();
  if (++gaps === MANY_GAPS) notices.show({ key: "slow", kind: "info", ...SLOW });
}

function captured(pcm, peak) {
  levels.heard = Math.max(Math.min(1, 1.6 * peak), 0.85 * levels.heard);
  talk.hear(pcm);
}

function remembered() {
  return read(() => sessionStorage.getItem(SESSION));
}

function remember(session) {
  read(() => sessionStorage.setItem(SESSION, session));
}

function read(storage) {
  try {
    return storage();
  } catch {
    return null; // storage is off: a reload begins anew
  }
}

function wear(theme) {
  document.documentElement.dataset.theme = theme;
}

function leave() {
  socket.close();
  microphone.close();
  player.close();
}

const tap = query.has("tap") ? new Tap() : null;
player.tap = tap?.node ?? null;
window.parley = { tap, get state() { return store.state; } }; // prettier-ignore

settings.onopen = () => {
  const { session, mode } = store.state;
  const { volume, silenceMs, interrupt: chose, theme, announce, microphone: chosen, speaker } = preferences();
  const silence = silenceMs ?? session?.turn.silence_ms ?? 500; // chosen without a connection, it is told with the next one
  const interrupt = { speaking: true, thinking: true, ...session?.interrupt, ...chose };
  settings.fill({ volume, mode, silenceMs: silence, interrupt, theme, announce });
  settings.listDevices({ microphone: chosen || "", speaker });
};

wear(preferences().theme);
announcer.lines = preferences().announce;
player.setVolume(preferences().volume);
player.setSink(preferences().speaker);
listenToKeys(talk, () => store.state.mode === "manual" && store.state.started, find("#main-button"));
for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, talk.wake);
stayAwake(() => store.state.started);
addEventListener("pagehide", leave);
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
new ReadAloudView({
  characters: () => store.state.session?.available ?? [],
  token: query.get("token") ?? "",
  tap: player.tap,
  heard: ({ type, reply, ms, frame }) => tap?.events.push({ type, reply, ms, frame }),
});
new TabsView();
draw();
socket.connect();
