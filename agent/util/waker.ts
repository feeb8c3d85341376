export interface Waker {
  wake(): void;
  /** @returns true when woken since the last wait, false when `ms` have passed */
  wait(ms: number): Promise<boolean>;
}

/** A wait that a change ends at once; a change during the work before it is not lost. */
export function createWaker(signal: AbortSignal): Waker {
  let woken = false;
  let end = () => {};
  signal.addEventListener('abort', () => end(), { once: true });
  return {
    wake() {
      woken = true;
      end();
    },
    async wait(ms) {
      if (!woken && !signal.aborted) {
        let timer: NodeJS.Timeout | undefined;
        await new Promise<void>((resolve) => {
          end = resolve;
          timer = setTimeout(resolve, ms);
        });
        clearTimeout(timer);
      }
      const was = woken;
      woken = false;
      return was;
    },
  };
}
