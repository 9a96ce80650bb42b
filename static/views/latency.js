// Where the milliseconds of the last turns went: one bar a turn, one colour a stage.

import { LEGEND, stages } from "../timing.js";
import { find, make, setText } from "./dom.js";

const NEWEST = 8; // turns shown

export class LatencyView {
  #panel = find("#timing");
  #toggle = find("#open-timing");
  #rows = find("#timing-rows");
  #median = find("#timing-median");
  #turns = null;

  constructor() {
    find("#timing-legend").replaceChildren(...LEGEND.map(({ name, label }) => make("li", { "data-stage": name }, label)));
    this.#toggle.addEventListener("click", () => this.show(this.#panel.hidden));
    find("#close-timing").addEventListener("click", () => this.show(false));
    addEventListener("parley:view", ({ detail }) => (this.#toggle.hidden = detail !== "talk"));
    this.show(false);
  }

  show(open) {
    this.#panel.hidden = !open;
    this.#toggle.setAttribute("aria-expanded", String(open));
    if (!open && this.#panel.contains(document.activeElement)) this.#toggle.focus();
  }

  render(state) {
    if (state.turns === this.#turns) return;
    this.#turns = state.turns;
    const turns = state.turns.map((each) => ({ turn: each.turn, typed: each.typed, ...stages(each) })).filter(({ total }) => total > 0);
    const shown = turns.slice(-NEWEST).reverse();
    const most = Math.max(1, ...shown.map(({ total }) => total));
    this.#rows.replaceChildren(...shown.map((each) => row(each, most)));
    find("#timing-empty").hidden = shown.length > 0;
    const spoken = turns.filter(({ typed }) => !typed); // who types waits for no silence: together they would tell of neither
    setText(this.#median, shown.length > 0 ? milliseconds(median(spoken.length > 0 ? spoken : turns)) : "");
  }
}

function row({ turn, typed, stages: found, total }, most) {
  const told = found.map(({ label, ms }) => `${label} ${milliseconds(ms)}`).join(", ");
  const bar = make("div", { class: "bar-row", role: "img", "aria-label": told }, ...found.filter(({ ms }) => ms > 0).map(piece));
  bar.style.width = `${(100 * total) / most}%`;
  const head = make("p", { class: "row-head" }, make("span", {}, `Turn ${turn}${typed ? ", typed" : ""}`), make("strong", {}, milliseconds(total)));
  return make("li", {}, head, make("div", { class: "track" }, bar));
}

function piece({ name, label, ms }) {
  const part = make("span", { class: "piece", "data-stage": name, title: `${label}: ${milliseconds(ms)}` });
  part.style.flexGrow = ms;
  return part;
}

const milliseconds = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);

function median(turns) {
  const sorted = turns.map(({ total }) => total).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
