// A client for load: many keep-alive connections, each with one request at a
// time, some of which go away without waiting for the answer.
import { connect, type Socket } from 'node:net';

export interface Load {
  port: number;
  connections: number;
  /** Of the nth request; undefined ends the load. */
  next: (n: number) => string | undefined;
  /** Milliseconds after which the client of the nth request goes away, if it does. */
  abort?: (n: number) => number | undefined;
}

export interface Tally {
  /** Answers by status. */
  statuses: Record<number, number>;
  aborted: number;
  /** Connections that ended before the answer. */
  broken: number;
}

/** Sends the requests of a load, and tells what became of them. */
export async function swarm({ port, connections, next, abort }: Load): Promise<Tally> {
  const tally: Tally = { statuses: {}, aborted: 0, broken: 0 };
  let sent = 0;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      let line = new Line(port);
      for (;;) {
        const n = sent;
        const path = next(n);
        if (path === undefined) break;
        sent += 1;
        const after = abort?.(n);
        const end = await line.send(path, after);
        if (typeof end === 'number') tally.statuses[end] = (tally.statuses[end] ?? 0) + 1;
        else tally[end] += 1;
        if (line.isClosed) line = new Line(port);
      }
      line.close();
    }),
  );
  return tally;
}

type End = number | 'aborted' | 'broken';

/** One connection; of HTTP it knows what nginx answers here. */
class Line {
  readonly #socket: Socket;
  #text = '';
  #end: (end: End) => void = () => {};
  isClosed = false;

  constructor(port: number) {
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.#socket.setEncoding('latin1');
    this.#socket.on('data', (text) => this.#read(String(text)));
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      this.isClosed = true;
      this.#end('broken');
    });
  }

  #read(text: string): void {
    this.#text += text;
    const head = this.#text.indexOf('\r\n\r\n');
    if (head < 0) return;
    const length = /\r\ncontent-length: (\d+)/i.exec(this.#text)?.[1];
    const isWhole =
      length === undefined
        ? this.#text.endsWith('\r\n0\r\n\r\n') || this.#text.startsWith('HTTP/1.1 204')
        : this.#text.length >= head + 4 + Number(length);
    if (!isWhole) return;
    if (/\r\nconnection: close/i.test(this.#text)) this.close();
    const status = Number(this.#text.slice(9, 12));
    this.#text = '';
    this.#end(status);
  }

  send(path: string, abortAfter?: number): Promise<End> {
    if (this.isClosed) return Promise.resolve('broken');
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      this.#end = (end) => {
        clearTimeout(timer);
        this.#end = () => {};
        resolve(end);
      };
      this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
      if (abortAfter === undefined) return;
      timer = setTimeout(() => {
        this.close();
        this.#end('aborted');
      }, abortAfter);
    });
  }

  close(): void {
    this.isClosed = true;
    this.#socket.destroy();
  }
}
