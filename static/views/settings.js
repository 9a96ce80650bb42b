// The settings: devices, how a turn ends, what may cut in, looks. Each takes effect at once.

import { find, make } from "./dom.js";

export class SettingsView {
  #dialog = find("#settings");
  #form = find("#settings form");
  #opener = find("#open-settings");

  /** `actions`: microphone(id), speaker(id), volume(0..1), mode(name), silence(ms), interrupt({...}), theme(name),
   * announce(bool), clear(). `devices()` lists what there is. */
  constructor(actions, devices) {
    this.devices = devices;
    this.#opener.addEventListener("click", () => this.#open());
    find("#clear").addEventListener("click", () => (actions.clear(), this.#dialog.close()));
    this.#dialog.addEventListener("click", ({ target }) => target === this.#dialog && this.#dialog.close());
    const run = {
      microphone: (field) => actions.microphone(field.value),
      speaker: (field) => actions.speaker(field.value),
      volume: (field) => actions.volume(Number(field.value)),
      mode: (field) => actions.mode(field.value),
      silence: (field) => actions.silence(Number(field.value)),
      speaking: (field) => actions.interrupt({ speaking: field.checked }),
      thinking: (field) => actions.interrupt({ thinking: field.checked }),
      theme: (field) => actions.theme(field.value),
      announce: (field) => actions.announce(field.checked),
    };
    this.#form.addEventListener("change", ({ target }) => run[target.name]?.(target));
    this.#form.addEventListener("input", ({ target }) => {
      if (target.type === "range") this.#label(target);
      if (target.name === "volume") run.volume(target); // it is heard while it is dragged
    });
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.#dialog.open && this.listDevices());
  }

  /** Show what the user has chosen, or else what the server has. */
  fill({ volume, mode, silenceMs, interrupt, theme, announce }) {
    const fields = this.#form.elements;
    fields.volume.value = volume;
    fields.mode.value = mode;
    fields.silence.value = silenceMs;
    fields.speaking.checked = interrupt.speaking;
    fields.thinking.checked = interrupt.thinking;
    fields.theme.value = theme;
    fields.announce.checked = announce;
    for (const range of this.#form.querySelectorAll("input[type=range]")) this.#label(range);
  }

  async listDevices(chosen = {}) {
    const all = await this.devices();
    const lists = [["microphone", "audioinput", "Microphone"], ["speaker", "audiooutput", "Speaker"]];
    for (const [name, kind, label] of lists) {
      const select = this.#form.elements[name];
      const value = chosen[name] ?? select.value;
      const found = all.filter((each) => each.kind === kind && each.id !== "default" && each.id !== "communications");
      const options = found.map(({ id, label: said }, place) => make("option", { value: id }, said || `${label} ${place + 1}`));
      select.replaceChildren(make("option", { value: "" }, "The browser's default"), ...options);
      select.value = found.some(({ id }) => id === value) ? value : "";
    }
    find("#speaker-row").hidden = !("setSinkId" in AudioContext.prototype);
  }

  onopen = () => {};

  #open() {
    this.onopen();
    this.#dialog.showModal();
  }

  #label(range) {
    const shown = range.name === "volume" ? `${Math.round(100 * range.value)} %` : `${(range.value / 1000).toFixed(1)} s`;
    find(`output[for="${range.id}"]`, this.#form).textContent = shown;
    range.setAttribute("aria-valuetext", shown);
  }
}
