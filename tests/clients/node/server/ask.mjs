// Resolves the flags that stdin names through the published OFREP provider, and prints what the caller got as JSON.

import { text } from "node:stream/consumers";

import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OpenFeature } from "@openfeature/server-sdk";

const { baseUrl, key, cases } = JSON.parse(await text(process.stdin));
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers: [["Authorization", `Bearer ${key}`]] }));
const client = OpenFeature.getClient();

const methods = {
  boolean: (...asked) => client.getBooleanDetails(...asked),
  string: (...asked) => client.getStringDetails(...asked),
  integer: (...asked) => client.getNumberDetails(...asked),
  float: (...asked) => client.getNumberDetails(...asked),
  object: (...asked) => client.getObjectDetails(...asked),
};

function contextOf({ context, dates }) {
  if (context === null) return undefined;
  return Object.fromEntries(
    Object.entries(context).map(([name, value]) => [name, dates.includes(name) ? new Date(value) : value]),
  );
}

const outcomes = [];
for (const one of cases) {
  const details = await methods[one.type](one.flag, one.default, contextOf(one));
  outcomes.push({
    value: details.value,
    variant: details.variant ?? null,
    reason: details.reason ?? null,
    error_code: details.errorCode ?? null,
    metadata: details.flagMetadata,
  });
}
process.stdout.write(JSON.stringify(outcomes));
await OpenFeature.close();
