// Who is there to talk to: one of them, or several at once.

import { find, icon, make } from "./dom.js";
import { face, hue } from "./faces.js";

export class CastView {
  #list = find("#cast");
  #choose;
  #welcome = find("#welcome-faces");
  #shown = "";

  /** `choose(ids)` asks for these to be present. */
  constructor(choose) {
    this.#choose = choose;
  }

  render(state) {
    const { available = [], characters = [] } = state.session ?? {};
    const present = characters.map(({ id }) => id);
    const key = JSON.stringify([available, present]);
    if (key === this.#shown) return;
    this.#shown = key;
    const focused = document.activeElement?.dataset?.key;
    this.#list.replaceChildren(...available.map((each) => this.#card(each, available, present)));
    this.#welcome.replaceChildren(...available.slice(0, 5).map((each) => face(each, available)));
    if (focused) this.#list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #card(character, cast, present) {
    const { id, name, description } = character;
    const here = present.includes(id);
    const words = make("span", { class: "words" }, make("span", { class: "name" }, name));
    if (description) words.append(make("span", { class: "about" }, description));
    const talk = { class: "card", type: "button", title: description, "data-key": `talk-${id}`, "aria-pressed": String(here), onclick: () => this.#choose([id]) };
    const card = make("li", { class: here ? "present" : null }, make("button", talk, face(character, cast), words), this.#toggle(character, present));
    card.style.setProperty("--hue", hue(id, cast));
    return card;
  }

  #toggle({ id, name }, present) {
    const here = present.includes(id);
    const others = present.filter((each) => each !== id);
    const label = here ? `Send ${name} away` : `Bring ${name} in too`;
    const onclick = () => this.#choose(here ? others : [...present, id]);
    const disabled = here && others.length === 0;
    const attributes = { class: "join", type: "button", title: label, "aria-label": label, "data-key": `join-${id}`, disabled, onclick };
    return make("button", attributes, icon(here ? "check" : "plus"));
  }
}
