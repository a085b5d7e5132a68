// Package sim simulates what sharding costs: the tail of a query over many shards,
// and a day of look-ups at the rate of a large service. It has no API: it is two
// benchmarks, which run the code of shard and gather as it is:
//
//	go test -run '^$' -bench . -benchtime 1x ./shard/sim
//
// # Tail
//
// A query over n shards waits for the slowest. If a shard is slow in one call of a
// hundred, then of the queries over n shards 1-(1-p)^n are: 1 % over one, 63 % over a
// hundred (Dean and Barroso, The Tail at Scale, CACM 56(2), 2013). BenchmarkTail asks n
// shards again and again, each of which answers in some 5 ms, and in 500 ms with a
// chance of 1 %, in a bubble of testing/synctest, where time is virtual and does not
// depend on the machine. It prints
//
//   - slow%: how many of the queries were slow, beside theory%, which is 1-(1-p)^n;
//   - p50-ms and p99-ms: how long they took;
//   - hedged%: how many more calls the hedges made, if there were any.
//
// Without a hedge, slow% is theory%. With one, which makes a call again when it is later
// than 98 of 100 are, a query is slow only if a shard is slow twice, or the budget, 5 % of
// the calls, was spent.
//
// # Day
//
// BenchmarkDay routes the keys of a day: the rate rises and falls between the night's and
// the peak's, 2.3 million queries a second at Slack (Vitess at Slack, 2020), popular keys
// come more often than others, and the topology changes as a fleet's does, a split or a
// move some hundred times a day. A router serves every key from the map that it has. The
// rate is sampled, one query of a hundred thousand; what is measured is
//
//   - ns/route: the time of a routed query, the hash included;
//   - core%-at-peak: that time at the peak's rate, as a share of one core;
//   - Mqueries: how many million queries the day had;
//   - updates: how many maps were put to use in it.
package sim
