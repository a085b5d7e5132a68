package shed_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Ten requests at a time, of which two places are for the critical.
func ExampleConcurrency() {
	gate, err := shed.NewConcurrency(shed.ConcurrencyOptions{Limit: 10, Reserve: 0.2})
	if err != nil {
		panic(err)
	}
	var permits []shed.Permit
	for range 8 {
		p, err := gate.TryAcquire(shed.Default)
		if err != nil {
			panic(err)
		}
		permits = append(permits, p)
	}

	_, err = gate.TryAcquire(shed.Default)
	fmt.Println(err)
	p, err := gate.TryAcquire(shed.Critical)
	fmt.Println("critical:", err)

	p.Release(shed.Success)
	permits[0].Release(shed.Success)
	fmt.Println(gate.Stats().InFlight, "in progress")
	// Output:
	// shed: refused: default request: reserved
	// critical: <nil>
	// 7 in progress
}

// Do calls a function in a place of the gate. Those that find none wait for a while.
func ExampleConcurrency_Do() {
	gate, err := shed.NewConcurrency(shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 1}})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	err = gate.Do(ctx, shed.Default, func(ctx context.Context) error {
		fmt.Println("in progress:", gate.Stats().InFlight)
		// Another one waits until its context ends, or for 100 ms.
		ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		return gate.Do(ctx, shed.Default, func(context.Context) error { panic("not called") })
	})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	fmt.Println("in progress:", gate.Stats().InFlight)
	// Output:
	// in progress: 1
	// true
	// in progress: 0
}

// Two requests at a time for each user.
func ExampleKeyedConcurrency() {
	gate, err := shed.NewKeyedConcurrency[string](2)
	if err != nil {
		panic(err)
	}
	first, _ := gate.Acquire("ann")
	_, _ = gate.Acquire("ann")
	_, err = gate.Acquire("ann")
	fmt.Println("ann:", errors.Is(err, shed.ErrShed))
	_, err = gate.Acquire("bob")
	fmt.Println("bob:", err)

	first.Release(shed.Success)
	_, err = gate.Acquire("ann")
	fmt.Println("ann:", err)
	fmt.Println(gate.Stats().Keys, "keys")
	// Output:
	// ann: true
	// bob: <nil>
	// ann: <nil>
	// 2 keys
}

// A permit of an Adaptive is released with what became of the request: the limit is
// learnt from it.
func ExampleAdaptive() {
	gate, err := shed.NewAdaptive(shed.AdaptiveOptions{Initial: 40})
	if err != nil {
		panic(err)
	}
	query := func(context.Context) error { return nil }

	ctx := context.Background()
	p, err := gate.Acquire(ctx, shed.Default)
	if err != nil {
		fmt.Println(err) // 503
		return
	}
	err = query(ctx)
	p.Release(shed.OutcomeOf(err)) // a time-out is a Drop

	s := gate.Stats()
	fmt.Println(s.Limit, s.InFlight, s.Admitted.Of(shed.Default))
	// Output: 40 0 1
}
