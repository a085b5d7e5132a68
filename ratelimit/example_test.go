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

func ExampleAll() {
	site, err := ratelimit.NewLimiter(ratelimit.Per(1000, time.Hour))
	if err != nil {
		panic(err)
	}
	tenants, err := ratelimit.NewKeyed[string](ratelimit.Per(100, time.Hour), ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	users, err := ratelimit.NewKeyed[string](ratelimit.Per(2, time.Hour), ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	for range 3 {
		d := ratelimit.All(
			site.Want(1).Named("site"),
			tenants.Want("acme", 1).Named("tenant"),
			users.Want("ann@acme", 1).Named("user"),
		)
		fmt.Println(d.Allowed, d.Name, d.Remaining, "left; the tenant has", tenants.Peek("acme", 0).Remaining)
	}
	// Output:
	// true user 1 left; the tenant has 99
	// true user 0 left; the tenant has 98
	// false user 0 left; the tenant has 98
}

// The cost of a query is known when it has run. Charge an estimate, and correct it.
func ExampleReservation_Settle() {
	users, err := ratelimit.NewKeyed[string](ratelimit.Per(1000, time.Hour), ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	query := func(estimate, actual int64) {
		r, err := users.Reserve("ann", estimate, 0)
		if err != nil {
			fmt.Println("refused")
			return
		}
		defer r.Settle(actual)
	}
	query(500, 20)
	fmt.Println(users.Peek("ann", 0).Remaining)
	query(100, 1500) // it goes into debt, and pays it before it asks again
	query(1, 1)
	// Output:
	// 980
	// refused
}

// Each customer has the limit of its plan, and a plan may change at any time.
func ExampleNewKeyedBy() {
	plans := map[string]ratelimit.Limit{"free": ratelimit.Per(1, time.Hour), "pro": ratelimit.Per(1000, time.Hour)}
	planOf := map[string]string{"ann": "free", "bob": "pro"}
	customers, err := ratelimit.NewKeyedBy(func(customer string) ratelimit.Limit {
		return plans[planOf[customer]]
	}, ratelimit.KeyedOptions{})
	if err != nil {
		panic(err)
	}
	for range 2 {
		fmt.Println(customers.Allow("ann"), customers.Allow("bob"), customers.Allow("somebody else"))
	}
	// Output:
	// true true false
	// false true false
}

// A burst of 1 shapes: however the work arrives, it leaves at an even pace.
func ExampleLimiter_Wait_shaping() {
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(100, time.Second).Burst(1))
	if err != nil {
		panic(err)
	}
	started := time.Now()
	for range 4 {
		if err := limiter.Wait(context.Background(), 1); err != nil {
			panic(err)
		}
	}
	fmt.Println(time.Since(started) >= 30*time.Millisecond)
	// Output: true
}

func ExampleLimiter_TakeUpTo() {
	limiter, err := ratelimit.NewLimiter(ratelimit.Per(10, time.Hour))
	if err != nil {
		panic(err)
	}
	for range 3 {
		n, _ := limiter.TakeUpTo(7) // a batch of what may be sent now
		fmt.Println(n)
	}
	// Output:
	// 7
	// 3
	// 0
}

func ExampleKeyed_All() {
	users, err := ratelimit.NewKeyed[string](ratelimit.Per(60, time.Hour), ratelimit.KeyedOptions{Labels: 32})
	if err != nil {
		panic(err)
	}
	users.Take("ann", 30)
	for user, left := range users.All() {
		fmt.Println(user, "has all of it again in", left.Round(time.Minute))
	}
	// Output: ann has all of it again in 30m0s
}
