// The Worker's variables and secrets, checked.

import { Failure } from "./failure.js";

export function settings(env) {
  return {
    streaming: streaming(env),
    origins: (env.ALLOWED_ORIGINS ?? "").split(",").map((origin) => origin.trim()).filter(Boolean),
    chunkMs: milliseconds(env, "CHUNK_TIMEOUT_MS", 5_000),
    totalMs: milliseconds(env, "TOTAL_TIMEOUT_MS", 30_000),
    longest: milliseconds(env, "MAX_CHARS", 20_000),
  };
}

/** The service called `name`, with its key: KEY_NAME, or RUNPOD_API_KEY for RunPod's. */
export function service(env, name) {
  const services = all(env);
  const found = Object.hasOwn(services, name) ? services[name] : null;
  if (!found) {
    throw new Failure("bad_request", 400, `service: no '${name}'; there are: ${Object.keys(services).join(", ") || "none"}`);
  }
  if (!/^https?:\/\//.test(found.url ?? "")) throw new Failure("bad_config", 500, `SERVICES: '${name}' has no url`);
  const key = env[`KEY_${name.toUpperCase()}`] ?? (found.kind === "runpod" ? env.RUNPOD_API_KEY : undefined);
  if (found.kind === "runpod" && !key) throw new Failure("bad_config", 500, "RUNPOD_API_KEY is not set");
  return { kind: "parley", ...found, key };
}

function streaming(env) {
  const told = (env.ENABLE_STREAMING || "true").trim().toLowerCase();
  if (!["true", "1", "false", "0"].includes(told)) throw new Failure("bad_config", 500, "ENABLE_STREAMING: true or false");
  return told === "true" || told === "1";
}

function all(env) {
  try {
    if (env.SERVICES) return JSON.parse(env.SERVICES);
  } catch (error) {
    throw new Failure("bad_config", 500, `SERVICES is no JSON: ${error.message}`);
  }
  const url = env.RUNPOD_STREAMING_ENDPOINT;
  return url ? { vibevoice: { kind: "runpod", url }, chatterbox: { kind: "runpod", url } } : {};
}

function milliseconds(env, name, otherwise) {
  const value = Number(env[name] ?? otherwise);
  if (!(value > 0)) throw new Failure("bad_config", 500, `${name}: not a number above 0`);
  return value;
}
