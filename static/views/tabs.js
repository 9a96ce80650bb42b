// The page's views as tabs: every `[data-view]` section is one. With a single view there is nothing to choose.

import { find, make } from "./dom.js";

export class TabsView {
  #bar = find("#tabs");
  #views = [...document.querySelectorAll("[data-view]")];

  constructor() {
    this.#bar.hidden = this.#views.length < 2;
    this.#bar.replaceChildren(...this.#views.map((view) => this.#tab(view)));
    this.#bar.addEventListener("keydown", (event) => this.#arrow(event));
    addEventListener("hashchange", () => this.#show());
    this.#show();
  }

  #tab({ dataset: { view, title } }) {
    const attributes = { role: "tab", type: "button", id: `tab-${view}`, "aria-controls": `view-${view}` };
    return make("button", { ...attributes, onclick: () => (location.hash = view) }, title);
  }

  #show() {
    const wanted = this.#views.find(({ dataset }) => `#${dataset.view}` === location.hash) ?? this.#views[0];
    for (const view of this.#views) view.hidden = view !== wanted;
    for (const tab of this.#bar.children) {
      const chosen = tab.id === `tab-${wanted.dataset.view}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    dispatchEvent(new CustomEvent("parley:view", { detail: wanted.dataset.view }));
  }

  #arrow({ key, target }) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const tabs = [...this.#bar.children];
    const next = tabs[(tabs.indexOf(target) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  }
}
