// The "read aloud" view: a text, a voice, a service; how it goes; the recording to keep. It makes its own section.

import { preferences } from "../preferences.js";
import { ReadAloud } from "../read-aloud.js";
import { find, make, setText } from "./dom.js";

const DEFAULT = "default"; // the voice of a service that is asked for none
const MODES = { stream: "in a stream", batch: "in one piece" };

export class ReadAloudView {
  #reader;
  #characters;
  #known = null; // what the server offers
  #section;
  #file = null;

  /** `characters()`: [{id, name}] whose voices there are. */
  constructor({ characters, ...options }) {
    this.#characters = characters;
    this.#reader = new ReadAloud({ ...options, on: (state) => this.#show(state) });
    this.#section = make("section", { class: "read-aloud", id: "view-read", "data-view": "read", "data-title": "Read aloud", "aria-label": "Read aloud", hidden: true });
    this.#section.append(this.#form(), this.#outcome());
    find("main").append(this.#section);
    addEventListener("parley:view", ({ detail }) => (detail === "read" ? this.#open() : this.#reader.stop()));
    addEventListener("keydown", ({ key }) => key === "Escape" && !this.#section.hidden && this.#reader.stop());
  }

  #form() {
    return make(
      "form",
      { id: "read-form", autocomplete: "off", onsubmit: (event) => this.#submit(event) },
      make("h1", {}, "Read aloud"),
      make("label", { for: "read-text" }, "Text"),
      make("textarea", { id: "read-text", name: "text", dir: "auto", rows: "5", required: true, placeholder: "Paste or type what should be read to you." }),
      make(
        "div",
        { class: "pair" },
        make("label", { for: "read-voice" }, "Voice", make("input", { id: "read-voice", name: "voice", list: "read-voices", placeholder: DEFAULT, maxlength: "200" })),
        make("label", { for: "read-service" }, "Service", make("select", { id: "read-service", name: "service", required: true })),
      ),
      make("datalist", { id: "read-voices" }),
      make("label", { class: "check" }, make("input", { id: "read-streaming", type: "checkbox", checked: true }), "Play while it is made"),
      make(
        "p",
        { class: "actions" },
        make("button", { class: "filled", id: "read-start", type: "submit", disabled: true }, "Read aloud"),
        make("button", { class: "plain", id: "read-stop", type: "button", disabled: true, onclick: () => this.#reader.stop() }, "Stop"),
      ),
    );
  }

  #outcome() {
    return make(
      "div",
      { class: "outcome" },
      make("p", { id: "read-state", role: "status" }, words({ phase: "idle" })),
      make("p", { id: "read-note", role: "alert", hidden: true }),
      make("progress", { id: "read-progress", hidden: true, max: "1", value: "0", "aria-label": "How much has been read" }),
      make("p", { id: "read-figures" }, "Any text, in any voice of this server. The recording can be kept."),
      make("a", { class: "plain", id: "read-download", download: "parley.wav", hidden: true }, "Download the recording"),
    );
  }

  async #open() {
    const names = this.#characters().map(({ id, name }) => make("option", { value: id }, name));
    find("#read-voices").replaceChildren(make("option", { value: DEFAULT }), ...names);
    if (this.#known) return;
    try {
      this.#known = await this.#reader.services();
    } catch (error) {
      this.#note(`Reading aloud is not available: ${error.message}`);
      return;
    }
    const { services, streaming, longest } = this.#known;
    find("#read-service").replaceChildren(...services.map(({ name }) => make("option", { value: name }, name)));
    find("#read-text").maxLength = longest;
    const box = find("#read-streaming");
    box.disabled = !streaming;
    box.checked &&= streaming;
    box.parentElement.title = streaming ? "" : "Streaming is switched off on this server.";
    find("#read-start").disabled = services.length === 0;
  }

  #submit(event) {
    event.preventDefault();
    const fields = new FormData(find("#read-form"));
    const [text, voice, service] = ["text", "voice", "service"].map((name) => fields.get(name).trim());
    this.#forget();
    this.#reader.sound(preferences());
    this.#reader.start({ text, voice: voice || DEFAULT, service, streaming: find("#read-streaming").checked });
  }

  #show(state) {
    const busy = this.#reader.busy;
    this.#section.dataset.phase = state.phase;
    find("#read-progress").hidden = state.phase === "idle";
    find("#read-stop").disabled = !busy;
    setText(find("#read-state"), words(state));
    this.#note(state.note);
    const bar = find("#read-progress");
    if (state.phase === "asking") bar.removeAttribute("value");
    else Object.assign(bar, { max: Math.max(1, state.receivedMs), value: Math.min(state.playedMs, state.receivedMs) });
    setText(find("#read-figures"), figures(state));
    if (!busy && !this.#file) this.#offer();
  }

  #note(text) {
    const note = find("#read-note");
    note.hidden = !text;
    setText(note, text);
  }

  #offer() {
    const recording = this.#reader.recording();
    if (!recording) return;
    this.#file = URL.createObjectURL(recording);
    Object.assign(find("#read-download"), { href: this.#file, hidden: false });
  }

  #forget() {
    if (this.#file) URL.revokeObjectURL(this.#file);
    this.#file = null;
    find("#read-download").hidden = true;
  }
}

function words({ phase, mode }) {
  const said = {
    idle: "Nothing has been read yet.",
    asking: `Asking for it ${MODES[mode]}.`,
    reading: `Reading, fetched ${MODES[mode]}.`,
    done: "Read to the end.",
    stopped: "Stopped.",
    failed: "It could not be read.",
  };
  return said[phase];
}

function figures({ chunks, receivedMs, playedMs, firstMs, stalls }) {
  const parts = [];
  if (firstMs !== null) parts.push(`first sound after ${Math.round(firstMs)} ms`);
  if (chunks) parts.push(`${chunks} ${chunks === 1 ? "chunk" : "chunks"}`);
  if (receivedMs) parts.push(`${(playedMs / 1000).toFixed(1)} of ${(receivedMs / 1000).toFixed(1)} s`);
  if (stalls) parts.push(`${stalls} ${stalls === 1 ? "gap" : "gaps"}`);
  return parts.join(" · ");
}
