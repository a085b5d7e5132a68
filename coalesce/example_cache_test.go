package coalesce_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A thousand readers of a page that is not in memory make one query, and those
// who come later none.
func ExampleCache() {
	var queries atomic.Int64
	pages, err := coalesce.NewCache(func(ctx context.Context, title string) (string, error) {
		queries.Add(1)
		return "all about " + title, nil
	}, coalesce.CacheOptions[string, string]{Capacity: 10_000, TTL: time.Minute, Jitter: 0.1})
	if err != nil {
		panic(err)
	}
	defer pages.Close(context.Background())

	var readers sync.WaitGroup
	for range 1000 {
		readers.Go(func() {
			if text, err := pages.Get(context.Background(), "gophers"); err != nil || text != "all about gophers" {
				fmt.Println("unexpected:", text, err)
			}
		})
	}
	readers.Wait()
	s := pages.Stats()
	fmt.Println(queries.Load(), "query for", s.Hits+s.Misses, "readers")
	// Output: 1 query for 1000 readers
}

// With Stale, nobody waits for the reload of a value that is in use: who comes
// first after the TTL gets the old one and sets off the load of the new one.
func ExampleNewCache() {
	var version atomic.Int64
	loaded := make(chan int64, 10)
	c, err := coalesce.NewCache(func(context.Context, string) (int64, error) {
		defer func() { loaded <- version.Load() }()
		return version.Add(1), nil
	}, coalesce.CacheOptions[string, int64]{
		Capacity: 100,
		TTL:      time.Nanosecond, // an example has no time to lose
		Stale:    time.Hour,
	})
	if err != nil {
		panic(err)
	}
	defer c.Close(context.Background())
	ctx := context.Background()

	v, _ := c.Get(ctx, "config")
	<-loaded
	fmt.Println("first:", v)

	v, _ = c.Get(ctx, "config")
	fmt.Println("after the TTL:", v)
	fmt.Println("in the background:", <-loaded)
	// Output:
	// first: 1
	// after the TTL: 1
	// in the background: 2
}

// An outage is bridged with old values, and Entry tells that it is one.
func ExampleCache_Entry() {
	down := false
	rates, err := coalesce.NewCache(func(_ context.Context, currency string) (float64, error) {
		if down {
			return 0, fmt.Errorf("rates of %s: connection refused", currency)
		}
		return 1.25, nil
	}, coalesce.CacheOptions[string, float64]{
		Capacity:     100,
		TTL:          time.Nanosecond,
		StaleIfError: time.Hour,
	})
	if err != nil {
		panic(err)
	}
	defer rates.Close(context.Background())
	ctx := context.Background()

	e, err := rates.Entry(ctx, "EUR")
	fmt.Println(e.Value, e.State, err)

	down = true
	e, err = rates.Entry(ctx, "EUR")
	fmt.Println(e.Value, e.State, err)
	_, err = rates.Entry(ctx, "GBP")
	fmt.Println(err)
	// Output:
	// 1.25 Fresh <nil>
	// 1.25 StaleError <nil>
	// rates of GBP: connection refused
}

// A write makes its own value known. A load that began before it, and ends
// after it, does not bring the old one back.
func ExampleCache_Invalidate() {
	topic := "old"
	started, finish := make(chan struct{}, 2), make(chan struct{})
	topics, err := coalesce.NewCache(func(context.Context, int) (string, error) {
		found := topic
		started <- struct{}{}
		<-finish
		return found, nil
	}, coalesce.CacheOptions[int, string]{Capacity: 100})
	if err != nil {
		panic(err)
	}
	defer topics.Close(context.Background())
	ctx := context.Background()

	before := make(chan string)
	go func() { v, _ := topics.Get(ctx, 1); before <- v }()
	<-started

	topic = "new" // the write
	topics.Invalidate(1)
	close(finish)

	fmt.Println(<-before)
	v, _ := topics.Get(ctx, 1)
	fmt.Println(v)
	// Output:
	// old
	// new
}

// Keys that do not exist are remembered for a while too. Otherwise a crawler
// that follows dead links would ask the database each time.
func ExampleCacheOptions_negative() {
	queries := 0
	users, err := coalesce.NewCache(func(_ context.Context, name string) (int, error) {
		queries++
		return 0, fmt.Errorf("user %q: %w", name, coalesce.ErrNotFound)
	}, coalesce.CacheOptions[string, int]{Capacity: 100, NegativeTTL: time.Minute})
	if err != nil {
		panic(err)
	}
	defer users.Close(context.Background())

	for range 3 {
		_, err = users.Get(context.Background(), "nobody")
		fmt.Println(err)
	}
	fmt.Println(queries, "query")
	// Output:
	// user "nobody": coalesce: no value for this key
	// user "nobody": coalesce: no value for this key
	// user "nobody": coalesce: no value for this key
	// 1 query
}

// A cache over a Batcher fetches what it does not have with one query.
func ExampleNewBatchCache() {
	fetch := func(_ context.Context, ids []int) (map[int]string, error) {
		fmt.Println("SELECT … WHERE id IN", ids)
		names := map[int]string{}
		for _, id := range ids {
			if id < 100 {
				names[id] = fmt.Sprintf("user %d", id)
			}
		}
		return names, nil
	}
	users, err := coalesce.NewBatchCache(
		&coalesce.Batcher[int, string]{Fetch: fetch},
		coalesce.CacheOptions[int, string]{Capacity: 1000, TTL: time.Minute, NegativeTTL: time.Minute},
	)
	if err != nil {
		panic(err)
	}
	defer users.Close(context.Background())

	for _, ids := range [][]int{{1, 2, 100}, {2, 3, 100}} {
		for id, r := range users.GetAll(context.Background(), ids) {
			fmt.Println(id, r.Val, r.Err)
		}
	}
	// Output:
	// SELECT … WHERE id IN [1 2 100]
	// 1 user 1 <nil>
	// 2 user 2 <nil>
	// 100  coalesce: no value for this key
	// SELECT … WHERE id IN [3]
	// 2 user 2 <nil>
	// 3 user 3 <nil>
	// 100  coalesce: no value for this key
}
