// Who is speaking and what is going on, at a glance; and how loud it is, as a ring around the portrait.

import { phase, speaking } from "../conversation.js";
import { LINK, PHASES } from "../words.js";
import { find, setText } from "./dom.js";
import { face, hue } from "./faces.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class StageView {
  #stage = find("#stage");
  #portrait = find("#portrait");
  #name = find("#speaker-name");
  #phase = find("#phase");
  #link = find("#link");
  #linkText = find("#link-text");
  #shown = null;
  #level = 0;
  #last = null; // id of who spoke last

  /** `levels()` gives {heard, said}, 0..1 each, for the ring. */
  constructor(levels) {
    const beat = () => {
      if (!still.matches && !document.hidden) this.#ring(levels());
      requestAnimationFrame(beat);
    };
    beat();
  }

  render(state) {
    const now = phase(state);
    this.#stage.dataset.phase = document.body.dataset.phase = now;
    setText(this.#phase, PHASES[now]);
    this.#link.dataset.state = state.link.state;
    setText(this.#linkText, LINK[state.link.state]);
    this.#show(this.#speaker(state), state);
  }

  // Whoever speaks or thinks, though sent away meanwhile; else who spoke last, else the first of those who are present.
  #speaker(state) {
    const { available = [], characters = [] } = state.session ?? {};
    const now = speaking(state)?.character;
    this.#last = now ?? this.#last;
    const present = characters.find(({ id }) => id === this.#last) ?? characters[0];
    return available.find(({ id }) => id === (now ?? present?.id)) ?? present ?? null;
  }

  #show(character, state) {
    if (!character || this.#shown === character.id) return;
    this.#shown = character.id;
    const cast = state.session.available ?? [];
    this.#portrait.replaceChildren(face(character, cast));
    this.#stage.style.setProperty("--hue", hue(character.id, cast));
    setText(this.#name, character.name);
  }

  #ring({ heard, said }) {
    const level = { speaking: said, hearing: heard, listening: heard }[this.#stage.dataset.phase] ?? 0;
    if (level === this.#level) return;
    this.#level = level;
    this.#stage.style.setProperty("--level", level.toFixed(3));
  }
}
