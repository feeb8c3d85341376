import type { Config, UpstreamConfig } from '../config/config.ts';
import { type Flags, loadConfig } from '../config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../consul/api.ts';
import { asConsulError } from '../consul/error.ts';
import { createAdminClient } from '../openresty/admin.ts';
import { readInstances } from '../source/instance.ts';
import { columns, type Output } from './output.ts';

/**
 * Checks the configuration and prints what it would watch. Unless `offline`, each
 * service is asked for once, which shows whether Consul takes its filter.
 *
 * @returns the exit code: 1 when Consul did not answer, 2 when it refused a request
 * @throws ConfigError
 */
export async function check(flags: Flags, offline: boolean, output: Output): Promise<number> {
  const config = loadConfig(flags, process.env);
  // The files that these read are a part of the configuration.
  const client = createConsulClient(config.consul);
  for (const target of config.openresty) createAdminClient(target).close();
  output.out(`consul     ${config.consul.endpoint.name}`);
  for (const { endpoint } of config.openresty) output.out(`openresty  ${endpoint.name}`);
  const found = offline ? undefined : await askForAll(client, config, output);
  client.close();
  const rows = [...config.upstreams].map(([name, upstream]) => [
    name,
    `service ${upstream.service}`,
    upstream.filter ?? '',
    found?.seen.get(name) ?? '',
  ]);
  for (const line of columns([['UPSTREAM', 'SERVICE', 'FILTER', 'NOW'], ...rows])) output.out(line);
  return found?.code ?? 0;
}

async function askForAll(
  client: ConsulClient,
  config: Config,
  output: Output,
): Promise<{ seen: Map<string, string>; code: number }> {
  const seen = new Map<string, string>();
  let code = 0;

  async function ask(name: string, { service, filter, port }: UpstreamConfig): Promise<void> {
    try {
      const consistency = config.consul.consistency ?? 'default';
      const query = { service, filter, consistency };
      const { entries } = await client.health(query, AbortSignal.timeout(10_000));
      seen.set(name, summary(entries, port));
    } catch (error) {
      const { message, ourFault } = asConsulError(error, client.name);
      output.err(`reloadless: ${name}: ${message}`);
      code = Math.max(code, ourFault ? 2 : 1);
    }
  }

  await Promise.all([...config.upstreams].map(([name, upstream]) => ask(name, upstream)));
  return { seen, code };
}

/** @returns such as `3 instances: 2 passing, 1 critical` */
function summary(entries: unknown[], port: string | undefined): string {
  const { instances, malformed } = readInstances(entries, port);
  const counts = new Map<string, number>();
  for (const { health } of instances) counts.set(health, (counts.get(health) ?? 0) + 1);
  if (malformed.length > 0) counts.set('malformed', malformed.length);
  if (counts.size === 0) return 'no instances';
  const parts = [...counts].map(([health, count]) => `${count} ${health}`);
  return `${entries.length} instance${entries.length === 1 ? '' : 's'}: ${parts.join(', ')}`;
}
