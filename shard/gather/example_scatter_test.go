package gather_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// exampleNodes is a map of six shards on two nodes.
func exampleNodes() *shard.Map {
	ranges, _ := shard.EvenRanges(6)
	shards := make([]shard.Shard, len(ranges))
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: []string{"db1", "db2"}[i/3]}
	}
	m, _ := shard.NewMap(1, shards...)
	return m
}

// How many users are there, over all shards?
func ExampleScatter() {
	users := map[string]int{"db1": 40, "db2": 2}
	found, err := gather.Scatter(context.Background(), exampleMap().All(),
		func(_ context.Context, s *shard.Shard) (int, error) {
			return users[s.Node], nil // SELECT count(*) FROM users WHERE (range of s)
		}, gather.Options{Concurrency: 8, ShardTimeout: time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	total := 0
	for _, r := range found.Results {
		fmt.Println(r.Shard.Name, r.Value)
		total += r.Value
	}
	fmt.Println(total)
	// Output:
	// -80 40
	// 80- 2
	// 42
}

// Six shards on two nodes are two queries.
func ExampleScatterNodes() {
	found, err := gather.ScatterNodes(context.Background(), exampleNodes().ByNode(),
		func(_ context.Context, node string, shards []*shard.Shard) (string, error) {
			var where []string
			for _, s := range shards {
				where = append(where, "hash in "+s.Range.String()) // or s.Range.SQL
			}
			return "SELECT count(*) FROM users WHERE " + strings.Join(where, " OR "), nil
		}, gather.Options{})
	for _, r := range found.Results {
		fmt.Println(r.Node, r.Value)
	}
	fmt.Println(err)
	// Output:
	// db1 SELECT count(*) FROM users WHERE hash in -2a OR hash in 2a-55 OR hash in 55-80
	// db2 SELECT count(*) FROM users WHERE hash in 80-aa OR hash in aa-d5 OR hash in d5-
	// <nil>
}

// A node is down, and three of six shards with it: one error for the node.
func ExampleScatterNodes_failure() {
	_, err := gather.ScatterNodes(context.Background(), exampleNodes().ByNode(),
		func(_ context.Context, node string, _ []*shard.Shard) (int, error) {
			if node == "db2" {
				return 0, errors.New("connection refused")
			}
			return 1, nil
		}, gather.Options{Concurrency: 1})
	var partial *gather.PartialError
	fmt.Println(err)
	fmt.Println(errors.As(err, &partial), partial.Missing)
	// Output:
	// gather: 3 of 6 shards answered: node db2: connection refused (3 shards)
	// true [80-]
}

// The three newest messages of all shards. Each shard is read up to the limit.
func ExampleStream() {
	tables := map[string][]int{"db1": {90, 60, 50, 10}, "db2": {80, 70, 20}} // newest first
	newestFirst := func(a, b int) int { return cmp.Compare(b, a) }
	for id, err := range gather.Stream(context.Background(), exampleMap().All(), newestFirst,
		func(_ context.Context, s *shard.Shard) iter.Seq2[int, error] {
			return gather.Rows(tables[s.Node]) // SELECT … WHERE (range of s) ORDER BY id DESC LIMIT 3
		}, gather.Options{Limit: 3}) {
		fmt.Println(id, err)
	}
	// Output:
	// 90 <nil>
	// 80 <nil>
	// 70 <nil>
}

// A shard is down, and half of them are enough: the stream ends with what it lacks.
func ExampleStream_partial() {
	tables := map[string][]int{"db1": {1, 2}}
	for id, err := range gather.Stream(context.Background(), exampleMap().All(), cmp.Compare[int],
		func(_ context.Context, s *shard.Shard) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				if s.Node == "db2" {
					yield(0, errors.New("connection refused"))
					return
				}
				gather.Rows(tables[s.Node])(yield)
			}
		}, gather.Options{MinFraction: 0.5}) {
		var partial *gather.PartialError
		if errors.As(err, &partial) {
			fmt.Println("without", partial.Missing, err)
			return
		}
		fmt.Println(id)
	}
	// Output:
	// 1
	// 2
	// without [80-] gather: 1 of 2 shards answered: shard 80-: connection refused
}

// The primary of a shard hangs. After a millisecond its replica is asked, and the
// question to the primary ends.
func ExampleHedge() {
	hedge := &gather.Hedge{After: time.Millisecond, Budget: 0.5}
	found, err := gather.Scatter(context.Background(), exampleMap().All(),
		func(ctx context.Context, s *shard.Shard) (string, error) {
			switch {
			case gather.Attempt(ctx) == 1:
				return "replica of " + s.Node, nil
			case s.Node == "db2":
				<-ctx.Done()
				return "", ctx.Err()
			}
			return s.Node, nil
		}, gather.Options{Hedge: hedge, Concurrency: 1}) // in this order, so that db1 pays in first
	for _, r := range found.Results {
		fmt.Println(r.Value)
	}
	stats := hedge.Stats()
	fmt.Println(err, "calls", stats.Calls, "hedges", stats.Hedges, "wins", stats.Wins)
	// Output:
	// db1
	// replica of db2
	// <nil> calls 2 hedges 1 wins 1
}

// One answer of two is enough: a quorum ends the other call.
func ExampleOptions_first() {
	found, err := gather.Scatter(context.Background(), exampleMap().All(),
		func(ctx context.Context, s *shard.Shard) (string, error) {
			if s.Node == "db1" {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return s.Node, nil
		}, gather.Options{Quorum: 1})
	fmt.Println(found.Results[0].Value, "without", found.Missing, err)
	// Output:
	// db2 without [-80] <nil>
}
