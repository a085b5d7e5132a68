package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func Example() {
	// Two requests a second for each user, and up to three at once.
	users, err := ratelimit.NewKeyed[string](ratelimit.Per(2, time.Second).Burst(3), ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) // Take reads the clock; TakeAt is told
	for range 5 {
		d := users.TakeAt("ann", now, 1)
		fmt.Printf("ann: %-5v  %d left, retry after %v\n", d.Allowed, d.Remaining, d.RetryAfter)
		now = now.Add(100 * time.Millisecond)
	}
	d := users.TakeAt("bob", now, 1)
	fmt.Printf("bob: %-5v  %d left\n", d.Allowed, d.Remaining)
	// Output:
	// ann: true   2 left, retry after 0s
	// ann: true   1 left, retry after 0s
	// ann: true   0 left, retry after 0s
	// ann: false  0 left, retry after 200ms
	// ann: false  0 left, retry after 100ms
	// bob: true   2 left
}

func ExampleLimiter_Allow() {
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(3, time.Hour))
	if err != nil {
		panic(err)
	}
	for range 5 {
		fmt.Print(limiter.Allow(), " ")
	}
	// Output: true true true false false
}

func ExampleLimiter_TakeAt() {
	// 100 units flow in a second, and 200 fit.
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(100, time.Second).Burst(200))
	if err != nil {
		panic(err)
	}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	fmt.Printf("%+v\n", limiter.TakeAt(noon, 150))
	fmt.Printf("%+v\n", limiter.TakeAt(noon, 80))
	fmt.Printf("%+v\n", limiter.TakeAt(noon.Add(300*time.Millisecond), 80))
	fmt.Printf("%+v\n", limiter.TakeAt(noon, 1)) // a clock that went back
	// Output:
	// {Allowed:true Limit:200 Remaining:50 RetryAfter:0s ResetAfter:1.5s Name:}
	// {Allowed:false Limit:200 Remaining:50 RetryAfter:300ms ResetAfter:1.5s Name:}
	// {Allowed:true Limit:200 Remaining:0 RetryAfter:0s ResetAfter:2s Name:}
	// {Allowed:false Limit:200 Remaining:0 RetryAfter:310ms ResetAfter:2.3s Name:}
}

func ExampleLimiter_Wait() {
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(1, time.Hour))
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(limiter.Wait(ctx, 1))

	// The next unit is an hour away: Wait says so at once.
	err = limiter.Wait(ctx, 1)
	fmt.Println(errors.Is(err, ratelimit.ErrLimited))
	limited, _ := errors.AsType[*ratelimit.LimitError](err)
	fmt.Println(limited.RetryAfter.Round(time.Minute))
	// Output:
	// <nil>
	// true
	// 1h0m0s
}

func ExampleLimiter_Reserve() {
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(10, time.Hour))
	if err != nil {
		panic(err)
	}
	r, err := limiter.Reserve(10, time.Minute)
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Delay(), limiter.Take(0).Remaining)
	r.Cancel() // there is nothing to do after all
	fmt.Println(limiter.Take(0).Remaining)
	// Output:
	// 0s 0
	// 10
}

func ExampleLimiter_SetLimit() {
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(10, time.Hour))
	if err != nil {
		panic(err)
	}
	limiter.Take(8)
	if err := limiter.SetLimit(ratelimit.Per(100, time.Hour)); err != nil {
		panic(err)
	}
	d := limiter.Take(0)
	fmt.Println(d.Remaining, "of", d.Limit) // the rest has to flow in
	// Output: 2 of 100
}

func ExampleParseLimit() {
	for _, text := range []string{"100/s burst 200", "5000 / hour", "20/10s", "fast"} {
		limit, err := ratelimit.ParseLimit(text)
		fmt.Println(limit, err)
	}
	// Output:
	// 100/s burst 200 <nil>
	// 5000/h <nil>
	// 20/10s <nil>
	// 0/0d ratelimit: invalid limit: the text is "fast", expected a form such as "100/s" or "100/s burst 200"
}

func ExampleKeyed_Stats() {
	users, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Hour), ratelimit.KeyedOptions{Capacity: 1000})
	if err != nil {
		panic(err)
	}
	for _, user := range []string{"ann", "bob", "ann", "ann"} {
		users.Allow(user)
	}
	fmt.Printf("%+v\n", users.Stats())
	// Output: {Capacity:2002 Resident:2 Live:2 Allowed:2 Denied:2 Inherited:0}
}
