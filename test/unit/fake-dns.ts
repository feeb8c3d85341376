import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';

/** A DNS server on loopback that knows some IPv4 addresses, and stays silent about the rest. */
export class FakeDns {
  readonly #socket: Socket = createSocket('udp4');
  readonly #known: Record<string, string | number>;
  /** `address:port` */
  address = '';
  /** The names that it was asked for. */
  readonly asked: string[] = [];

  private constructor(known: Record<string, string | number>) {
    this.#known = known;
    this.#socket.on('message', (query, { port, address }) => {
      const answer = this.#answer(query);
      if (answer !== undefined) this.#socket.send(answer, port, address);
    });
  }

  /** @param known an address of a name, or a code of an error (3: there is no such name) */
  static async start(known: Record<string, string | number>): Promise<FakeDns> {
    const dns = new FakeDns(known);
    dns.#socket.bind(0, '127.0.0.1');
    await once(dns.#socket, 'listening');
    dns.address = `127.0.0.1:${dns.#socket.address().port}`;
    return dns;
  }

  /** RFC 1035 section 4. */
  #answer(query: Buffer): Buffer | undefined {
    const labels: string[] = [];
    let at = 12;
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      labels.push(query.toString('latin1', at + 1, at + 1 + length));
      at += 1 + length;
    }
    const name = labels.join('.');
    this.asked.push(name);
    const known = this.#known[name];
    if (known === undefined) return undefined;
    const isIPv4 = query.readUInt16BE(at + 1) === 1;
    const question = query.subarray(12, at + 5);
    const ip = typeof known === 'string' && isIPv4 ? known.split('.').map(Number) : [];
    const record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...ip];
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(0x8180 | (typeof known === 'number' ? known : 0), 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(ip.length > 0 ? 1 : 0, 6);
    return Buffer.concat([head, question, Buffer.from(ip.length > 0 ? record : [])]);
  }

  stop(): void {
    this.#socket.close();
  }
}
