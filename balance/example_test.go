package balance_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel-go/evenkeel/balance"
)

// Three replicas, one of which is stuck with two requests. The next requests go to
// the others.
func Example() {
	b, err := balance.New[string](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	stuck := balance.Backend[string]{ID: "replica-3", Value: "10.0.0.3:5432"}
	_ = b.Update([]balance.Backend[string]{stuck})
	for range 2 {
		_, _ = b.Pick() // requests that do not end
	}
	_ = b.Update([]balance.Backend[string]{
		{ID: "replica-1", Value: "10.0.0.1:5432"},
		{ID: "replica-2", Value: "10.0.0.2:5432"},
		stuck, // the balancer remembers what is under way there
	})
	for range 100 {
		_ = b.Do(context.Background(), func(_ context.Context, addr string) error {
			return nil // a query to addr
		})
	}
	for backend, s := range b.Stats() {
		if backend.ID == stuck.ID {
			fmt.Printf("%s: %d under way, %d picks\n", backend.ID, s.InFlight, s.Picks)
		}
	}
	// Output:
	// replica-3: 2 under way, 2 picks
}

// A retry goes to a backend that has not been tried.
func ExampleBalancer_PickExcept() {
	b, _ := balance.New[string](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
	_ = b.Update([]balance.Backend[string]{{ID: "a"}, {ID: "b"}})

	first, _ := b.Pick()
	first.Done(errors.New("connection reset"))

	second, _ := b.PickExcept(first.ID())
	fmt.Println("another one:", second.ID() != first.ID())
	second.Done(nil)
	// Output:
	// another one: true
}

func ExampleRoundRobin() {
	b, _ := balance.New[string](balance.RoundRobin(), balance.Options{})
	_ = b.Update([]balance.Backend[string]{{ID: "small"}, {ID: "large", Weight: 3}})
	for range 128 {
		p, _ := b.Pick()
		p.Done(nil)
	}
	for backend, s := range b.Stats() {
		fmt.Println(backend.ID, s.Picks)
	}
	// Output:
	// small 32
	// large 96
}
