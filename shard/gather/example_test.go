package gather_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

func exampleMap() *shard.Map {
	ranges, _ := shard.EvenRanges(2)
	m, _ := shard.NewMap(1, shard.Shard{Range: ranges[0], Node: "db1"}, shard.Shard{Range: ranges[1], Node: "db2"})
	return m
}

// The three newest messages of all shards: ask each for its own three newest,
// then merge.
func Example() {
	tables := map[string][]int{"db1": {90, 60, 50, 10}, "db2": {80, 70, 20}} // newest first
	const limit = 3

	found, err := gather.Scatter(context.Background(), exampleMap().All(),
		func(_ context.Context, s *shard.Shard) ([]int, error) {
			return tables[s.Node][:limit], nil // SELECT … ORDER BY id DESC LIMIT 3
		}, gather.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var streams []iter.Seq2[int, error]
	for _, r := range found.Results {
		streams = append(streams, gather.Rows(r.Value))
	}
	newestFirst := func(a, b int) int { return cmp.Compare(b, a) }
	n := 0
	for id, err := range gather.Merge(newestFirst, streams...) {
		fmt.Println(id, err)
		if n++; n == limit {
			break
		}
	}
	// Output:
	// 90 <nil>
	// 80 <nil>
	// 70 <nil>
}

// A shard is down. Half of the shards are enough for this caller, who learns what
// is missing.
func ExampleScatter_partial() {
	ask := func(_ context.Context, s *shard.Shard) (int, error) {
		if s.Node == "db2" {
			return 0, errors.New("connection refused")
		}
		return 42, nil
	}
	found, err := gather.Scatter(context.Background(), exampleMap().All(), ask, gather.Options{MinFraction: 0.5})
	fmt.Println(found.Results[0].Value, "without", found.Missing, err)

	_, err = gather.Scatter(context.Background(), exampleMap().All(), ask, gather.Options{})
	fmt.Println(err)
	// Output:
	// 42 without [80-] <nil>
	// gather: 1 of 2 shards answered: shard 80-: connection refused
}

func ExampleMerge() {
	ascending := gather.Merge(cmp.Compare[int], gather.Rows([]int{1, 4}), gather.Rows([]int{2, 3}))
	for row, err := range ascending {
		fmt.Println(row, err)
	}
	for row, err := range gather.Merge(cmp.Compare[int], gather.Rows([]int{2, 1})) {
		fmt.Println(row, err)
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
	// 4 <nil>
	// 2 <nil>
	// 0 gather: stream is not ordered: stream 0
}
