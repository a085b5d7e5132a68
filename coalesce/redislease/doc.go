// Package redislease is a [coalesce.Lease] on Redis: of all processes one does
// the work of a key, is succeeded if it dies, and the others find its result.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs})
//	...
//	lease, err := redislease.New(client, redislease.Options{TTL: 10 * time.Second})
//	...
//	page, err := coalesce.Lead(ctx, lease, key,
//		func(ctx context.Context) ([]byte, bool, error) { return lease.Get(ctx, key) },
//		func(ctx context.Context, token coalesce.Token) ([]byte, error) {
//			page, err := render(ctx, key)
//			if err != nil {
//				return nil, err
//			}
//			return page, lease.Put(ctx, key, token, page, time.Minute)
//		})
//
// # When to use it
//
// For work whose result is worth sharing and whose repetition is merely a waste:
// pages, thumbnails, previews, access tokens. If the result belongs into a
// database in any case, take package sqllease, whose fence is part of the
// transaction that writes. If nothing has to be shared, a [coalesce.Group] in
// each process is cheaper, and repeats the work only once a process.
//
// # How it works
//
// Acquire is one script, one round trip: it sets a key that expires after the
// time to live, if it does not exist, and makes a token. The holder renews it at
// each third of the time to live; a holder that stops renewing, for whatever
// reason, is succeeded when the key expires. Release deletes the key if it is
// still the holder's, and publishes to the channel of the key, in one script.
//
// Those that wait are subscribed to that channel, one subscription for all
// waiters of a key in a process. A published message can be lost, and a holder
// that dies publishes nothing, so they also look once a second, and when the
// holder's time will have run out. It is sharded Pub/Sub (SPUBLISH), which stays
// inside the shard of the key, where PUBLISH goes to every node of a cluster.
// The invalidations of client-side caching would tell of the expiry too, but
// their callback belongs to whoever makes the client, and this package takes any
// client.
//
// The four names of a key share a hash tag, {…}, made of a hash of the key, so
// that they are in one slot of a cluster, whatever bytes the key has.
//
// # Tokens and late holders
//
// A lease does not stop its former holder. A process that was paused by a
// garbage collection, a suspended virtual machine or a debugger goes on when it
// wakes, and may do so between its last look at the lease and its write. Its
// clock does not help: it had no time to read it. What helps is that Put asks
// for the token, in the same script that stores the value: the value of a holder
// that has lost the lease is refused with [coalesce.ErrFenced]. A store of your
// own can do the same: remember the greatest token, refuse a smaller one.
//
// A token is the time of the server in microseconds, or one more than the last
// token of the key if that is greater. A counter alone would start again at 1
// when Redis loses its data, and every token that another store remembers would
// then be greater. Time alone would repeat itself when a clock is set back: the
// last token is kept for a day after the key was last held, which is longer
// than any clock should be wrong.
//
// # What it cannot do
//
// Redis replicates asynchronously. When a primary dies, its replica may not know
// the newest lease, and grant it again while its holder goes on: two holders,
// until the first renews and is told, at most a third of the time to live
// later. Tokens still grow, since they are times, as far as the clocks of the
// servers agree. Results are as safe as that: they are in the same shard as the
// lease, so a result that was stored on the primary that is gone is lost
// together with its lease. Do not use the lease for work that must not run
// twice, whatever happens; no lease can do that, and this one is content with
// "seldom".
//
// After a loss of data (FLUSHALL, a restart without persistence, eviction) the
// lease is free, and its holder learns of it at its next renewal. Configure
// maxmemory-policy noeviction, or a memory that suffices.
//
// While Redis is down there are no leases: Acquire and Wait return errors, and
// holders lose their grants when their time to live has run out. Whether to work
// without a lease then is the decision of the caller.
//
// # Requirements
//
// Redis 7, or Valkey; a single server, Sentinel or Redis Cluster. With Redis 6.2
// it works too, and those that wait only learn by looking.
package redislease
