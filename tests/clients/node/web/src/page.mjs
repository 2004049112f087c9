// The page: the application under `window.session`, and what it last saw as text.

import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

import { session } from './session.mjs';

window.session = session;

const show = () => {
  const last = session.heard().at(-1);
  document.querySelector('#status').textContent = OpenFeature.getClient().providerStatus;
  document.querySelector('#heard').textContent = last ? `${last.name} ${last.why ?? ''}` : '';
};
for (const name of Object.values(ProviderEvents)) {
  OpenFeature.addHandler(name, () => queueMicrotask(show));
}
