import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

export async function connectFlags({ baseUrl, clientKey, context, pollInterval = 60_000 }) {
  const provider = new OFREPWebProvider({
    baseUrl,
    headers: [['Authorization', `Bearer ${clientKey}`]],
    cacheMode: 'network-first',
    pollInterval, // asks at intervals only while there is no stream; 0 is never
  });
  await (context ? OpenFeature.setProviderAndWait(provider, context) : OpenFeature.setProviderAndWait(provider));
  return OpenFeature.getClient();
}

// After trouble the provider does not say READY by itself. Setting the context anew makes it ask, and then it does.
export function keepReady(client) {
  let timer;
  let waitMs = 4_000;
  const askSoon = () => {
    timer ??= setTimeout(async () => {
      timer = undefined;
      await OpenFeature.setContext(OpenFeature.getContext());
      // A question that failed was told as an error, and has set the timer again.
      waitMs = timer ? Math.min(waitMs * 2, 60_000) : 4_000;
    }, waitMs * (1 + Math.random() / 2));
  };
  client.addHandler(ProviderEvents.Stale, askSoon);
  client.addHandler(ProviderEvents.Error, askSoon);
}
