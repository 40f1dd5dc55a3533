// Seconds left, by the pace of the newest steps.

const NEWEST = 7;

// A function of each step as it comes; null until there are two to measure between.
// What is replayed was not done now: the measuring begins after it.
export function makePace(now = () => performance.now() / 1000) {
  let seen = [];
  return (step, steps, isReplay) => {
    if (isReplay || step <= (seen.at(-1)?.[0] ?? 0)) seen = [];
    seen.push([step, now()]);
    seen = seen.slice(-NEWEST);
    const [[first, began], [, latest]] = [seen[0], seen.at(-1)];
    return step > first ? ((latest - began) / (step - first)) * (steps - step) : null;
  };
}
