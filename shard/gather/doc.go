// Package gather asks many shards one question and brings the answers together:
// [Scatter] calls each shard, with a bound on how many at once and on how long,
// and [Merge] turns ordered streams into one.
//
// # The problem
//
// A query without the sharding key concerns every shard. It is as slow as the
// slowest of them, fails as often as all of them together, and its cost grows
// with their number: that is why a scatter is an explicit call here and never
// something that a look-up falls back to. When a shard does not answer, a list
// that is silently short is worse than an error.
//
// # The idea
//
//	found, err := gather.Scatter(ctx, m.All(),
//		func(ctx context.Context, s *shard.Shard) ([]Message, error) {
//			return newest(ctx, databases[s.Node], s.Range, limit) // ORDER BY id DESC LIMIT limit
//		}, gather.Options{ShardTimeout: time.Second})
//	...
//	var streams []iter.Seq2[Message, error]
//	for _, r := range found.Results {
//		streams = append(streams, gather.Rows(r.Value))
//	}
//	for msg, err := range gather.Merge(newestFirst, streams...) { ... }
//
// The shards come from one [shard.Map], so that the whole call sees one topology.
// Each call is given its shard with the range: put the range into the query
// (hash BETWEEN ...) and rows that a move left behind are invisible. A limit is
// pushed down whole: each shard may hold all of the first n rows.
//
// By default every shard must answer; the first failure ends the other calls and
// is returned as a [*PartialError] with its cause. Ask for less with
// [Options.MinFraction], and read in [Gathered.Missing] what the answer lacks.
//
// # Order
//
// Merge needs streams that are ordered by the comparison it is given. A database
// orders text by its collation and puts NULL where it likes, and a comparison in
// Go that differs gives wrong pages without any error elsewhere. Merge checks
// each stream as it goes and stops with [ErrUnordered].
//
// Sources: scatter-gather in Vitess and in Figma's DBProxy; the loser tree from
// Knuth, The Art of Computer Programming, volume 3, section 5.4.1.
package gather
