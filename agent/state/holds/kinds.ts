// The reasons to hold an observation. One that doubts is enough.
export { empty } from './empty.ts';
