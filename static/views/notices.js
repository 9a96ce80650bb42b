// Messages that want to be read: errors in plain words, and the server's own notices. One a key; each can be closed.

import { find, icon, make } from "./dom.js";

const MOST = 4; // at once; the oldest makes room

export class NoticesView {
  #list = find("#notices");
  #shown = new Map(); // key -> element

  /** `kind`: error or info. `action`: {label, run} or null. */
  show({ key, kind = "error", text, detail = "", action = null, onclose = null }) {
    this.close(key);
    if (this.#shown.size >= MOST) this.close(this.#shown.keys().next().value);
    const close = make("button", { class: "tool", type: "button", "aria-label": "Close this message" }, icon("close"));
    close.addEventListener("click", () => (this.close(key), onclose?.()));
    const words = make("div", { class: "words" }, make("p", {}, text));
    if (detail && detail !== text) words.append(make("p", { class: "detail" }, detail));
    const button = action && make("button", { class: "action", type: "button", onclick: () => (this.close(key), action.run()) }, action.label);
    const role = kind === "error" ? "alert" : "status";
    const notice = make("div", { class: `notice ${kind}`, role, "data-key": key }, icon(kind === "error" ? "alert" : "info"), words, button, close);
    this.#shown.set(key, notice);
    this.#list.append(notice);
  }

  close(key) {
    this.#shown.get(key)?.remove();
    this.#shown.delete(key);
  }
}
