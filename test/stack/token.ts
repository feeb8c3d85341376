import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folder = mkdtempSync(join(tmpdir(), 'reloadless-token-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Opens the admin API of every nginx that this process starts. */
const token = randomBytes(32).toString('hex');

/** Holds that token, for nginx and the agent; nobody else may read it. */
export const tokenFile = join(folder, 'admin.token');
writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });

/** The header of those who know the token. */
export const authorization = `Bearer ${token}`;
