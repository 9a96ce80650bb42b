// The one WebSocket to the server: JSON and PCM both ways, and back again by itself when the connection drops.

const FIRST_RETRY_MS = 400;
const LAST_RETRY_MS = 8000;
const FULL_RETRY_MS = 5000; // the server said that it carries all it can
const PING_MS = 10_000;
const MOST_UNSENT = 64_000; // bytes: two seconds of microphone; more would only arrive late, and is dropped
const REFUSED = new Set([1002, 1003, 1008, 1009]); // trying again by itself would not help

export class Socket {
  #url;
  #on;
  #socket = null;
  #retry = null;
  #heartbeat = null;
  #tries = 0;
  #answered = true;
  #wanted = false;

  /** `url()` is asked before each attempt. `on`: message(object), audio(ArrayBuffer), link({state, ...}). */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    addEventListener("online", () => this.#wanted && !this.open && this.connect());
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** `quietly`: in place of an open connection, so that nobody need be told of a loss. */
  connect({ quietly = false } = {}) {
    this.#drop();
    this.#wanted = true;
    if (!quietly) this.#on.link({ state: this.#tries > 0 ? "reconnecting" : "connecting" });
    const socket = (this.#socket = new WebSocket(this.#url(), ["parley.v1"]));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  send(message) {
    if (!this.open) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  sendAudio(pcm) {
    if (this.open && this.#socket.bufferedAmount <= MOST_UNSENT) this.#socket.send(pcm);
  }

  close() {
    this.#wanted = false;
    this.#drop();
  }

  #opened() {
    this.#answered = true;
    this.#heartbeat = setInterval(() => this.#beat(), PING_MS);
    this.#on.link({ state: "open" });
  }

  #received(data) {
    this.#answered = true;
    this.#tries = 0;
    if (typeof data === "string") this.#on.message(JSON.parse(data));
    else this.#on.audio(data);
  }

  // Unanswered pings are counted rather than seconds: timers of a page in the background run late.
  #beat() {
    if (!this.#answered) return this.#closed(1006, "no answer");
    this.#answered = false;
    this.send({ type: "ping" });
  }

  #closed(code, reason) {
    this.#drop();
    if (!this.#wanted) return;
    if (REFUSED.has(code) || code === 1000) {
      this.#wanted = false;
      this.#on.link({ state: "refused", code, reason });
      return;
    }
    const backoff = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#tries++);
    const wait = code === 1013 ? FULL_RETRY_MS : backoff;
    this.#on.link({ state: "lost", code, reason, retryMs: wait });
    this.#retry = setTimeout(() => this.connect(), wait * (0.8 + 0.4 * Math.random()));
  }

  #drop() {
    clearInterval(this.#heartbeat);
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }
}
