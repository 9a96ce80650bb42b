// What the user can do, each as one function: start, stop, mute, hold to talk, type, choose.

import { busy } from "./conversation.js";
import { Player } from "./player.js";
import { prefer, preferences } from "./preferences.js";
import { linkTrouble, microphoneTrouble, speakerTrouble } from "./words.js";

const LEAST_SPOKEN = 5; // frames: less is a slip of the finger, which the server does not answer
const MOST_LEAD_MS = 1500; // asked for on a slow network
const SILENCE_AFTER_MUTE = 2000 / 20; // frames: enough for the server to see that the turn has ended

export class Talk {
  #silentFrames = 0;
  #spokenFrames = 0;
  chosen = null; // who was asked for on this page: ids

  constructor({ store, socket, player, microphone, notices }) {
    Object.assign(this, { store, socket, player, microphone, notices });
  }

  get state() {
    return this.store.state;
  }

  /** Open speaker and microphone; needs a user's gesture. */
  start = async () => {
    const speaker = this.state.started && !this.state.silent ? null : this.#openSpeaker();
    const first = !this.state.started;
    this.store.dispatch({ type: "page.started" });
    await Promise.all([speaker, this.openMicrophone(preferences().microphone)]);
    const fresh = first && this.state.entries.length === 0; // only now: who is asked for the microphone may type meanwhile
    if (fresh) this.socket.connect({ quietly: true }); // a session that greets, now that it can be heard
  };

  openMicrophone = async (id) => {
    this.notices.close("microphone");
    this.store.dispatch({ type: "page.microphone", open: this.state.microphone, asking: true });
    try {
      await this.microphone.start(id);
    } catch (error) {
      if (id && error.name === "OverconstrainedError") return this.openMicrophone("");
      return this.#noMicrophone(error);
    }
    this.store.dispatch({ type: "page.microphone", open: true });
    this.tellInputRate();
  };

  microphoneLost = () => {
    this.microphone.close();
    this.#noMicrophone({ name: "Unplugged" });
  };

  /** Again, after the server has ended it. */
  connect = () => {
    this.notices.close("link");
    this.socket.connect();
  };

  /** A frame of the microphone: sent while it is the user's to speak. */
  hear = (pcm) => {
    const { mode, talking, muted, link } = this.state;
    if (link.state !== "open" || (mode === "manual" && !talking)) return;
    this.#silentFrames = muted && mode === "auto" ? this.#silentFrames + 1 : 0;
    this.#spokenFrames++;
    if (this.#silentFrames <= SILENCE_AFTER_MUTE) this.socket.sendAudio(pcm);
  };

  mute = () => {
    this.store.dispatch({ type: "page.muted", muted: !this.state.muted });
    this.#quiet();
  };

  /** Silence now; then tell the server how far it got, and that it is over. */
  stop = async () => {
    if (!busy(this.state)) return;
    this.#acknowledge(await this.#silence());
    this.socket.send({ type: "reply.interrupt" });
  };

  press = () => {
    if (this.state.talking || !this.state.microphone || this.state.link.state !== "open") return;
    this.stop();
    this.wake();
    this.#spokenFrames = 0;
    this.store.dispatch({ type: "page.talking", talking: true });
  };

  release = async () => {
    if (!this.state.talking) return;
    await this.microphone.drain();
    if (!this.state.talking) return;
    const awaiting = this.#spokenFrames >= LEAST_SPOKEN;
    this.store.dispatch({ type: "page.talking", talking: false, awaiting });
    this.socket.send({ type: awaiting ? "user.commit" : "user.clear" });
  };

  toggle = () => (this.state.talking ? this.release() : this.press());

  /** A typed turn; it interrupts. False while there is no connection. */
  type = (text) => {
    if (!this.socket.open || !this.state.session) return false;
    if (!this.state.started) this.#listenOnly();
    this.#typed(text);
    return true;
  };

  mode = (mode) => {
    prefer({ mode });
    this.store.dispatch({ type: "page.mode", mode }); // at once: what is sent after the update would begin a turn
    this.#quiet();
    this.update({ turn: { mode } });
  };

  choose = (characters) => {
    this.chosen = characters;
    prefer({ characters });
    this.update({ characters });
  };

  silence = (silenceMs) => {
    prefer({ silenceMs });
    this.update({ turn: { silence_ms: silenceMs } });
  };

  interrupt = (change) => {
    prefer({ interrupt: { ...preferences().interrupt, ...change } });
    this.update({ interrupt: change });
  };

  clear = async () => {
    await this.stop();
    this.socket.send({ type: "history.clear" });
    this.store.dispatch({ type: "page.cleared" });
  };

  update(changes) {
    this.socket.send({ type: "session.update", ...changes });
  }

  tellInputRate() {
    const { session } = this.state;
    const rate = this.microphone.rate;
    if (this.microphone.open && session && session.input_rate !== rate) this.update({ input_rate: rate });
  }

  /** The voice broke off for want of audio: ask the server to send it twice as far ahead as it says it does. */
  tellStarved() {
    const lead = this.state.session?.lead_ms ?? MOST_LEAD_MS;
    if (lead < MOST_LEAD_MS) this.update({ lead_ms: Math.min(MOST_LEAD_MS, 2 * lead) });
  }

  /** Browsers suspend audio for reasons of their own; any gesture wakes it. */
  wake = () => {
    this.player.wake();
    this.microphone.wake();
  };

  tellLink(link) {
    const text = linkTrouble(link);
    const action = link.state === "refused" ? { label: "Connect again", run: this.connect } : null;
    if (link.state === "open") this.notices.close("link");
    else if (text) this.notices.show({ key: "link", text, action });
  }

  // With push to talk the key alone decides what is heard; hands-free is as muted again as it was.
  #quiet() {
    this.microphone.mute(this.state.muted && this.state.mode === "auto");
  }

  // Typing is a gesture, too: the reply may sound, without a microphone.
  #listenOnly() {
    this.#openSpeaker();
    this.store.dispatch({ type: "page.started" });
  }

  async #openSpeaker() {
    try {
      await this.player.open(this.state.session.output_rate);
      this.store.dispatch({ type: "page.silent", silent: false });
    } catch (error) {
      this.store.dispatch({ type: "page.silent", silent: true });
      this.notices.show({ key: "speaker", text: `${speakerTrouble(error)} You can type, and read along.` });
    }
  }

  async #typed(text) {
    const silent = busy(this.state) ? this.#silence() : null;
    this.store.dispatch({ type: "page.typed", text });
    if (silent) this.#acknowledge(await silent);
    this.socket.send({ type: "user.text", text });
  }

  async #silence() {
    const latest = this.state.entries.findLast(({ kind }) => kind === "reply")?.reply;
    const flushed = this.player.flush(latest);
    this.store.dispatch({ type: "page.silenced" });
    return flushed;
  }

  #acknowledge({ reply, ms }) {
    if (reply !== null) this.socket.send({ type: "playback", reply, ms });
  }

  #noMicrophone(error) {
    this.store.dispatch({ type: "page.microphone", open: this.microphone.open }); // another one may go on
    if (error.name === "NotSupportedError" && !Player.possible) return; // said of the speaker, for both
    const action = { label: "Try again", run: () => this.openMicrophone(preferences().microphone) };
    this.notices.show({ key: "microphone", text: microphoneTrouble(error), action });
  }
}
