// The Worker on this machine, in Cloudflare's own runtime: node local.mjs '{"SERVICES": "...", ...}' [port]
// Prints its address when it is ready; ends when standard input does.

import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import workerd from "workerd";

const [, , bindings = "{}", port = "0"] = process.argv;
const folder = mkdtempSync(join(tmpdir(), "parley-edge-"));
writeFileSync(join(folder, "config.capnp"), config(JSON.parse(bindings), port));

const runtime = spawn(workerd.default ?? workerd, ["serve", "--control-fd=3", join(folder, "config.capnp")], {
  stdio: ["ignore", "inherit", "inherit", "pipe"],
});
createInterface(runtime.stdio[3]).on("line", (line) => {
  const told = JSON.parse(line);
  if (told.event === "listen") console.log(`ready http://127.0.0.1:${told.port}`);
});
runtime.on("exit", (code) => {
  rmSync(folder, { recursive: true, force: true });
  process.exit(code ?? 0);
});
process.stdin.resume();
const stop = () => runtime.kill("SIGKILL"); // it would wait for streams that nobody hears
process.stdin.on("end", stop);
process.on("SIGTERM", stop);
process.on("SIGINT", stop);

/** The runtime's configuration: modules, date and flags as in wrangler.toml. */
function config(variables, port) {
  const source = fileURLToPath(new URL("src/", import.meta.url));
  const wrangler = readFileSync(new URL("wrangler.toml", import.meta.url), "utf8");
  const names = readdirSync(source).sort((a, b) => (b === "worker.js") - (a === "worker.js")); // the first one is run
  const modules = names.map((name) => `(name = "${name}", esModule = ${text(readFileSync(source + name, "utf8"))})`);
  const values = Object.entries(variables).map(([name, value]) => `(name = ${text(name)}, text = ${text(value)})`);
  const flags = JSON.parse(/^compatibility_flags = (.*)$/m.exec(wrangler)[1]);
  return `
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
    (name = "edge", worker = .edge),
  ],
  sockets = [ (name = "http", address = "127.0.0.1:${Number(port)}", http = (), service = "edge") ],
);

const edge :Workerd.Worker = (
  modules = [ ${modules.join(", ")} ],
  bindings = [ ${values.join(", ")} ],
  compatibilityDate = ${text(/^compatibility_date = "(.*)"$/m.exec(wrangler)[1])},
  compatibilityFlags = [ ${flags.map(text).join(", ")} ],
);
`;
}

/** A string as Cap'n Proto writes it. */
function text(value) {
  const escaped = value.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t");
  return `"${escaped}"`;
}
