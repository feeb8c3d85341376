import type { Config } from '../config/config.ts';
import { type Flags, loadConfig } from '../config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../consul/api.ts';
import { ConsulError } from '../consul/error.ts';
import { createAdminClient } from '../openresty/admin.ts';
import { describeSource, openSource, type SourceConfig } from '../source/source.ts';
import { reason } from '../telemetry/log.ts';
import { columns, type Output, outputLog } from './output.ts';

/**
 * Checks the configuration and prints what it would follow. Unless `offline`,
 * each source is asked once, which shows whether Consul takes its filter.
 *
 * @returns the exit code: 1 when Consul did not answer, 2 when it refused a request
 * @throws ConfigError
 */
export async function check(flags: Flags, offline: boolean, output: Output): Promise<number> {
  const config = loadConfig(flags, process.env);
  // The files that these read are a part of the configuration.
  const client = createConsulClient(config.consul);
  for (const target of config.openresty) createAdminClient(target).close();
  for (const { name } of config.consul.endpoints) output.out(`consul     ${name}`);
  for (const { endpoint } of config.openresty) output.out(`openresty  ${endpoint.name}`);
  const found = offline ? undefined : await askForAll(client, config, output);
  client.close();
  const rows = [...config.upstreams].map(([name, upstream]) => [
    name,
    describeSource(upstream.source),
    found?.seen.get(name) ?? '',
  ]);
  for (const line of columns([['UPSTREAM', 'SOURCE', 'NOW'], ...rows])) output.out(line);
  return found?.code ?? 0;
}

async function askForAll(
  client: ConsulClient,
  config: Config,
  output: Output,
): Promise<{ seen: Map<string, string>; code: number }> {
  const seen = new Map<string, string>();
  let code = 0;

  async function ask(upstream: string, source: SourceConfig): Promise<void> {
    const { consistency = 'default', wait } = config.consul;
    const log = outputLog(output);
    const remembered = () => ({});
    const options = { upstream, config: source, client, consistency, wait, log, remembered };
    const opened = openSource(options);
    const signal = AbortSignal.timeout(10_000);
    try {
      seen.set(upstream, await opened.summary(signal));
    } catch (error) {
      if (!(error instanceof ConsulError) && error !== signal.reason) throw error;
      output.err(`reloadless: ${upstream}: ${reason(error)}`);
      const isInvalid = error instanceof ConsulError && error.code === 'consul/invalid';
      code = Math.max(code, isInvalid ? 2 : 1);
    } finally {
      opened.stop();
    }
  }

  await Promise.all([...config.upstreams].map(([name, { source }]) => ask(name, source)));
  return { seen, code };
}
