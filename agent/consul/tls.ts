import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { ConsulConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';

/** What every TLS connection to Consul is made with. */
export interface SecureOptions {
  secureContext: SecureContext;
  servername?: string;
  rejectUnauthorized: boolean;
}

/** @throws ConfigError when a file cannot be read or used */
export function secureOptions(tls: ConsulConfig['tls']): SecureOptions {
  return {
    secureContext: createContext(tls),
    ...(tls.server_name === undefined ? {} : { servername: tls.server_name }),
    rejectUnauthorized: tls.verify,
  };
}

function createContext({ ca_file, cert_file, key_file }: ConsulConfig['tls']): SecureContext {
  const files = { ca: ca_file, cert: cert_file, key: key_file };
  try {
    const contents = Object.entries(files).flatMap(([option, file]) =>
      file === undefined ? [] : [[option, readFileSync(file)]],
    );
    return createSecureContext(Object.fromEntries(contents));
  } catch (error) {
    const named = Object.values(files).filter((file) => file !== undefined);
    throw new ConfigError(
      `consul.tls: ${named.join(', ')}: ${(error as Error).message}`,
      'config/unreadable',
      error,
    );
  }
}
