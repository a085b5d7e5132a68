package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A hundred people open one channel at the same time. The database is asked
// once.
func Example() {
	var latest coalesce.Group[string, []string]

	query := func(ctx context.Context, channel string) ([]string, error) {
		for latest.Stats().Joined < 99 { // a slow database
			runtime.Gosched()
		}
		return []string{"welcome to " + channel}, nil
	}
	handle := func(ctx context.Context, channel string) ([]string, error) {
		return latest.Do(ctx, channel, func(ctx context.Context) ([]string, error) {
			return query(ctx, channel)
		})
	}

	var requests sync.WaitGroup
	for range 100 {
		requests.Go(func() {
			if messages, err := handle(context.Background(), "#general"); err != nil || len(messages) != 1 {
				fmt.Println("unexpected:", messages, err)
			}
		})
	}
	requests.Wait()

	s := latest.Stats()
	fmt.Printf("%d query for %d requests\n", s.Executions, s.Executions+s.Joined)
	// Output: 1 query for 100 requests
}

// A caller that gives up does not disturb the others, although it was the first.
func ExampleGroup_Do() {
	var g coalesce.Group[string, int]
	started, finish := make(chan struct{}), make(chan struct{})

	impatient, giveUp := context.WithCancel(context.Background())
	first := g.DoChan(impatient, "answer", func(ctx context.Context) (int, error) {
		close(started)
		<-finish
		return 42, ctx.Err()
	})
	<-started
	second := g.DoChan(context.Background(), "answer", func(context.Context) (int, error) { return 0, nil })

	giveUp()
	fmt.Println((<-first).Err)

	close(finish)
	r := <-second
	fmt.Println(r.Val, r.Err)
	// Output:
	// context canceled
	// 42 <nil>
}

func ExampleGroup_DoResult() {
	var g coalesce.Group[string, int]
	r := g.DoResult(context.Background(), "key", func(context.Context) (int, error) {
		panic("no such table")
	})
	p, ok := errors.AsType[*coalesce.PanicError](r.Err)
	fmt.Println(ok, p.Value, r.Shared, r.Waiters)
	// Output: true no such table false 1
}

func ExampleGroup_DoChan() {
	var g coalesce.Group[int, string]
	ctx := context.Background()

	profile := g.DoChan(ctx, 1, func(context.Context) (string, error) { return "a profile", nil })
	avatar := g.DoChan(ctx, 2, func(context.Context) (string, error) { return "an avatar", nil })

	fmt.Println((<-profile).Val)
	fmt.Println((<-avatar).Val)
	// Output:
	// a profile
	// an avatar
}

// A read that follows a write must not join a flight that began before it.
func ExampleGroup_Forget() {
	var g coalesce.Group[string, string]
	ctx := context.Background()
	topic := "old"
	finish := make(chan struct{})
	read := func(context.Context) (string, error) {
		seen := topic
		<-finish
		return seen, nil
	}

	started := make(chan struct{})
	before := g.DoChan(ctx, "topic", func(ctx context.Context) (string, error) {
		seen := topic
		close(started)
		<-finish
		return seen, nil
	})
	<-started

	topic = "new" // the write
	g.Forget("topic")
	after := g.DoChan(ctx, "topic", read)
	close(finish)

	fmt.Println((<-before).Val, (<-after).Val)
	// Output: old new
}

func ExampleGroup_Flights() {
	var g coalesce.Group[string, int]
	ctx := context.Background()
	finish := make(chan struct{})
	work := func(context.Context) (int, error) { <-finish; return 1, nil }
	a, b := g.DoChan(ctx, "slow", work), g.DoChan(ctx, "slow", work)

	for key, flight := range g.Flights() {
		fmt.Println(key, flight.Waiters)
	}
	close(finish)
	<-a
	<-b
	// Output: slow 2
}
