import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** TCP between two parts, that can be counted, cut, slowed down, and made deaf. */
export class Cable {
  readonly #server;
  /** Those that are open, as the one who connects has them. */
  readonly connections = new Set<Socket>();
  port = 0;
  /** So many there have been. */
  opened = 0;
  /** How late what the target says arrives, in ms. */
  #late = 0;

  private constructor(target: number) {
    this.#server = createServer((near) => {
      const far = connect(target, '127.0.0.1');
      this.opened += 1;
      this.connections.add(near);
      near.pipe(far);
      far.on('data', (chunk) => {
        if (this.#late === 0) near.write(chunk);
        else setTimeout(() => near.write(chunk), this.#late);
      });
      far.on('end', () => near.end());
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on('error', () => {});
        one.on('close', () => {
          this.connections.delete(near);
          other.destroy();
        });
      }
    });
  }

  /** @param target a port of loopback */
  static async start(target: number): Promise<Cable> {
    const cable = new Cable(target);
    cable.#server.listen(0, '127.0.0.1');
    await once(cable.#server, 'listening');
    cable.port = (cable.#server.address() as AddressInfo).port;
    return cable;
  }

  /** From now on what the target says takes so many ms; what is on its way goes on as it was. */
  late(ms: number): void {
    this.#late = ms;
  }

  /** Nothing goes to the target any more, and nobody is told. */
  deafen(): void {
    for (const near of this.connections) near.unpipe();
  }

  /** Ends them with a RST. */
  reset(): void {
    for (const near of this.connections) near.resetAndDestroy();
  }

  stop(): void {
    this.#server.close();
    for (const near of this.connections) near.destroy();
  }
}
