package balance_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

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

// Alike requests, spread by chance.
func ExampleRandom() {
	b, _ := balance.New[string](balance.Random(), balance.Options{Rand: rand.New(rand.NewPCG(1, 2)).Uint64})
	_ = b.Update([]balance.Backend[string]{{ID: "small"}, {ID: "large", Weight: 3}})
	for range 4000 {
		p, _ := b.Pick()
		p.Done(nil)
	}
	for backend, s := range b.Stats() {
		fmt.Printf("%s %.2f\n", backend.ID, s.Share)
	}
	// Output:
	// small 0.25
	// large 0.75
}

// Of two backends, one of which takes more than three times as long, the slow one is asked only
// when three requests are under way on the fast one.
func ExampleLeastLatency() {
	b, _ := balance.New[string](balance.LeastLatency(balance.LatencyOptions{}), balance.Options{})
	_ = b.Update([]balance.Backend[string]{{ID: "fast"}, {ID: "slow"}})
	first, _ := b.Pick()
	second, _ := b.Pick() // the other one, since the first is busy
	for _, p := range []*balance.Pick[string]{&first, &second} {
		if p.ID() == "fast" {
			p.Observe(10 * time.Millisecond)
		} else {
			p.Observe(35 * time.Millisecond)
		}
		p.Done(nil)
	}
	for range 4 {
		p, _ := b.Pick() // and not done
		fmt.Println(p.ID())
	}
	// Output:
	// fast
	// fast
	// fast
	// slow
}

// loadTable answers probes; a real one asks the backend of the ID over the network.
type loadTable map[string]balance.Load

func (t loadTable) Probe(_ context.Context, id string) (balance.Load, error) { return t[id], nil }

// Clients that see little of the load themselves ask the backends for it.
func ExamplePrequal() {
	table := loadTable{
		"a": {InFlight: 9, Latency: 90 * time.Millisecond},
		"b": {InFlight: 2, Latency: 20 * time.Millisecond},
		"c": {InFlight: 8, Latency: 80 * time.Millisecond},
	}
	b, _ := balance.New[string](balance.Prequal(table, balance.PrequalOptions{
		Go: func(probe func()) { probe() }, // so that the output is always the same
	}), balance.Options{})
	_ = b.Update([]balance.Backend[string]{{ID: "a"}, {ID: "b"}, {ID: "c"}})

	first, _ := b.Pick() // nothing is known yet; it sends the first probes
	first.Done(nil)
	second, _ := b.Pick()
	fmt.Println(second.ID())
	second.Done(nil)
	// Output:
	// b
}

// A client in zone eu-1 stays there until the zone has too few backends left.
func ExampleZone() {
	b, _ := balance.New[string](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{
		Zone: balance.Zone{Local: "eu-1", Min: 2},
	})
	zones := func() (local, remote int) {
		for range 100 {
			p, _ := b.Pick()
			if p.Value == "eu-1" {
				local++
			} else {
				remote++
			}
			defer p.Done(nil)
		}
		return local, remote
	}
	set := []balance.Backend[string]{
		{ID: "a", Value: "eu-1", Zone: "eu-1"},
		{ID: "b", Value: "eu-1", Zone: "eu-1"},
		{ID: "c", Value: "eu-2", Zone: "eu-2"},
		{ID: "d", Value: "eu-2", Zone: "eu-2"},
	}
	_ = b.Update(set)
	fmt.Println(zones())

	_ = b.Update(set[2:]) // the zone is gone
	fmt.Println(zones())
	// Output:
	// 100 0
	// 0 100
}

// A backend that fails five times in a row is left out, and comes back by itself.
func ExampleHealth() {
	now := time.Duration(0)
	b, _ := balance.New[string](balance.RoundRobin(), balance.Options{
		Health:   balance.Health{BaseEjection: 10 * time.Second},
		Clock:    func() time.Duration { return now }, // so that the example need not wait
		OnChange: func(id string, s balance.State) { fmt.Println(id, "is", s) },
	})
	_ = b.Update([]balance.Backend[string]{{ID: "a"}, {ID: "b"}, {ID: "c"}})
	request := func() {
		p, _ := b.Pick()
		if p.ID() == "b" {
			p.Done(errors.New("connection refused"))
		} else {
			p.Done(nil)
		}
	}
	for range 30 {
		request()
	}
	for backend, s := range b.Stats() {
		fmt.Println(backend.ID, s.State, s.Failures)
	}
	now += 10 * time.Second
	request()
	// Output:
	// b is ejected
	// a healthy 0
	// b ejected 5
	// c healthy 0
	// b is warming
}

// Each of fifty clients has twelve of two hundred backends, and all backends have as
// many clients.
func ExampleSubset() {
	clients := map[string]int{}
	for client := range 50 {
		b, _ := balance.New[string](balance.RoundRobin(), balance.Options{
			Subset: balance.Subset{Client: client, Clients: 50, Size: 12},
		})
		var set []balance.Backend[string]
		for i := range 200 {
			set = append(set, balance.Backend[string]{ID: fmt.Sprint("backend-", i)})
		}
		_ = b.Update(set)
		for range 12 {
			p, _ := b.Pick()
			clients[p.ID()]++
		}
	}
	least, most := 50, 0
	for _, n := range clients {
		least, most = min(least, n), max(most, n)
	}
	fmt.Printf("%d backends, %d to %d clients each\n", len(clients), least, most)
	// Output:
	// 200 backends, 3 to 3 clients each
}
