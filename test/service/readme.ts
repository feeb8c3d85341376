import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkout } from '../stack/install.mjs';

/**
 * The code blocks of one section of a page, in order.
 *
 * @param kind of the block, such as `sh`
 */
export function blocks(title: string, kind: string, page = 'README.md'): string[] {
  const whole = readFileSync(join(checkout, page), 'utf8');
  const [, section = ''] = whole.split(new RegExp(`^##? ${title}\n`, 'm'));
  const [text = ''] = section.split('\n## ');
  const found = text.matchAll(new RegExp(`^( *)\`\`\`${kind}\\n([\\s\\S]*?)^ *\`\`\``, 'gm'));
  return [...found].map(([, indent, block = '']) =>
    block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

/** Copies what git has of the checkout, and what it would take, as a person's clone. */
export function clone(folder: string): void {
  const list = execFileSync(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    {
      cwd: checkout,
    },
  );
  const archive = execFileSync('tar', ['-c', '--null', '--files-from=-'], {
    cwd: checkout,
    input: list,
    maxBuffer: 64 * 1024 * 1024,
  });
  execFileSync('tar', ['-x', '-C', folder], { input: archive });
}
