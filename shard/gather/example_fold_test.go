package gather_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// The average over all shards, where one has many rows and the other few: the parts
// are sums and counts.
func ExampleAggregate() {
	ages := map[string]gather.AvgPart[int64]{"db1": {Sum: 30 * 99, Count: 99}, "db2": {Sum: 80, Count: 1}}

	avg, _, err := gather.Aggregate(context.Background(), exampleMap().All(), gather.Avg[int64](),
		func(_ context.Context, s *shard.Shard) (gather.AvgPart[int64], error) {
			return ages[s.Node], nil // SELECT coalesce(sum(age), 0), count(age) FROM … WHERE hash BETWEEN …
		}, gather.Options{})
	fmt.Println(avg.V, err)
	// Output:
	// 30.5 <nil>
}

// The oldest order of each country; one shard has none from Norway.
func ExampleGroupBy() {
	null := func(v string) sql.Null[string] { return sql.Null[string]{V: v, Valid: true} }
	orders := map[string]map[string]sql.Null[string]{
		"db1": {"fr": null("2024-05-01"), "no": null("2023-01-31")},
		"db2": {"fr": null("2022-11-30")},
	}
	oldest, _, err := gather.Aggregate(context.Background(), exampleMap().All(), gather.GroupBy[string](gather.Min[string]()),
		func(_ context.Context, s *shard.Shard) (map[string]sql.Null[string], error) {
			return orders[s.Node], nil // SELECT country, min(day) FROM orders … GROUP BY country
		}, gather.Options{})
	for _, country := range slices.Sorted(maps.Keys(oldest)) {
		fmt.Println(country, oldest[country].V)
	}
	fmt.Println(err)
	// Output:
	// fr 2022-11-30
	// no 2023-01-31
	// <nil>
}

// How many visitors there were: many were seen by both shards.
func ExampleDistinct() {
	total, _, err := gather.Aggregate(context.Background(), exampleMap().All(), gather.Distinct(),
		func(_ context.Context, s *shard.Shard) (*gather.Sketch, error) {
			from := map[string]int{"db1": 0, "db2": 20_000}[s.Node]
			visitors := new(gather.Sketch)
			for i := from; i < from+40_000; i++ {
				visitors.Add(uint64(shard.XXHash(fmt.Sprint("visitor ", i))))
			}
			return visitors, nil
		}, gather.Options{})
	fmt.Println(total > 59_000 && total < 61_000, err) // 60,000 and 0.81 %
	// Output:
	// true <nil>
}
