// Package stampede simulates what happens when cached values expire in front of
// a slow database, and compares the strategies against it. It has no API: it is
// a benchmark, run with
//
//	go test -run '^$' -bench Stampede -benchtime 1x ./coalesce/stampede
//
// Some processes have a cache each and one database behind them. Readers of all
// processes ask for keys, a few of which are far more popular than the others.
// All keys were loaded at the same moment, as after a deployment. The database
// answers a few queries at a time and lets the others queue, so that queries
// which nobody needs make those slower that somebody waits for.
//
// The code of package coalesce runs as it is, with all its goroutines, but in a
// bubble of testing/synctest: time is virtual, an hour takes seconds, and the
// figures do not depend on the machine.
//
// # Strategies
//
//   - none: a map with times of expiry. Each reader that misses loads.
//   - group: a coalesce.Cache with a TTL. The readers of a process share a load.
//   - jitter: the same, with lifetimes that are drawn from half of the TTL on.
//   - swr: the same as group, and while a value is reloaded the old one is served
//     (stale-while-revalidate).
//   - xfetch: the same as group, with early refreshes by chance (Beta 1).
//   - lease: a store that all processes share, one round trip away, and a lease
//     by which one process loads for all (coalesce.Lead).
//
// # Figures
//
//   - loads: how many queries the database got, beside ideal, which is one for
//     each key of each process (lease: of all processes) and lifetime.
//   - peak: how many queries it had at once, running and queued.
//   - p99-ms, max-ms: how long readers waited.
//   - age-s: how old the values were that readers got, as the 99th percentile.
//     Above the TTL they were stale.
package stampede
