import { isIPv4, isIPv6 } from 'node:net';

/**
 * A peer's key in the document.
 *
 * IPv6 is compressed and lower-case (RFC 5952) in brackets. An IPv4-mapped
 * address (RFC 4291 section 2.5.5.2) becomes the IPv4 address it stands for, so
 * that one peer has one key.
 *
 * @param ip IPv4 or IPv6, without brackets or a scope
 * @param port 1 to 65535
 * @returns undefined when it is not an address that nginx can connect to
 */
export function peerAddress(ip: string, port: number): string | undefined {
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return undefined;
  if (isIPv4(ip)) return `${ip}:${port}`;
  if (!isIPv6(ip) || ip.includes('%')) return undefined;
  // The URL parser compresses as RFC 5952 says.
  const host = new URL(`http://[${ip}]`).hostname;
  const mapped = /^\[::ffff:([0-9a-f]+):([0-9a-f]+)\]$/.exec(host);
  if (mapped === null) return `${host}:${port}`;
  const [high, low] = [Number.parseInt(mapped[1] ?? '', 16), Number.parseInt(mapped[2] ?? '', 16)];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}:${port}`;
}

/**
 * @param text `a.b.c.d:port` or `[v6]:port`
 * @returns a peer's key; undefined when it is something else
 */
export function readPeerAddress(text: string): string | undefined {
  const parts = /^(?:\[(.+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  return parts === null ? undefined : peerAddress(parts[1] ?? parts[2] ?? '', Number(parts[3]));
}

/** @returns whether the key of a peer is an address in canonical form. */
export function isPeerAddress(key: string): boolean {
  return readPeerAddress(key) === key;
}
