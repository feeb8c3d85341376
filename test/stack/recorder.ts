import { createServer, type Server, request as send } from 'node:http';
import { close, listen } from './server.ts';

export interface Recorded {
  method: string;
  path: string;
  /** Of the request. */
  body: string;
  status: number;
}

/** Stands between the agent and a server, and keeps what goes through. */
export class Recorder {
  readonly #server: Server;
  address = '';
  readonly recorded: Recorded[] = [];
  /** Whether the answer is lost on its way. */
  loses: (recorded: Recorded) => boolean = () => false;

  private constructor(port: number) {
    this.#server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks);
      const { method = '', url = '', headers } = request;
      const forward = send({ host: '127.0.0.1', port, method, path: url, headers }, (answer) => {
        const status = answer.statusCode ?? 0;
        const recorded = { method, path: url, body: body.toString(), status };
        this.recorded.push(recorded);
        if (this.loses(recorded)) return void response.destroy();
        response.writeHead(status, answer.headers);
        answer.pipe(response);
      });
      forward.on('error', () => response.destroy());
      forward.end(body);
    });
  }

  /** @param port of the server on loopback */
  static async start(port: number): Promise<Recorder> {
    const recorder = new Recorder(port);
    recorder.address = `http://${await listen(recorder.#server)}`;
    return recorder;
  }

  /** The writes among what went through. */
  get writes(): Recorded[] {
    return this.recorded.filter(({ method }) => method !== 'GET');
  }

  stop(): Promise<void> {
    return close(this.#server);
  }
}
