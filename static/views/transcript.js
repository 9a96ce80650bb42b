// The conversation as it is read: one line a turn, words lighting up as they sound, what was cut off struck through.

import { parts } from "../conversation.js";
import { find, make } from "./dom.js";
import { face, hue } from "./faces.js";

const NEAR_END = 80; // pixels: a reader who scrolled up further is left where they are

export class TranscriptView {
  #list = find("#transcript");
  #empty = find("#welcome");
  #shown = new Map(); // id -> {node, entry, audible}
  #following = true; // the reader has not scrolled away, so keep in view what is being said
  #put = 0; // where that has scrolled the list to
  #latest = find("#latest");
  #size = ""; // of the list; a scroll that comes with another one is none of the reader's

  constructor() {
    this.#list.addEventListener("scroll", () => this.#scrolled());
    this.#latest.addEventListener("click", () => this.#return());
    new ResizeObserver(() => this.#resized()).observe(this.#list);
  }

  render(state) {
    const { entries } = state;
    this.#empty.hidden = entries.length > 0;
    this.#list.hidden = entries.length === 0;
    const typed = entries.some((entry) => entry.typed && !this.#shown.has(entry.id));
    if (typed || entries.length === 0) this.#following = true; // who types wants to see the answer
    const kept = new Set(entries.map((entry) => entry.id));
    for (const [id, { node }] of this.#shown) if (!kept.has(id)) this.#forget(id, node);
    const drawn = entries.map((entry, place) => this.#show(entry, place, state)).some(Boolean);
    if (drawn) this.#follow();
  }

  // To the end, but no further than where the word that sounds next is half-way up.
  #follow() {
    this.#latest.hidden = this.#following || this.#list.hidden;
    if (!this.#following) return;
    const { scrollHeight, clientHeight } = this.#list;
    const next = this.#list.querySelector(".coming")?.offsetTop ?? scrollHeight;
    this.#list.scrollTop = Math.min(scrollHeight - clientHeight, next - clientHeight / 2);
    this.#put = this.#list.scrollTop;
  }

  #resized() {
    this.#size = size(this.#list);
    this.#follow();
  }

  #scrolled() {
    if (size(this.#list) !== this.#size) return;
    const { scrollHeight, scrollTop, clientHeight } = this.#list;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR_END || Math.abs(scrollTop - this.#put) < 2;
    this.#latest.hidden = this.#following;
  }

  #return() {
    this.#following = true;
    this.#follow();
    this.#list.focus();
  }

  #forget(id, node) {
    node.remove();
    this.#shown.delete(id);
  }

  #show(entry, place, state) {
    const known = this.#shown.get(entry.id);
    if (known?.entry === entry && known.audible === audible(state)) return false;
    const node = known?.node ?? this.#place(this.#frame(entry, state), place);
    draw(node, entry, state);
    this.#shown.set(entry.id, { node, entry, audible: audible(state) });
    return true;
  }

  #place(node, place) {
    this.#list.insertBefore(node, this.#list.children[place] ?? null);
    return node;
  }

  #frame(entry, state) {
    if (entry.kind === "note") return make("li", { class: "line note" }, make("p", { class: "text" }));
    if (entry.kind === "user") return make("li", { class: "line user" }, make("p", { class: "who" }, "You"), make("p", { class: "text", dir: "auto" }));
    const cast = state.session?.available ?? [];
    const character = cast.find(({ id }) => id === entry.character) ?? { id: entry.character, name: entry.character };
    const body = make("div", { class: "body" }, make("p", { class: "who" }, character.name), make("p", { class: "text", dir: "auto" }));
    const line = make("li", { class: "line reply" }, face(character, cast), body);
    line.style.setProperty("--hue", hue(entry.character, cast));
    return line;
  }
}

const size = ({ clientWidth, clientHeight }) => `${clientWidth} ${clientHeight}`;

// Whether replies sound on this page, so that their words are to light up with the voice.
const audible = ({ started, silent }) => started && !silent;

function draw(line, entry, state) {
  const text = find(".text", line);
  if (entry.kind === "reply") return drawReply(line, text, entry, parts(entry, audible(state)));
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
