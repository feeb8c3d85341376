import { startAgent } from '../agent.ts';
import { type Flags, loadConfig } from '../config/resolve.ts';
import { createLog, reason } from '../telemetry/log.ts';
import { compileAtOnce } from '../util/frugal.ts';
import { writePidFile } from '../util/pid-file.ts';

/** Writes of the snapshot, and then of the log, may take this long when we are told to end, in ms. */
export const grace = 500;

/**
 * Runs the agent until SIGTERM or SIGINT; SIGHUP reads configuration and tokens
 * again.
 *
 * @throws ConfigError, also when a token or a TLS file cannot be read
 */
export async function run(flags: Flags): Promise<number> {
  const config = loadConfig(flags, process.env);
  compileAtOnce();
  const log = createLog(config.log);
  const targets = config.openresty.map(({ endpoint }) => endpoint.name);
  const consul = config.consul.endpoints.map(({ name }) => name).join(', ');
  const rules = config.discover.map(({ upstream }) => upstream.origin);
  log.info(
    { upstreams: config.upstreams.size, rules: rules.length, consul, targets },
    `watching ${[...config.upstreams.keys(), ...rules].join(', ')} at ${consul} for ${targets.join(', ')}`,
  );
  const agent = startAgent(config, log);
  const removePidFile = config.pid_file === undefined ? undefined : writePidFile(config.pid_file);

  process.on('SIGHUP', () => {
    try {
      agent.reload(loadConfig(flags, process.env));
      log.info('configuration read again');
    } catch (error) {
      log.error({ err: error }, `configuration not changed: ${reason(error)}`);
    }
  });

  const signal = await new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  log.info(`${signal}: ending; OpenResty keeps serving what it has`);
  await Promise.race([agent.stop(), new Promise((resolve) => setTimeout(resolve, grace))]);
  removePidFile?.();
  return 0;
}
