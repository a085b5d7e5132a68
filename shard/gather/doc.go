// Package gather asks many shards one question and brings the answers together:
// [Scatter] calls each shard and [ScatterNodes] each node, with bounds on how many at
// once and on how long; [Stream] yields the rows of all in one order.
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
//	for msg, err := range gather.Stream(ctx, m.All(), newestFirst,
//		func(ctx context.Context, s *shard.Shard) iter.Seq2[Message, error] {
//			return newest(ctx, databases[s.Node], s.Range, 50) // ORDER BY id DESC LIMIT 50
//		}, gather.Options{Limit: 50, ShardTimeout: time.Second}) { ... }
//
// The shards come from one [shard.Map], so that the whole call sees one topology.
// Each call is given its shard with the range: put the range into the query
// (hash BETWEEN ...) and rows that a move left behind are invisible. A limit is
// pushed down whole: each shard may hold all of the first n rows.
//
// Where many logical shards share a database, ask with ScatterNodes: one query for all
// shards of a node. For rows that are there already there are [Merge] and
// [MergeBatches].
//
// # Part of the answer
//
// By default every shard must answer; the first failure ends the other calls and
// is returned as a [*PartialError] with its cause. Ask for less with
// [Options.MinFraction], or for a quorum with [Options.Quorum], and read in
// [Gathered.Missing] what the answer lacks. A Stream that lacks anything ends with a
// PartialError, and one that broke off after it had begun says Torn.
//
// # Load
//
// Every request that asks all shards multiplies itself. A [Bulkhead] bounds the calls at
// each node over all requests, and a slow node then holds up none but its own. A [Hedge] asks
// a second time where an answer is late, within a budget.
//
// # Aggregates
//
// A [Fold] is computed in parts: each shard folds its rows, mostly in SQL, and [Aggregate]
// combines the parts in the order of the shards; [AggregateNodes] asks each node once. [Sum], [Count], [Min], [Max], [Avg],
// [VarPop], [VarSamp], [TopK] and [Distinct] are folds, and [GroupBy] makes any of them one
// by group.
//
// # Pages
//
// A [Query] is read page by page. Its cursor is a signed position in key space, so it
// outlives splits, merges and moves between pages, and it asks every shard each time for a
// page and one row more. [NewestFirst] pages through the [shard.Buckets] of one key. Package
// httpgather sends rows over HTTP while they are read.
//
// # Order
//
// Merge and Stream need streams that are ordered by the comparison they are given: ORDER BY
// in the database and compare in Go must be the same order. That is the caller's to see
// to. PostgreSQL puts NULL after all values, and with DESC before; MySQL and SQLite the
// other way round. Text is ordered by its collation, in which "a" may sort before "B", and
// [strings.Compare] orders bytes: say COLLATE "C" in the query. PostgreSQL sorts NaN after
// all numbers, [cmp.Compare] before. For DESC exchange the arguments. End with a
// unique column, so that no two rows are equal. A comparison that differs gives
// wrong pages without any error elsewhere. The merge checks each stream as it goes and
// stops with [ErrUnordered].
//
// Sources: scatter-gather in Vitess and in Figma's DBProxy; the loser tree from
// Knuth, The Art of Computer Programming, volume 3, section 5.4.1; hedged requests from
// Dean and Barroso, The Tail at Scale, 2013; bulkheads from Nygard, Release It!, 2007;
// keyset pagination from Winand, use-the-index-luke.com; HyperLogLog from Flajolet and
// others, 2007, and Ertl, 2017.
package gather
