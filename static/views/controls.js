// The buttons: start, mute or hold to talk, stop, and how a turn ends; and the box to type in.

import { busy, phase } from "../conversation.js";
import { hint } from "../words.js";
import { enable, enabled, find, setText } from "./dom.js";

const MAIN = {
  start: { label: "Start", icon: "#i-mic" },
  muted: { label: "Unmute", icon: "#i-mic-off" },
  live: { label: "Mute", icon: "#i-mic" },
  connect: { label: "Connect", icon: "#i-again" },
  asking: { label: "Asking", icon: "#i-mic" },
  retry: { label: "Microphone", icon: "#i-mic-off" },
  hold: { label: "Hold to talk", icon: "#i-mic" },
};

export class ControlsView {
  #main = find("#main-button");
  #stop = find("#stop");
  #mode = find("#mode");
  #hint = find("#hint");
  #form = find("#composer");
  #text = find("#say-text");
  #send = find("#send");

  /** `actions`: start, connect, mute, press, release, stop, mode(name), type(text) -> whether it was sent. */
  constructor(actions) {
    this.#main.addEventListener("click", (event) => this.#clicked(event, actions));
    this.#main.addEventListener("pointerdown", (event) => this.#pressed(event, actions));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      this.#main.addEventListener(end, actions.release);
    this.#main.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
    this.#stop.addEventListener("click", actions.stop);
    this.#mode.addEventListener("click", () => actions.mode(this.#mode.dataset.mode === "auto" ? "manual" : "auto"));
    this.#text.addEventListener("input", () => this.#ready());
    this.#form.addEventListener("submit", (event) => this.#submitted(event, actions));
  }

  get #kind() {
    return this.#main.dataset.kind;
  }

  render(state) {
    const kind = mainKind(state);
    this.#main.dataset.kind = kind;
    setText(find(".label", this.#main), MAIN[kind].label);
    find("use", this.#main).setAttribute("href", MAIN[kind].icon);
    enable(this.#main, usable(kind, state));
    if (kind === "hold") this.#main.setAttribute("aria-pressed", String(state.talking));
    else this.#main.removeAttribute("aria-pressed"); // the label says what it does
    enable(this.#stop, busy(state));
    this.#mode.dataset.mode = state.mode;
    this.#form.dataset.open = String(phase(state) !== "disconnected");
    this.#ready();
    setText(this.#hint, hint({ ...state, phase: phase(state) }));
  }

  #clicked(event, actions) {
    if (!enabled(this.#main)) return;
    if (this.#kind === "hold") {
      if (event.detail === 0) actions.toggle(); // assistive technology clicks, it cannot hold
    } else if (this.#kind === "connect") actions.connect();
    else if (this.#kind === "start" || this.#kind === "retry") actions.start();
    else actions.mute();
  }

  #pressed(event, actions) {
    if (this.#kind !== "hold" || event.button !== 0) return;
    this.#main.setPointerCapture(event.pointerId);
    actions.press();
  }

  #submitted(event, actions) {
    event.preventDefault();
    const text = this.#text.value.trim();
    if (text && actions.type(text)) this.#text.value = "";
    this.#ready();
  }

  #ready() {
    enable(this.#send, this.#form.dataset.open === "true" && this.#text.value.trim() !== "");
  }
}

const usable = (kind, state) => kind === "connect" || (kind !== "asking" && phase(state) !== "disconnected");

function mainKind({ link, started, microphone, asking, mode, muted }) {
  if (link.state === "refused") return "connect";
  if (asking && !microphone) return "asking";
  if (!started || microphone === null) return "start";
  if (!microphone) return "retry";
  if (mode === "manual") return "hold";
  return muted ? "muted" : "live";
}
