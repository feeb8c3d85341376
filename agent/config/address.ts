import { ConfigError } from './error.ts';

/** Where to connect: a URL without a trailing slash, or a unix socket. */
export interface Endpoint {
  /** As a person would write it, for messages. */
  name: string;
  url: string;
  socketPath?: string;
}

/** What an address may be, for messages. */
export const endpointForm = 'http://..., https://... or unix:/PATH';

/**
 * Reads an address as the `consul` command does: a missing scheme is http,
 * `unix://PATH` (or `unix:PATH`) is a socket.
 *
 * @param text such as `127.0.0.1:8500`, `https://consul.example`, `unix:/run/admin.sock`
 * @returns undefined for anything else
 */
export function readEndpoint(text: string): Endpoint | undefined {
  const socket = /^unix:(?:\/\/)?(\/.+)$/.exec(text)?.[1];
  if (socket !== undefined) {
    return { name: `unix:${socket}`, url: 'http://localhost', socketPath: socket };
  }
  const url = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.search + url.hash !== '') {
    return undefined;
  }
  const name = `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, '')}`;
  return { name, url: url.href.replace(/\/+$/, '') };
}

/**
 * As `readEndpoint`.
 *
 * @param where what to call it in a message, such as `--consul`
 * @throws ConfigError
 */
export function parseEndpoint(text: string, where: string): Endpoint {
  const endpoint = readEndpoint(text);
  if (endpoint === undefined) throw new ConfigError(`${where}: "${text}" is not ${endpointForm}`);
  return endpoint;
}

/** Whether it is a TCP address that only this machine itself can have. */
export function isLoopback({ url, socketPath }: Endpoint): boolean {
  if (socketPath !== undefined) return false;
  return /^(127\.[\d.]+|\[::1\]|localhost)$/.test(new URL(url).hostname);
}
