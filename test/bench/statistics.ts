/**
 * @param values at least one number
 * @param share 0.5 for the median, 0.99 for the 99th percentile
 * @returns the smallest value that `share` of the values do not exceed (nearest rank)
 */
export function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(share * sorted.length));
  return sorted[rank - 1] ?? Number.NaN;
}

/** @returns `median (smallest–largest)` of the values with the given decimals */
export function spread(values: number[], decimals: number): string {
  const [median, low, high] = [0.5, 0, 1].map((share) =>
    percentile(values, share).toFixed(decimals),
  );
  return `${median} (${low}–${high})`;
}
