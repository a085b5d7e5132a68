package gather_test

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// A channel's messages lie in buckets of ten days, and (channel, bucket) is the
// sharding key: a bucket is one partition of one shard. The newest three messages of a
// channel that was quiet for a while are found a few buckets back.
func ExampleNewestFirst() {
	m := exampleMap()
	var buckets shard.Buckets
	shardOf := func(channel uint64, bucket int64) *shard.Shard {
		return m.Lookup(shard.XXHash(shard.Tuple(fmt.Sprint(channel), fmt.Sprint(bucket))))
	}

	// What the databases hold: a message is its snowflake.
	const channel = 7
	type partition struct {
		node   string
		bucket int64
	}
	tables := map[partition][]uint64{}
	date := func(month time.Month, day int) uint64 {
		return buckets.Since(time.Date(2026, month, day, 12, 0, 0, 0, time.UTC))
	}
	for _, id := range []uint64{date(4, 2), date(4, 1), date(2, 14), date(1, 1)} { // newest first
		p := partition{shardOf(channel, buckets.Of(id)).Node, buckets.Of(id)}
		tables[p] = append(tables[p], id)
	}

	asked := make(chan int64, 100)
	page, err := gather.NewestFirst(context.Background(), buckets.Back(date(5, 1), date(1, 1)), 3,
		func(_ context.Context, bucket int64, limit int) ([]uint64, error) {
			asked <- bucket
			rows := tables[partition{shardOf(channel, bucket).Node, bucket}] // … WHERE channel = … AND bucket = … ORDER BY id DESC LIMIT …
			return rows[:min(limit, len(rows))], nil
		})
	fmt.Println(len(page), "messages,", err, "from", len(asked), "buckets")
	for _, id := range page {
		fmt.Println(buckets.Time(id).Format(time.DateOnly))
	}
	// Output:
	// 3 messages, <nil> from 13 buckets
	// 2026-04-02
	// 2026-04-01
	// 2026-02-14
}
