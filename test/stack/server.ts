import { once } from 'node:events';
import type { Server } from 'node:http';
import type { Server as SecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';

/**
 * Starts a server that keeps idle connections for longer than a test needs them.
 *
 * @param port 0 for any free one
 * @returns its address as nginx writes it: `host:port`
 */
export async function listen(
  server: Server | SecureServer,
  host = '127.0.0.1',
  port = 0,
): Promise<string> {
  server.keepAliveTimeout = 60_000;
  server.listen(port, host);
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  return host.includes(':') ? `[${host}]:${bound}` : `${host}:${bound}`;
}

/** Ends a server and its connections: from then on connecting is refused. */
export async function close(server: Server | SecureServer): Promise<void> {
  if (!server.listening) return;
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
}
