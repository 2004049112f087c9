"""The published OpenFeature web SDK and OFREP web provider, run in Node and in Chromium."""
