import { setFlagsFromString } from 'node:v8';

// How V8 runs the agent, which does little at a time and for a long time: see
// docs/discoveries/v8-flags.md. Imported before all else, so that what loading
// leaves behind counts.

// What is new stays in 2 MiB instead of up to 32.
setFlagsFromString('--semi-space-growth-factor=1');

// The heap is collected when it has grown by a half, not by up to three times:
// with thousands of services that is a hundred MiB.
setFlagsFromString('--heap-growing-percent=50');

/**
 * From now on functions are compiled when they first run. Most of ours run a few
 * times a second: they would be interpreted for long before they count as hot.
 */
export function compileAtOnce(): void {
  setFlagsFromString('--always-sparkplug');
}
