// Reads one event stream through a published client and prints [event name, last event id, data] of each as JSON.
// The first line on stdin says which library, where, and with which headers.

import { once } from "node:events";
import { createInterface } from "node:readline";

import { EventSource } from "eventsource";
import LaunchDarkly from "launchdarkly-eventsource";

const NAMES = ["message", "environments", "snapshot", "changes", "bookmark", "goodbye", "put", "patch", "delete"];
const RETRY_MS = 50;

const open = {
  eventsource: (url, headers) =>
    new EventSource(url, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
    }),
  "launchdarkly-eventsource": (url, headers) =>
    new LaunchDarkly.EventSource(url, { headers, initialRetryDelayMillis: RETRY_MS }),
};

const [line] = await once(createInterface({ input: process.stdin }), "line");
const { library, url, headers } = JSON.parse(line);
const source = open[library](url, headers);
for (const name of NAMES) {
  source.addEventListener(name, ({ type, lastEventId, data }) => {
    process.stdout.write(`${JSON.stringify([type, lastEventId, data])}\n`);
  });
}
// Without a listener, an error of an event emitter ends the program; the clients come back by themselves.
source.onerror = ({ message }) => process.stderr.write(`${message}\n`);
