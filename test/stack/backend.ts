import { createServer, type Server } from 'node:http';
import { close, listen } from './server.ts';

/**
 * A small HTTP server that answers every request with its own name. `/health`
 * is for Consul's check; a POST to `/fail` and `/recover` sets what it answers.
 */
export class Backend {
  readonly name: string;
  /** As nginx writes it: `127.0.0.1:port`. */
  address = '';
  readonly #server: Server;
  /** Requests answered so far, health checks not counted. */
  requests = 0;
  healthy = true;

  private constructor(name: string) {
    this.name = name;
    this.#server = createServer((request, response) => {
      if (request.url === '/health') {
        response.writeHead(this.healthy ? 200 : 500).end();
        return;
      }
      if (request.method === 'POST' && (request.url === '/fail' || request.url === '/recover')) {
        this.healthy = request.url === '/recover';
        response.end(`${this.name} is ${this.healthy ? 'healthy' : 'failing'}\n`);
        return;
      }
      this.requests += 1;
      response.setHeader('content-type', 'text/plain');
      response.end(`${this.name}\n`);
    });
  }

  /** @param port 0 for any free one */
  static async start(name: string, port = 0): Promise<Backend> {
    const backend = new Backend(name);
    backend.address = await listen(backend.#server, '127.0.0.1', port);
    return backend;
  }

  get port(): number {
    return Number(this.address.split(':')[1]);
  }

  stop(): Promise<void> {
    return close(this.#server);
  }
}
