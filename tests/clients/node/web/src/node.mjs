// The application in Node: one JSON line in is one call, one JSON line out is its answer.

import { createInterface } from 'node:readline';

import { EventSource } from 'eventsource';

import { session } from './session.mjs';

// The provider takes the global one, which browsers have and Node has not.
globalThis.EventSource = EventSource;

for await (const line of createInterface({ input: process.stdin })) {
  const [method, ...values] = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await session[method](...values)) ?? null };
  } catch (error) {
    answer = { error: `${error.stack}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit();
