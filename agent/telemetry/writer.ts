import { writeSync } from 'node:fs';
import { Socket } from 'node:net';

type Done = (error?: Error | null) => void;

/** Writes texts in order, each whole or not at all, and never waits for a slow reader. */
export interface Writer {
  /** @param done hears when all of the text is written, or why none of it is */
  write(text: string, done: Done): void;
  /** How much is still to be written. */
  waiting(): number;
}

export const stdout = createWriter(process.stdout, 1);
export const stderr = createWriter(process.stderr, 2);

function createWriter(stream: NodeJS.WriteStream, fd: number): Writer {
  return stream instanceof Socket ? toPipe(stream) : toFile(fd);
}

/** A pipe, a socket or a terminal. Node keeps stdout and stderr open after an error. */
function toPipe(stream: Socket): Writer {
  // Each write hears of its own.
  stream.on('error', () => {});
  return {
    write: (text, done) => stream.write(text, done),
    waiting: () => stream.writableLength,
  };
}

interface Pending {
  rest: Buffer;
  begun: boolean;
  done: Done;
}

/** A file. Node's own stream takes what did not fit on a full disk for written. */
function toFile(fd: number): Writer {
  const queue: Pending[] = [];
  let busy = false;

  /** @returns why not all of it is written */
  function attempt(text: Pending): Error | undefined {
    try {
      while (text.rest.length > 0) {
        text.rest = text.rest.subarray(writeSync(fd, text.rest));
        text.begun = true;
      }
      return undefined;
    } catch (error) {
      return error as Error;
    }
  }

  function drain(): void {
    for (let first = queue[0]; first !== undefined; first = queue[0]) {
      const error = attempt(first);
      if (error !== undefined && first.begun) {
        // Its other half goes before anything else when there is room.
        for (const later of queue.splice(1)) later.done(error);
        return;
      }
      queue.shift();
      first.done(error);
    }
  }

  return {
    write(text, done) {
      queue.push({ rest: Buffer.from(text), begun: false, done });
      if (busy) return;
      busy = true;
      drain();
      busy = false;
    },
    waiting: () => queue.reduce((sum, { rest }) => sum + rest.length, 0),
  };
}
