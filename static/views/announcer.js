// What a screen reader is told: finished lines and changes that matter, not every word as it comes.

import { phase } from "../conversation.js";
import { PHASES } from "../words.js";
import { find, make } from "./dom.js";

const TOLD = new Set(["disconnected", "muted", "ready"]); // states that are heard in no other way
const KEPT = 20;

export class AnnouncerView {
  #region = find("#announcer");
  #done = new Set();
  #phase = "disconnected";
  lines = true; // whether lines of the conversation are read out

  render(state) {
    const now = phase(state);
    if (now !== this.#phase && TOLD.has(now)) this.#say(PHASES[now]);
    this.#phase = now;
    for (const entry of state.entries) if (!this.#done.has(entry.id) && finished(entry, now)) this.#line(entry, state);
  }

  #line(entry, state) {
    this.#done.add(entry.id);
    if (entry.kind === "note") return this.#say(entry.text);
    if (!this.lines || entry.typed || entry.recalled) return;
    const who = state.session?.available?.find(({ id }) => id === entry.character)?.name ?? entry.character;
    if (entry.kind === "user") this.#say(`You: ${entry.text}`);
    else if (entry.status === "done") this.#say(`${who}: ${entry.text}`);
    else this.#say(entry.heard ? `${who}, cut off: ${entry.heard}` : `${who}, cut off before the first word.`);
  }

  #say(text) {
    this.#region.append(make("p", {}, text));
    while (this.#region.children.length > KEPT) this.#region.firstChild.remove();
  }
}

// What was cut off here waits for the server's word on what was heard, unless that will not come.
function finished({ kind, final, status, guessed }, now) {
  if (kind === "user") return final;
  return kind === "note" || status === "done" || (status === "cut" && (!guessed || now === "disconnected"));
}
