import { ConsulError } from './error.ts';

/** The watches of one address. A signal stands for each, until it is aborted. */
export interface Watches {
  readonly followed: number;
  /** Those that are refused. */
  readonly left: number;
  /**
   * Those that came first stay, so that the same services are followed all the time.
   *
   * @param most there can be
   * @param what to begin the message of the error with
   * @throws ConsulError when there are as many without it
   */
  admit(signal: AbortSignal, most: number, what: string): void;
}

/** @param changed is called when there are more or fewer */
export function createWatches(changed: () => void): Watches {
  const followed = new Set<AbortSignal>();
  const left = new Set<AbortSignal>();

  function forget(signal: AbortSignal): void {
    followed.delete(signal);
    left.delete(signal);
    changed();
  }

  function move(signal: AbortSignal, from: Set<AbortSignal>, to: Set<AbortSignal>): void {
    if (to.has(signal)) return;
    const isNew = !from.delete(signal);
    if (isNew) signal.addEventListener('abort', () => forget(signal), { once: true });
    to.add(signal);
    changed();
  }

  return {
    get followed() {
      return followed.size;
    },
    get left() {
      return left.size;
    },
    admit(signal, most, what) {
      signal.throwIfAborted();
      if (followed.size > most) {
        for (const one of [...followed].slice(most)) move(one, followed, left);
      }
      if (followed.has(signal)) return;
      if (followed.size < most) {
        move(signal, left, followed);
        return;
      }
      move(signal, followed, left);
      const why = `${most} services can be followed with consul.max_connections, not this one too`;
      throw new ConsulError('consul/too-many', `${what}: ${why}`);
    },
  };
}
