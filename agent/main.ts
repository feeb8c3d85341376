#!/usr/bin/env node
import './util/frugal.ts';

import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { ByHandOptions, Word } from './cli/by-hand.ts';
import { flush, terminal, writeErr, writeOut } from './cli/output.ts';
import { durationForm, parseDuration } from './config/duration.ts';
import { ConfigError } from './config/error.ts';
import { logLevels } from './config/file-schema.ts';
import type { Flags } from './config/resolve.ts';
import { reason } from './telemetry/log.ts';

interface SyncFlags extends Flags {
  prune?: boolean;
  allowEmpty?: boolean;
  dryRun?: boolean;
  exitCode?: boolean;
  timeout: number;
}

type ByHandFlags = Flags & ByHandOptions;

function list(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function seconds(value: string): number {
  const parsed = parseDuration(/^\d+$/.test(value) ? Number(value) : value);
  if (parsed === undefined) throw new InvalidArgumentError(`Expected ${durationForm}.`);
  return parsed;
}

function withTargets(command: Command): Command {
  return command
    .option(
      '-c, --config <file>',
      'configuration (default: /etc/reloadless/reloadless.yml, if it is there and no --service is given)',
    )
    .option(
      '--openresty <url>',
      'admin endpoint: http://HOST:PORT, https://HOST or unix:PATH (repeatable)',
      list,
    )
    .option('--token-file <file>', 'token of the admin endpoint (or RELOADLESS_TOKEN_FILE)');
}

function withCommonFlags(command: Command): Command {
  return withTargets(command)
    .option(
      '--consul <url>',
      'address of Consul (default: CONSUL_HTTP_ADDR or http://127.0.0.1:8500)',
    )
    .option('--service <name>', 'a service that becomes an upstream of its name (repeatable)', list)
    .option('--snapshot <file>', 'snapshot file')
    .addOption(new Option('--log-level <level>', 'least level of a log line').choices(logLevels))
    .addOption(new Option('--log-format <format>', 'of the log').choices(['json', 'pretty']));
}

/**
 * A command is loaded when it is given: what `run` does not need would stay in
 * its memory for as long as it runs.
 *
 * @param done takes the exit code, and how long output may still take, in ms
 */
function createProgram(done: (code: number, most?: number) => void): Command {
  const manifest = new URL('../package.json', import.meta.url);
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  const program = new Command('reloadless')
    .description("Keeps OpenResty's upstream peers equal to what Consul says is healthy.")
    .version(version)
    .configureOutput({ writeOut, writeErr })
    .exitOverride();

  withCommonFlags(program.command('run'))
    .description('watch Consul and push every change, until stopped')
    .action(async (flags: Flags) => {
      const { grace, run } = await import('./cli/run.ts');
      done(await run(flags), grace);
    });

  withCommonFlags(program.command('sync'))
    .description('bring OpenResty to what Consul says now, then exit')
    .option('--prune', 'remove upstreams of the same owner that the configuration does not have')
    .option('--allow-empty', 'a service without an instance is no failure')
    .option('--dry-run', 'print the merge patch for each target and change nothing')
    .option('--exit-code', 'with --dry-run: exit with 3 when there is a difference')
    .option('--timeout <duration>', 'for the whole', seconds, 30)
    .action(async (given: SyncFlags) => {
      const { prune = false, allowEmpty = false, dryRun = false, exitCode = false } = given;
      const options = { prune, allowEmpty, dryRun, exitCode, timeout: given.timeout };
      const { sync } = await import('./cli/sync.ts');
      done(await sync(given, options, terminal));
    });

  withTargets(program.command('status'))
    .description('print what is live in OpenResty')
    .option('--json', 'as the admin endpoint answers')
    .action(async ({ json = false, ...flags }: Flags & { json?: boolean }) => {
      const { status } = await import('./cli/status.ts');
      done(await status(flags, json, terminal));
    });

  const ofPeer = '<upstream> <peer>';
  const byHand = (command: Command) =>
    withTargets(command)
      .option('--wait', 'until the peer has no request left')
      .option('--timeout <duration>', 'for the whole', seconds, 600);
  const saying = (command: Command) =>
    byHand(command)
      .option('--for <duration>', 'after which it ends', seconds)
      .option('--note <text>', 'for people');
  const say = async (upstream: string, peer: string, word: Word | null, flags: ByHandFlags) => {
    const { sayByHand } = await import('./cli/by-hand.ts');
    done(await sayByHand(flags, { upstream, peer }, word, flags, terminal));
  };

  saying(program.command(`drain ${ofPeer}`))
    .description('let a peer take no new requests, whatever Consul says')
    .action((upstream: string, peer: string, flags: ByHandFlags) =>
      say(upstream, peer, { drain: true }, flags),
    );
  byHand(program.command(`undrain ${ofPeer}`))
    .description('take that back')
    .action((upstream: string, peer: string, flags: ByHandFlags) =>
      say(upstream, peer, { drain: null }, flags),
    );
  saying(program.command(`set ${ofPeer} <field=value...>`))
    .description('set weight, down, max_conns and so on of a peer; field= takes it back')
    .action(async (upstream: string, peer: string, texts: string[], flags: ByHandFlags) => {
      const { fieldForm, readFields } = await import('./cli/by-hand.ts');
      const word = readFields(texts);
      if (word === undefined) throw new ConfigError(`set: expected ${fieldForm}`);
      await say(upstream, peer, word, flags);
    });
  byHand(program.command(`clear ${ofPeer}`))
    .description('take all back that was said of a peer')
    .action((upstream: string, peer: string, flags: ByHandFlags) =>
      say(upstream, peer, null, flags),
    );

  withCommonFlags(program.command('check'))
    .description('check the configuration, and print what Consul and the targets say')
    .option('--offline', 'ask neither Consul nor a target')
    .action(async ({ offline = false, ...flags }: Flags & { offline?: boolean }) => {
      const { check } = await import('./cli/check.ts');
      done(await check(flags, offline, terminal));
    });

  program
    .command('import <file...>')
    .description('read configurations of nginx, and print reloadless.yml and the lines of nginx')
    .action(async (files: string[]) => {
      const { importFiles } = await import('./cli/import.ts');
      done(importFiles(files, terminal));
    });

  const snapshot = program.command('snapshot').description('look at a snapshot file');
  snapshot
    .command('show <file>')
    .description('print its document')
    .action(async (file: string) => {
      const { showSnapshot } = await import('./cli/snapshot.ts');
      done(showSnapshot(file, terminal));
    });
  snapshot
    .command('verify <file>')
    .description('say whether it is whole')
    .action(async (file: string) => {
      const { verifySnapshot } = await import('./cli/snapshot.ts');
      done(verifySnapshot(file, terminal));
    });
  return program;
}

/** @returns the exit code: 0 done, 1 failed, 2 usage or configuration */
async function main(): Promise<number> {
  let code = 0;
  let patience: number | undefined;
  const program = createProgram((result, most) => {
    code = result;
    patience = most;
  });
  try {
    await program.parseAsync();
  } catch (error) {
    code = failed(error);
  }
  const fault = await flush(patience);
  // What the agent has done is no worse for a log that cannot be written.
  if (fault === undefined || patience !== undefined) return code;
  writeErr(`reloadless: stdout: ${fault.message}\n`);
  await flush();
  return 1;
}

function failed(error: unknown): number {
  // Commander has printed its own message.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const faults = error instanceof ConfigError ? error.faults : [reason(error)];
  for (const fault of faults) terminal.err(`reloadless: ${fault}`);
  return error instanceof ConfigError ? 2 : 1;
}

process.exit(await main());
