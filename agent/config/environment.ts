import { ConfigError } from './error.ts';

/** What the environment says of Consul; undefined where it says nothing. */
export interface ConsulEnvironment {
  address: string | undefined;
  /** CONSUL_HTTP_SSL: https whatever the scheme of the address. */
  ssl: boolean;
  token: string | undefined;
  token_file: string | undefined;
  namespace: string | undefined;
  ca_file: string | undefined;
  cert_file: string | undefined;
  key_file: string | undefined;
  server_name: string | undefined;
  verify: boolean | undefined;
}

/**
 * Reads the variables of the `consul` command; an empty one is as good as none.
 * They are listed at developer.hashicorp.com/consul/commands#environment-variables.
 *
 * @throws ConfigError naming the variable
 */
export function consulEnvironment(env: NodeJS.ProcessEnv): ConsulEnvironment {
  const text = (name: string) => (env[name] === '' ? undefined : env[name]);
  const flag = (name: string) => parseBoolean(name, text(name));
  return {
    address: text('CONSUL_HTTP_ADDR'),
    ssl: flag('CONSUL_HTTP_SSL') ?? false,
    token: text('CONSUL_HTTP_TOKEN'),
    token_file: text('CONSUL_HTTP_TOKEN_FILE'),
    namespace: text('CONSUL_NAMESPACE'),
    ca_file: text('CONSUL_CACERT'),
    cert_file: text('CONSUL_CLIENT_CERT'),
    key_file: text('CONSUL_CLIENT_KEY'),
    server_name: text('CONSUL_TLS_SERVER_NAME'),
    verify: flag('CONSUL_HTTP_SSL_VERIFY'),
  };
}

/** As Go's strconv.ParseBool, which the `consul` command uses. */
function parseBoolean(name: string, value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined;
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(value)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(value)) return false;
  throw new ConfigError(`${name}: "${value}" is not true or false`);
}
