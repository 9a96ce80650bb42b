// The conversation as it is read: one line a turn, words lighting up as they sound, what was cut off struck through.

import { parts } from "../conversation.js";
import { find, make } from "./dom.js";
import { face, hue } from "./faces.js";

const NEAR_END = 80; // pixels: a reader who scrolled up further is left where they are

export class TranscriptView {
  #list = find("#transcript");
  #empty = find("#welcome");
  #shown = new Map(); // id -> {node, entry, audible}
  #following = true; // the reader is at the end, so keep them there

  constructor() {
    this.#list.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#list;
      this.#following = scrollHeight - scrollTop - clientHeight < NEAR_END;
    });
    new ResizeObserver(() => this.#follow()).observe(this.#list);
  }

  render(state) {
    const { entries } = state;
    this.#empty.hidden = entries.length > 0;
    this.#list.hidden = entries.length === 0;
    const kept = new Set(entries.map((entry) => entry.id));
    for (const [id, { node }] of this.#shown) if (!kept.has(id)) this.#forget(id, node);
    const drawn = entries.map((entry, place) => this.#show(entry, place, state)).some(Boolean);
    if (drawn) this.#follow();
  }

  #follow() {
    if (this.#following) this.#list.scrollTop = this.#list.scrollHeight;
  }

  #forget(id, node) {
    node.remove();
    this.#shown.delete(id);
  }

  #show(entry, place, state) {
    const known = this.#shown.get(entry.id);
    if (known?.entry === entry && known.audible === state.started) return false;
    const node = known?.node ?? this.#place(this.#frame(entry, state), place);
    draw(node, entry, state);
    this.#shown.set(entry.id, { node, entry, audible: state.started });
    return true;
  }

  #place(node, place) {
    this.#list.insertBefore(node, this.#list.children[place] ?? null);
    return node;
  }

  #frame(entry, state) {
    if (entry.kind === "note") return make("li", { class: "line note" }, make("p", { class: "text" }));
    if (entry.kind === "user") return make("li", { class: "line user" }, make("p", { class: "who" }, "You"), make("p", { class: "text" }));
    const cast = state.session?.available ?? [];
    const character = cast.find(({ id }) => id === entry.character) ?? { id: entry.character, name: entry.character };
    const body = make("div", { class: "body" }, make("p", { class: "who" }, character.name), make("p", { class: "text" }));
    const line = make("li", { class: "line reply" }, face(character, cast), body);
    line.style.setProperty("--hue", hue(entry.character, cast));
    return line;
  }
}

function draw(line, entry, state) {
  const text = find(".text", line);
  if (entry.kind === "reply") return drawReply(line, text, entry, parts(entry, state.started));
  text.textContent = entry.text;
  line.classList.toggle("partial", entry.kind === "user" && !entry.final);
}

function drawReply(line, text, entry, { said, coming, unheard }) {
  line.dataset.status = entry.held ? "paused" : entry.status;
  line.setAttribute("aria-busy", String(entry.status === "waiting" || entry.status === "speaking"));
  if (entry.status === "cut") return replace(text, said, said && unheard && " ", unheard && struck(unheard));
  if (!said && !coming) return replace(text, dots());
  light(text, said, coming);
}

function replace(text, ...children) {
  delete text.dataset.words;
  text.replaceChildren(...children.filter(Boolean));
}

// One span a word, kept from one drawing to the next, so that each can fade in as it sounds.
function light(text, said, coming) {
  const words = `${said}${coming}`.match(/\s*\S+/g) ?? [];
  if (text.dataset.words !== "yes") text.replaceChildren();
  text.dataset.words = "yes";
  let at = 0;
  words.forEach((word, place) => {
    const span = text.children[place] ?? text.appendChild(make("span"));
    if (span.textContent !== word) span.textContent = word;
    at += word.length;
    span.className = at <= said.length ? "said" : "coming";
  });
  while (text.children.length > words.length) text.lastChild.remove();
}

function struck(unheard) {
  const words = make("span", { class: "sr" }, "Cut off before: ");
  return make("del", { title: "Cut off: never said aloud" }, words, unheard);
}

function dots() {
  return make("span", { class: "dots", role: "img", "aria-label": "thinking" }, make("i"), make("i"), make("i"));
}
