// What the page says, in plain words: states, errors, and what to do about them. Pure.

export const PHASES = {
  disconnected: "Not connected",
  hearing: "Hearing you",
  paused: "Paused",
  speaking: "Speaking",
  thinking: "Thinking",
  muted: "Muted",
  listening: "Listening",
  ready: "Ready",
};

const MICROPHONE = {
  NotAllowedError: "The microphone is blocked. Allow it for this page in the browser's address bar, then try again. You can type meanwhile.",
  NotFoundError: "No microphone was found. Plug one in and try again. You can type meanwhile.",
  OverconstrainedError: "The chosen microphone is gone. Pick another one in the settings.",
  Unplugged: "The microphone was unplugged. Plug it in, or pick another one in the settings. You can type meanwhile.",
  NotReadableError: "The microphone is in use by another program, or its driver failed. Close that program and try again.",
};
const NO_CAPTURE =
  "This browser offers no microphone here. It needs https (or localhost) and a current Chrome, Edge, Firefox or Safari. You can still type.";

/** What to tell of an error of getUserMedia. */
export function microphoneTrouble({ name, message }) {
  if (name === "NotSupportedError") return NO_CAPTURE;
  return MICROPHONE[name] ?? `The microphone could not be opened (${message || name}). You can type meanwhile.`;
}

/** What to tell when nothing can be played. */
export function speakerTrouble({ name, message }) {
  if (name === "NotSupportedError") return "This browser takes and plays no sound here: that needs https (or localhost) and a current Chrome, Edge, Firefox or Safari.";
  return `The speaker could not be opened (${message || name}).`;
}

export const SLOW = {
  text: "The connection is slow or unsteady, so the voice breaks up.",
  detail: "If the server is yours, a higher audio.lead_ms carries it over longer delays.",
};

const SERVER = {
  llm_auth: "The language model refused the server's key.",
  llm_rate_limit: "The language model is over its rate limit. Wait a little and say it again.",
  llm_timeout: "The language model took too long to answer.",
  llm_unreachable: "The language model cannot be reached.",
  llm_failed: "The language model failed.",
  stt_failed: "That could not be transcribed. Please say it again.",
  tts_failed: "The voice failed, so the rest of this reply stays silent.",
  engine_busy: "The server has more to do than it can in real time. Try again in a moment.",
  engine_unavailable: "Part of the server is not available.",
  engine_failed: "Part of the server failed.",
};

/** What to tell of the server's `error` event: the plain half, and the server's own words as detail. */
export function serverTrouble({ code, message }) {
  const text = SERVER[code] ?? SERVER[code.replace(/_.*/, "_failed")]; // tts_unreachable: whose fault it is, at least
  return text ? { text, detail: message } : { text: message || `The server reported an error (${code}).`, detail: "" };
}

const ENDS = {
  idle: "Nothing was said for a long while, so the server let the conversation go.",
  unauthorized: "This server asks for its access token. It belongs in the address of this page: ?token=... at the end.",
  forbidden_origin: "This server does not take conversations from this page's address.",
  taken_over: "This conversation goes on in another window.",
  full: "The server is full. Trying again in a moment.",
  starting: "The server is still starting. One moment.",
  restart: "The server is restarting. The page connects again when it is back.",
};
const CLOSES = { 1012: "restart", 1013: "full" };

/** What to tell of a link that is not open, or "" where a word in the header is enough. `error`: the server's last word. */
export function linkTrouble({ state, code, reason, error }) {
  const known = ENDS[error?.code ?? CLOSES[code]];
  if (known || state !== "refused") return known ?? "";
  return `The server ended the conversation${error || reason ? `: ${error?.message ?? reason}` : "."}`;
}

export const LINK = {
  connecting: "Connecting",
  open: "Connected",
  lost: "Reconnecting",
  reconnecting: "Reconnecting",
  refused: "Disconnected",
};

/** The line under the controls: what to do next. */
export function hint({ phase, mode, started, microphone, asking, link }) {
  if (phase === "disconnected") return link.state === "refused" ? "Connect to go on." : "Waiting for the server.";
  if (asking && !microphone) return "Allow the microphone, or type.";
  if (!started || microphone === null) return "Nothing is heard until you press Start.";
  if (!microphone) return "No microphone: type your side of it.";
  if (mode === "manual") return phase === "hearing" ? "Let go when you have finished." : "Hold space, or the button, and speak.";
  const hints = {
    muted: "You are muted. Nobody hears you.",
    speaking: "Just speak to cut in, or press Esc.",
    paused: "Holding, to hear whether you go on.",
    thinking: "One moment.",
    hearing: "Go on, I stop when you do.",
  };
  return hints[phase] ?? "Say something.";
}
