package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// The first key goes at once. Those that come while its query runs go together
// in the next.
func ExampleBatcher() {
	names := map[int]string{1: "Ada", 2: "Grace", 3: "Barbara"}
	first, others := make(chan struct{}), make(chan struct{})
	var users coalesce.Batcher[int, string]
	users.Fetch = func(ctx context.Context, ids []int) (map[int]string, error) {
		if len(ids) == 1 {
			close(first)
			<-others // a slow database
		}
		fmt.Printf("SELECT id, name FROM users WHERE id IN (%d keys)\n", len(ids))
		found := map[int]string{}
		for _, id := range ids {
			found[id] = names[id]
		}
		return found, nil
	}

	var requests sync.WaitGroup
	load := func(id int) {
		requests.Go(func() {
			if name, err := users.Load(context.Background(), id); err != nil || name != names[id] {
				fmt.Println("unexpected:", name, err)
			}
		})
	}
	load(1)
	<-first
	for range 10 {
		load(2)
		load(3)
	}
	for users.Stats().Loads < 21 {
		runtime.Gosched()
	}
	close(others)
	requests.Wait()
	fmt.Printf("%d loads, %d fetches\n", users.Stats().Loads, users.Stats().Fetches)
	// Output:
	// SELECT id, name FROM users WHERE id IN (1 keys)
	// SELECT id, name FROM users WHERE id IN (2 keys)
	// 21 loads, 2 fetches
}

// Each key has its own value or error. A key that the fetch does not return has
// none.
func ExampleBatcher_LoadAll() {
	users := coalesce.Batcher[int, string]{Fetch: func(ctx context.Context, ids []int) (map[int]string, error) {
		return map[int]string{1: "Ada"}, coalesce.Errors[int]{3: errors.New("row is damaged")}
	}}
	for id, r := range users.LoadAll(context.Background(), []int{1, 2, 3}) {
		fmt.Println(id, r.Val, r.Err, errors.Is(r.Err, coalesce.ErrNotFound))
	}
	// Output:
	// 1 Ada <nil> false
	// 2  coalesce: no value for this key true
	// 3  row is damaged false
}

// All nodes agree on who owns a channel, and when one leaves only its channels
// move.
func ExampleOwners() {
	var fleet coalesce.Owners[string]
	nodes := []coalesce.Node[string]{
		{ID: "a", Value: "10.0.0.1:80"}, {ID: "b", Value: "10.0.0.2:80"}, {ID: "c", Value: "10.0.0.3:80"},
	}
	_ = fleet.Update(nodes)
	channels := []string{"channel/0", "channel/1", "channel/2", "channel/3", "channel/5"}
	before := map[string]string{}
	for _, channel := range channels {
		owner, err := fleet.Owner(channel)
		if err != nil {
			panic(err)
		}
		before[channel] = owner.ID
	}

	_ = fleet.Update(nodes[1:]) // a leaves
	for _, channel := range channels {
		owner, _ := fleet.Owner(channel)
		fmt.Println(channel, before[channel], "->", owner.ID)
	}
	// Output:
	// channel/0 c -> c
	// channel/1 c -> c
	// channel/2 a -> b
	// channel/3 a -> c
	// channel/5 b -> b
}

// Hooks tell what a flight did, for a log or a trace.
func ExampleTrace() {
	g := coalesce.Group[string, int]{Trace: &coalesce.Trace[string]{
		Done: func(ctx context.Context, key string, l coalesce.Landing) {
			fmt.Println(key, "ended for", l.Waiters, "caller:", l.Err)
		},
	}}
	_, _ = g.Do(context.Background(), "user/7", func(context.Context) (int, error) {
		return 0, errors.New("timeout")
	})
	// Output: user/7 ended for 1 caller: timeout
}

// Of work that must not overlap, the next execution waits until the one before
// has really ended, also if all its callers have given up.
func ExampleAbandonPolicy() {
	export := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
	var log []string
	started, stop := make(chan struct{}), make(chan struct{})

	ctx, giveUp := context.WithCancel(context.Background())
	first := export.DoChan(ctx, "report", func(context.Context) (int, error) {
		close(started)
		<-stop // slow to stop
		log = append(log, "first has ended")
		return 1, nil
	})
	<-started
	giveUp()
	<-first
	second := export.DoChan(context.Background(), "report", func(context.Context) (int, error) {
		log = append(log, "second begins")
		return 2, nil
	})
	close(stop)
	fmt.Println((<-second).Val, slices.Clone(log))
	// Output: 2 [first has ended second begins]
}
