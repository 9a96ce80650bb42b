// What the user has chosen, kept in this browser. Without storage (a private window may have none) it lasts till reload.

const KEY = "parley.preferences";

const DEFAULTS = {
  microphone: "", // device ids; empty: the browser's default
  speaker: "",
  volume: 1,
  mode: null, // null: as the server has it
  characters: null,
  silenceMs: null,
  interrupt: null,
  theme: "system", // system, light or dark
  announce: true,
  noticed: "", // the server's notice that was closed
};

let values = { ...DEFAULTS, ...read() };

export const preferences = () => values;

export function prefer(changes) {
  values = { ...values, ...changes };
  try {
    localStorage.setItem(KEY, JSON.stringify(values));
  } catch {
    // no storage: it lasts till reload
  }
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {};
  }
}
