import type { Place } from '../consul/transport.ts';
import * as field from '../state/field-checks.ts';

const name = field.text(1, 255);

/** What an upstream may say of where its source is. */
export const placeKeys = {
  datacenter: name.exactOptional(),
  namespace: name.exactOptional(),
  partition: name.exactOptional(),
};

/** For people. @returns such as `datacenter dc2`, for each that is said */
export function describePlace(place: Place): string[] {
  return Object.entries(place).flatMap(([key, value]) => {
    return value === undefined ? [] : [`${key} ${value}`];
  });
}
