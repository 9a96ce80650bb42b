// Asking a service for speech: an async generator of PCM, which stops the service when it is closed.

import { Failure } from "./failure.js";
import { Garbled, Objects } from "./objects.js";
import { RATE, Reading, reason } from "./reading.js";

const FINAL = new Set(["FAILED", "CANCELLED", "TIMED_OUT"]);
const PATH = "/api/tts/synthesize";
const OBJECT = new TextEncoder().encode('{"'); // how one begins, where the content type says nothing of it
const POLL_MS = 100;
const SLOWEST_MS = 2_000;

/** PCM at 48 kHz. `signal` aborts whatever is under way. */
export function speech(service, wanted, signal) {
  const body = { text: wanted.text, voice: wanted.voice, stream: true, output_format: "pcm_16", sample_rate: 48_000 };
  if (service.kind === "runpod") return runpod(service, { ...body, service: wanted.service }, signal);
  return plain(service, service.kind === "parley" ? body : { ...body, service: wanted.service }, signal);
}

async function* plain(service, body, signal) {
  const base = service.url.replace(/\/+$/, "");
  const url = service.kind === "parley" && !base.endsWith(PATH) ? base + PATH : base;
  const response = await ask(url, { method: "POST", body: JSON.stringify(body) }, service, signal);
  const kind = (response.headers.get("content-type") ?? "").toLowerCase();
  let stream = reads(response.body);
  let objects = /json|text\//.test(kind);
  if (!objects && !kind.startsWith("audio/")) {
    const head = await begun(stream);
    objects = head[0] === OBJECT[0] && head[1] === OBJECT[1];
    stream = behind(head, stream);
  }
  yield* objects ? messages(stream) : sound(stream, kind, response.headers.get("x-sample-rate"));
}

/** Enough of a body to see whether it is an object. */
async function begun(body) {
  let head = new Uint8Array(0);
  while (head.length < OBJECT.length) {
    const { done, value } = await body.next();
    if (done) break;
    head = joined(head, value);
  }
  return head;
}

async function* behind(head, body) {
  yield head;
  yield* body;
}

async function* messages(body) {
  const objects = new Objects();
  const reading = new Reading();
  for await (const text of texts(body)) {
    for (const message of pushed(objects, text)) {
      const pcm = reading.read(message);
      if (pcm?.length) yield pcm;
      if (reading.complete) return;
    }
  }
  if (!objects.whole) throw new Failure("upstream_died", 502, "the stream ended in the middle of a message");
  reading.finish();
}

function pushed(objects, text) {
  try {
    return objects.push(text);
  } catch (error) {
    throw error instanceof Garbled ? new Failure("upstream_garbled", 502, `the server sent ${error.message}`) : error;
  }
}

async function* texts(body) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for await (const bytes of body) {
    try {
      yield decoder.decode(bytes, { stream: true });
    } catch {
      throw new Failure("upstream_garbled", 502, "the server sent something that is no text");
    }
  }
}

/** Bare PCM as it comes, in whole samples. */
async function* sound(body, kind, told) {
  if (!/^(audio\/(pcm|x-pcm|l16|raw|octet-stream)|application\/octet-stream)/.test(kind)) {
    throw new Failure("upstream_garbled", 502, `the server sent ${kind || "something without a type"}, not PCM`);
  }
  const rate = Number(told ?? /rate="?(\d+)/.exec(kind)?.[1] ?? RATE);
  if (rate !== RATE) throw new Failure("upstream_garbled", 502, `the server sent ${rate} Hz; ${RATE} Hz is needed here`);
  let odd = new Uint8Array(0);
  for await (const bytes of body) {
    const held = joined(odd, bytes);
    const whole = held.length - (held.length % 2);
    odd = held.slice(whole);
    if (whole) yield held.slice(0, whole);
  }
}

function joined(before, after) {
  const both = new Uint8Array(before.length + after.length);
  both.set(before);
  both.set(after, before.length);
  return both;
}

async function* reads(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw error instanceof Failure ? error : new Failure("upstream_died", 502, `the connection broke: ${error.message}`);
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* runpod(service, body, signal) {
  const base = service.url.replace(/\/+$/, "").replace(/\/(run|runsync)$/, "");
  const job = await state(base, "run", { method: "POST", body: JSON.stringify({ input: body }) }, service, signal);
  if (typeof job.id !== "string") throw new Failure("upstream_garbled", 502, "RunPod gave the job no id");
  const reading = new Reading();
  try {
    for await (const output of outputs(base, job.id, service, signal)) {
      const pcm = reading.read(output);
      if (pcm?.length) yield pcm;
      if (reading.complete) return;
    }
    reading.finish();
  } finally {
    if (!reading.complete) await cancelled(base, job.id, service);
  }
}

async function* outputs(base, id, service, signal) {
  let pause = POLL_MS;
  for (;;) {
    const job = await state(base, `stream/${id}`, {}, service, signal);
    const found = outputsIn(job.stream ?? []);
    yield* found;
    if (found.length) {
      pause = POLL_MS;
      continue;
    }
    if (FINAL.has(job.status)) {
      throw new Failure("upstream_failed", 502, `RunPod's job ${job.status.toLowerCase()}: ${job.error ?? "no reason given"}`);
    }
    if (job.status === "COMPLETED") return;
    await new Promise((resolve) => setTimeout(resolve, pause));
    signal.throwIfAborted();
    pause = Math.min(SLOWEST_MS, pause * 1.5);
  }
}

function outputsIn(stream) {
  const whole = Array.isArray(stream) && stream.every(isObject);
  const found = whole ? stream.flatMap((held) => held.output ?? []) : null;
  if (!found?.every(isObject)) throw new Failure("upstream_garbled", 502, "RunPod's stream is no list of outputs");
  return found;
}

function isObject(value) {
  return typeof value === "object" && value !== null;
}

async function cancelled(base, id, service) {
  try {
    await ask(`${base}/cancel/${id}`, { method: "POST" }, service, AbortSignal.timeout(2_000));
  } catch {
    // It ends by itself, then.
  }
}

async function state(base, path, options, service, signal) {
  const response = await ask(`${base}/${path}`, options, service, signal);
  const told = await response.json().catch(() => null);
  signal.throwIfAborted();
  if (!isObject(told)) throw new Failure("upstream_garbled", 502, `${path} answered something that is no JSON object`);
  return told;
}

async function ask(url, options, service, signal) {
  const headers = { "Content-Type": "application/json" };
  if (service.key) headers.Authorization = `Bearer ${service.key}`;
  let response;
  try {
    response = await fetch(url, { ...options, headers, signal, redirect: "manual" });
  } catch (error) {
    if (signal.aborted) throw signal.reason ?? error;
    throw new Failure("upstream_unreachable", 502, `nothing answers at ${url}`);
  }
  if (response.ok) return response;
  const [code, status] = meaning(response.status);
  throw new Failure(code, status, `${url} answered ${response.status}: ${why((await response.text()).trim())}`);
}

/** Why, out of an error's body. */
function why(body) {
  try {
    const message = JSON.parse(body);
    if (isObject(message) && !Array.isArray(message)) return reason(message);
  } catch {
    // It is no JSON, then.
  }
  return body.slice(0, 200) || "no reason given";
}

function meaning(status) {
  if (status === 401 || status === 403) return ["upstream_auth", 502];
  if (status === 429 || status === 503) return ["upstream_busy", 503];
  if (status === 408 || status === 504) return ["upstream_timeout", 504];
  return ["upstream_failed", 502];
}
