// The kinds of source. An upstream names one as the `kind` of its source.
export { health } from './health/health.ts';
export { kv } from './kv/kv.ts';
