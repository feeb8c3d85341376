import { appendFileSync, cpSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryFolder } from './folder.ts';
import { checkout } from './install.mjs';

/** What is added to the agent: a new file, and a line at the end of another; both in `agent/`. */
export interface Addition {
  file: string;
  text: string;
  list: string;
  line: string;
}

/** A copy of the agent's sources with something added. @returns its folder `agent/` */
export function agentWith(t: TestContext, addition: Addition): string {
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const agent = join(folder, 'agent');
  cpSync(join(checkout, 'agent'), agent, { recursive: true });
  for (const name of ['package.json', 'node_modules', 'tsconfig.json']) {
    symlinkSync(join(checkout, name), join(folder, name));
  }
  writeFileSync(join(agent, addition.file), addition.text);
  appendFileSync(join(agent, addition.list), `${addition.line}\n`);
  return agent;
}
