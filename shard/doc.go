// Package shard places keys on a ring of 2^64 points and finds the shard that
// owns a point. It is the routing half of Vitess and of Figma's DBProxy as a
// plain library: a key finds its shard in about the time of hashing it.
//
// # The problem
//
// One database is not enough. The rows must be spread over several, every
// client must agree where a key lives, and a shard that grows too large must be
// split later without touching the others. "hash modulo n" agrees, but adding
// one database moves almost every key.
//
// # The idea
//
// A [Hash] sends each key to a point of the ring, its [ID]. A [Range] is an
// interval of the ring, and a shard owns one range. A [Map] is a list of shards
// whose ranges tile the ring exactly, so that every key has one owner. To split
// a shard is to cut its range in two; no other key moves.
//
//	ranges, err := shard.EvenRanges(4)           // -40 40-80 80-c0 c0-
//	...
//	m, err := shard.NewMap(1,
//		shard.Shard{Range: ranges[0], Node: "db1"},
//		shard.Shard{Range: ranges[1], Node: "db2"},
//		...
//	)
//	s := m.Lookup(shard.XXHash("channel:42")) // s.Node holds the channel
//
// A map is immutable and carries an epoch. [Map.Split], [Map.Merge] and [Map.Move] build
// the next one, and a [Router] serves keys by the newest: it holds the map and the
// handles of its nodes as one snapshot behind one atomic pointer, so that no operation sees
// two topologies.
//
//	r, err := shard.NewRouter(shard.XXHash, m, openDB, shard.RouterOptions[*sql.DB]{})
//	go r.Follow(ctx, source) // newer maps, from a table, a file, etcd: package topo
//	...
//	err = r.Do(ctx, "channel:42", func(ctx context.Context, t shard.Target[*sql.DB]) error {
//		return insert(ctx, t.Node, t.Epoch, message) // a *shard.StaleError if the fence refuses
//	})
//
// # Which hash
//
// [XXHash] if nothing speaks against it. [PGText], [PGInt8] or [PGUUID] if PostgreSQL is to
// compute the points itself, so that views, copies and scatters select a shard's rows by
// [Range.SQL] without a column for them. [VitessHash] and [RedisSlot] to share data with
// those systems. [Jump] and [Rendezvous] are here to compare with.
//
// A key of several parts is hashed as a [Tuple], or by [Combine] so that a tenant's keys
// stay close; what grows for ever in time is cut into [Buckets].
//
// # Names
//
// Ranges are written as Vitess writes them: "-40", "40-80", "80-", and "-" for
// the whole ring. The digits are the leading hexadecimal digits of the
// boundary; trailing zero bytes mean nothing, so "-80" and "-8000" are one
// range. [ParseRange] is strict where Vitess is not, and [Range.String] is
// canonical: two ranges are equal exactly if their texts are.
//
// A query that must ask many shards is a scatter-gather, an explicit call of
// its own: see package gather.
//
// # Where not to use it
//
// Use it to place data. To spread stateless requests over equal backends, use a
// load balancer. Do not change the hash once there is data: every key would move.
//
// Sources: Vitess (key ranges, vindexes, shard names, buffering at a cutover), Figma's
// write-up of its logical and physical sharding (2024), Redis Cluster (slots, tags, a
// stale map corrected by the node), Discord (time buckets, 2017), Segment's ctlstore (a
// local copy of the topology, 2018).
package shard
