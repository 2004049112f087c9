// What a test may ask of the application, the same in Node and in a page.

import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

import { connectFlags, keepReady } from './flags.mjs';

const METHODS = {
  boolean: 'getBooleanDetails',
  string: 'getStringDetails',
  integer: 'getNumberDetails',
  float: 'getNumberDetails',
  object: 'getObjectDetails',
};

let client;
const heard = [];

export const session = {
  async start({ baseUrl, clientKey, context, pollInterval, recovers }) {
    client = OpenFeature.getClient();
    for (const name of Object.values(ProviderEvents)) {
      client.addHandler(name, (details) => {
        heard.push({ name, flags: details?.flagsChanged ?? null, why: details?.message ?? null });
      });
    }
    if (recovers) {
      keepReady(client);
    }
    try {
      await connectFlags({ baseUrl, clientKey, context, pollInterval });
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
    return null;
  },

  keepReady() {
    keepReady(client);
  },

  resolve({ flag, type, fallback }) {
    const details = client[METHODS[type]](flag, fallback);
    return {
      value: details.value,
      variant: details.variant ?? null,
      reason: details.reason ?? null,
      errorCode: details.errorCode ?? null,
      metadata: details.flagMetadata ?? {},
    };
  },

  heard() {
    return heard;
  },

  status() {
    return client.providerStatus;
  },

  async stop() {
    await OpenFeature.close();
  },
};
